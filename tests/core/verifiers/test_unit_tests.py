"""Unit tests in the sandbox: right programs pass in both styles, and no trick passes for a right program."""

# ruff: noqa: E501
# The programs that are tried stand here as one string each.

import asyncio
from typing import Any

import pytest

from gymrail.errors import InfrastructureError, InputError
from gymrail.rollout import Verdict
from gymrail.sandbox import Limits
from gymrail.verifiers.unit_tests import UnitTests, last_code_block, same_output, same_result

SUMS = {"inputs": ["1 2\n", "3 4\n", "-5 5\n"], "outputs": ["3\n", "7\n", "0\n"]}
ADD = {"inputs": ["1\n2", "3\n4", "-5\n5"], "outputs": ["3", "7", "0"], "fn_name": "add"}
PATIENT = UnitTests(limits=Limits(wall_seconds=60, cpu_seconds=60))
QUICK = UnitTests(limits=Limits(wall_seconds=2, cpu_seconds=2))
"""For what may take too long."""


def judge(code: str, unit_tests: dict[str, Any], verifier: UnitTests = PATIENT) -> Verdict:
    return asyncio.run(verifier(f"Here it is:\n```python\n{code}\n```\n", unit_tests=unit_tests))


@pytest.mark.parametrize(
    "code",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\ndata = sys.stdin.read().split()\nprint(int(data[0]) + int(data[1]))",
        "import sys\nsys.stdout.write(str(sum(int(x) for x in sys.stdin.buffer.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "def main():\n    print(' ', sum(map(int, input().split())), '  ')\nif __name__ == '__main__':\n    main()",
        "from __future__ import annotations\nprint(f'{sum(map(float, input().split())):.3f}')",
        "print(reduce(lambda a, b: a + b, map(int, input().split())))\nexit()",
    ],
)
def test_a_program_passes_however_it_reads_and_prints(code: str) -> None:
    assert judge(code, SUMS) == Verdict(1.0, metrics={"passed_share": 1.0, "unit_tests": 3})


@pytest.mark.parametrize(
    "code",
    [
        "def add(a, b): return a + b",
        "class Solution:\n    def add(self, a: int, b: int) -> List[int]:\n        return a + b",
        "print('noise')\ndef add(a, b):\n    print('more noise')\n    return float(a + b)",
    ],
)
def test_a_function_or_a_method_of_solution_passes(code: str) -> None:
    assert judge(code, ADD).reward == 1.0


def test_some_wrong_outputs_earn_nothing_and_the_share_is_told() -> None:
    verdict = judge("a, b = map(int, input().split())\nprint(abs(a) + b)", SUMS)
    assert (verdict.reward, verdict.metrics["passed_share"]) == (0.0, pytest.approx(2 / 3))
    assert verdict.reason == "test 3: wrong output '10\\n'"


def test_a_crash_a_missing_function_and_no_code_are_wrong_answers_with_a_reason() -> None:
    assert judge("1 / 0", SUMS).reason == "test 1: ZeroDivisionError: division by zero"
    assert (
        judge("def plus(a, b): return a + b", ADD).reason == "test 1: NameError: the program defines no function 'add'"
    )
    assert (
        judge("def add(a, b): return {a, b}", ADD).reason
        == "test 1: TypeError: Object of type set is not JSON serializable"
    )
    assert asyncio.run(QUICK("I do not know.", unit_tests=SUMS)).reason == "no code block in the answer"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "ran longer than 2 seconds"),
        ("import time\ntime.sleep(100)", "ran longer than 2 seconds"),
        ("x = 'x' * 10**9", "MemoryError"),
        ("import os\nos.kill(os.getppid(), 9)", "the process of the code ended"),
        ("import os\nos.kill(0, 9)", "the process of the code ended"),
    ],
)
def test_a_bomb_is_the_answers_own_failure(code: str, reason: str) -> None:
    verdict = judge(code, SUMS, QUICK if "longer" in reason else PATIENT)
    assert verdict.reward == 0.0
    assert reason in (verdict.reason or "")


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "print('passed')\nprint('OK')\nprint(True)",
        # A result that equals everything stays inside; what comes out is JSON.
        "class Any(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\ndef add(a, b): return Any(99)",
        "import json\njson.dumps = lambda value: '\"passed\"'\ndef add(a, b): return 1",
        "import builtins\nbuiltins.print = lambda *a: None\ndef add(a, b): raise SystemExit(0)",
        "def add(a, b):\n    import os\n    os._exit(0)",
        "import sys\nsys.modules['__main__']._call = lambda *a: b'3'\nsys.modules['__main__']._contents = lambda *a: b'3'\ndef add(a, b): return 1",
        # Rewriting the process that the tests are forked from: the next one must still give the right result.
        "import os, gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'wall' in o: o['output'] = 0\ndef add(a, b): return 0",
        "import os\nfor n in range(3, 30):\n    try: os.write(n, (6).to_bytes(4, 'big') + bytes(24))\n    except OSError: pass",
    ],
)
@pytest.mark.parametrize("cases", [SUMS, ADD], ids=["stdin", "call"])
def test_no_trick_passes(code: str, cases: dict[str, Any]) -> None:
    assert judge(code, cases, QUICK).reward == 0.0


def test_the_expected_outputs_are_nowhere_in_the_sandbox() -> None:
    secret = "9817234650"
    look = (
        "import gc, os, sys\nfound = []\n"
        "for folder in ('/tmp', '/run', '/dev/shm', '/opt'):\n    for at, _, names in os.walk(folder):\n"
        "        for name in names:\n            found.append(open(os.path.join(at, name), 'rb').read())\n"
        "for process in os.listdir('/proc'):\n    if process.isdigit():\n        for name in ('cmdline', 'environ', 'maps'):\n"
        "            try: found.append(open(f'/proc/{process}/{name}', 'rb').read())\n            except OSError: pass\n"
        "for frame in sys._current_frames().values():\n    while frame:\n"
        "        found.append(repr(frame.f_locals).encode())\n        frame = frame.f_back\n"
        "found.append(repr([o for o in gc.get_objects() if isinstance(o, (list, dict, tuple))][:99999]).encode())\n"
        f"start, end = {secret[:5]!r}, {secret[5:]!r}\nprint(any((start + end).encode() in text for text in found))"
    )
    verdict = judge(look, {"inputs": ["go\n", "go\n"], "outputs": ["False\n", f"{secret}\n"]})
    assert verdict.metrics["passed_share"] == 0.5, verdict.reason


def test_what_one_test_leaves_the_next_one_does_not_find() -> None:
    code = "import os\nprint(os.path.exists('/tmp/mark') or hasattr(os, 'mark'))\nopen('/tmp/mark', 'w')\nos.mark = 1"
    shares = judge(code, {"inputs": ["", ""], "outputs": ["False", "False"]}).metrics["passed_share"]
    assert shares == 0.5  # files stay, memory does not; neither holds an expected output
    assert (
        judge(code.replace("open('/tmp/mark', 'w')\n", ""), {"inputs": ["", ""], "outputs": ["False", "False"]}).reward
        == 1.0
    )


def test_a_large_output_is_compared_as_a_whole() -> None:
    numbers = "\n".join(str(number) for number in range(100_000))
    unit_tests = {"inputs": [numbers], "outputs": [numbers]}
    assert judge("import sys\nprint(sys.stdin.read())", unit_tests, UnitTests()).reward == 1.0
    assert judge("import sys\nprint(sys.stdin.read()[:-1])", unit_tests, UnitTests()).reward == 0.0


def test_stopping_early_earns_the_same_reward() -> None:
    early = UnitTests(limits=QUICK.limits, stops_early=True)
    verdict = judge("print(7)", SUMS, early)
    assert (verdict.reward, verdict.metrics["passed_share"]) == (0.0, 0.0)
    assert judge("print(7)", SUMS).metrics["passed_share"] == pytest.approx(1 / 3)


def test_a_lost_sandbox_is_a_failure_and_never_a_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    broken = UnitTests(limits=QUICK.limits)
    broken._sandbox()
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InfrastructureError):
        judge("print(1)", SUMS, broken)


@pytest.mark.parametrize(
    ("unit_tests", "message"),
    [
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [], "outputs": []}, r"unit_tests\.inputs: .*at least 1"),
        ({"outputs": []}, r"unit_tests\.inputs: Field required"),
        ({"inputs": ["x"], "outputs": ["1"], "fn_name": "f"}, "line 0 is 'x'; with fn_name every line is JSON"),
    ],
)
def test_unit_tests_that_are_none_are_refused_with_their_place(unit_tests: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge("print(1)", unit_tests)


@pytest.mark.parametrize(
    ("printed", "wanted", "is_same"),
    [
        ("3\n", "3", True),
        (" 3 \n 4\n\n", "3\n4", True),
        ("3.0 4", "3 4.00", True),
        ("1e1", "10", True),
        ("3 4", "3\n4", False),
        ("3", "3\n3", False),
        ("50000000000000000", "50000000000000001", False),
        ("0.30000000000000004", "0.3", False),
        ("nan", "NaN", False),
        ("YES", "yes", False),
        ("", "0", False),
    ],
)
def test_outputs_are_compared_by_lines_and_numbers_exactly(printed: str, wanted: str, is_same: bool) -> None:
    assert same_output(printed, wanted) is is_same


@pytest.mark.parametrize(
    ("returned", "wanted", "is_same"),
    [
        ([1, 2], [1, 2], True),
        (0.30000000000000004, 0.3, True),
        (3, 3.0000001, True),
        (3, 3.1, False),
        ("3", 3, False),
        ([1, 2], [2, 1], False),
        (None, 0, False),
        (10**400, 1.5, False),
    ],
)
def test_results_are_compared_as_json_and_numbers_closely(returned: Any, wanted: Any, is_same: bool) -> None:
    assert same_result(returned, wanted) is is_same


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```\nor better\n```py\nb\n```\ndone", "b\n"),
        ("```python\na\n``` ", "a\n"),
        ("```python\nnever closed", None),
        ("no code", None),
        ("```python\n\n```", None),
    ],
)
def test_the_last_closed_code_block_is_the_program(text: str, code: str | None) -> None:
    assert last_code_block(text) == code
