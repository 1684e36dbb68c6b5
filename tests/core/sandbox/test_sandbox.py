"""The sandbox as its user sees it: results, limits, providers and what is said when something is missing."""

# ruff: noqa: E501
# The programs that are tried stand here as one string each.

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InfrastructureError, InputError
from gymrail.sandbox import Execution, Interpreter, Limits, Sandbox, bubblewrap, choose, docker, seccomp
from gymrail.sandbox.docker import Docker


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return choose("bubblewrap", limits=Limits(wall_seconds=60))


@pytest.fixture(autouse=True)
def _ask_again_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_problem", bubblewrap._problem.__wrapped__)
    monkeypatch.setattr(docker, "_problem", docker._problem.__wrapped__)


def talk(sandbox: Sandbox, *codes: str) -> list[Execution]:
    async def play() -> list[Execution]:
        python = sandbox.interpreter()
        try:
            return [await python.execute(code) for code in codes]
        finally:
            await python.close()

    return asyncio.run(play())


def test_a_program_reads_its_input_and_files_and_writes_its_output(sandbox: Sandbox) -> None:
    code = "import sys\nprint(input(), open('in/a.txt').read())\nprint('careful', file=sys.stderr)\nsys.exit(3)"
    done = asyncio.run(sandbox.run(code, stdin="été\n", files={"in/a.txt": b"there"}))
    assert (done.stdout, done.stderr, done.exit_code) == ("été there\n", "careful\n", 3)
    assert done.error == "exit code 3"
    assert done.stopped is None


def test_an_interpreter_keeps_variables_and_gives_the_last_expressions_value(sandbox: Sandbox) -> None:
    one, two, three, four = talk(
        sandbox, "import math\nx = 6", "print('hi')\nx * 7", "x = None\nx", "math.floor(2.5); y = 1"
    )
    assert one == Execution(seconds=one.seconds)
    assert two == Execution(stdout="hi\n", value="42", seconds=two.seconds)
    assert (three.value, four.value) == (None, None)


def test_a_traceback_shows_the_models_own_lines_and_none_of_ours(sandbox: Sandbox) -> None:
    _, raised, syntax = talk(sandbox, "def f(x):\n    return 1 / x", "f(0)", "1 +")
    assert raised.error == (
        'Traceback (most recent call last):\n  File "<code 2>", line 1, in <module>\n    f(0)\n'
        '  File "<code>", line 2, in f\n    return 1 / x\n            ~~^~~\nZeroDivisionError: division by zero\n'
    )
    assert syntax.error is not None
    assert "SyntaxError" in syntax.error
    assert "inside.py" not in syntax.error


@pytest.mark.parametrize("code", ["import sys; sys.exit(4)", "exit()", "raise KeyboardInterrupt"])
def test_leaving_the_code_does_not_end_the_interpreter(sandbox: Sandbox, code: str) -> None:
    left, after = talk(sandbox, f"x = 5\n{code}", "x")
    assert left.error is not None
    assert not left.is_restarted
    assert after.value == "5"


def test_the_model_is_told_when_its_interpreter_was_lost_and_the_next_one_is_fresh(sandbox: Sandbox) -> None:
    lost, after = talk(sandbox, "x = 5\nimport os\nos._exit(0)", "x")
    assert (lost.stopped, lost.is_restarted) == ("killed", True)
    assert lost.error == (
        "killed: the process of the code ended. The interpreter starts anew. "
        "Variables, imports and functions of earlier calls are gone."
    )
    assert after.error is not None
    assert "NameError" in after.error


def test_a_forged_answer_is_the_models_own_result_and_no_failure(sandbox: Sandbox) -> None:
    forge = "import os\nfor number in range(3, 20):\n    try: os.write(number, b'x' * 999)\n    except OSError: pass"
    forged, after = talk(sandbox, forge, "1 + 1")
    assert forged.is_restarted
    assert after.value == "2"


def test_the_same_code_prints_the_same_sets_in_every_sandbox(sandbox: Sandbox) -> None:
    code = "print({chr(97 + i) for i in range(20)}, hash('x'))"
    assert len({asyncio.run(sandbox.run(code)).stdout for _ in range(3)}) == 1


def test_cpu_time_of_many_processes_is_added_up() -> None:
    limited = choose("bubblewrap", limits=Limits(wall_seconds=60, cpu_seconds=1.5))
    code = "import os\nfor _ in range(6):\n    if os.fork() == 0: break\nwhile True: pass"
    assert asyncio.run(limited.run(code)).stopped == "cpu"


def test_a_sandbox_that_is_killed_from_outside_is_a_failure_and_not_the_models_fault(sandbox: Sandbox) -> None:
    async def play(python: Interpreter) -> None:
        await python.execute("1")
        assert python._box is not None
        call = asyncio.ensure_future(python.execute("import time; time.sleep(600)"))
        await asyncio.sleep(0)
        os.kill(python._box._process.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError, match="killed from outside"):
            await call
        assert (await python.execute("2")).value == "2"
        await python.close()

    asyncio.run(play(sandbox.interpreter()))


def test_a_cancelled_call_leaves_no_sandbox_behind(sandbox: Sandbox) -> None:
    async def play() -> int:
        python = sandbox.interpreter()
        await python.execute("1")
        assert python._box is not None
        call = asyncio.ensure_future(python.execute("import time; time.sleep(600)"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return python._box._process.pid

    assert not Path(f"/proc/{asyncio.run(play())}").exists()


def test_no_more_calls_run_at_once_than_there_are_places() -> None:
    sandbox = choose("bubblewrap")
    sandbox.places = 2
    running = most = 0

    async def play() -> None:
        nonlocal running, most
        python = sandbox.interpreter()
        await python.execute("1")
        await python.close()

    real = sandbox.place

    def counted() -> Any:
        context = real()

        class Counting:
            async def __aenter__(self) -> Any:
                nonlocal running, most
                watch = await context.__aenter__()
                running += 1
                most = max(most, running)
                return watch

            async def __aexit__(self, *details: Any) -> Any:
                nonlocal running
                running -= 1
                return await context.__aexit__(*details)

        return Counting()

    sandbox.place = counted  # type: ignore[method-assign]

    async def all_of_them() -> None:
        await asyncio.gather(*(play() for _ in range(8)))

    asyncio.run(all_of_them())
    assert most == 2


def test_packages_are_visible_only_where_they_are_asked_for() -> None:
    code = "import orjson\nprint(orjson.dumps([1]).decode())"
    assert asyncio.run(choose("bubblewrap", packages=("orjson",)).run(code)).stdout == "[1]\n"
    assert "ModuleNotFoundError" in asyncio.run(choose("bubblewrap").run(code)).stderr
    with pytest.raises(InputError, match=r"'no-such-thing', which is not installed: pip install no-such-thing"):
        asyncio.run(choose("bubblewrap", packages=("no-such-thing",)).run("1"))


def test_without_user_numbers_to_give_a_user_namespace_shuts_off_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_mapped_users", lambda: range(0))
    code = "import os\nprint(open('/proc/self/status').read())\nfor path in ('/x', '/dev/x', '/etc/x'):\n    try: open(path, 'w')\n    except OSError as error: print(path, error.errno)"
    printed = asyncio.run(choose("bubblewrap").run(code)).stdout
    assert "CapEff:\t0000000000000000" in printed
    assert printed.endswith("/x 30\n/dev/x 30\n/etc/x 30\n")


@pytest.mark.parametrize(
    ("uids", "lowest", "highest"), [(range(2**32 - 1), 0x40000000, 0x44000000), (range(65536), 32768, 65536)]
)
def test_user_numbers_are_far_from_accounts_and_inside_what_is_mapped(
    monkeypatch: pytest.MonkeyPatch, uids: range, lowest: int, highest: int
) -> None:
    monkeypatch.setattr(bubblewrap, "_mapped_users", lambda: uids)
    numbers = {bubblewrap._user(count) for count in range(500)}
    assert len(numbers) == 500
    assert all(lowest <= number < highest for number in numbers)


def test_files_with_a_way_out_and_too_long_an_input_are_refused(sandbox: Sandbox) -> None:
    for name in ("/etc/passwd", "../x", "a/../../x", ""):
        with pytest.raises(InputError, match="not inside the sandbox's folder"):
            asyncio.run(sandbox.run("1", files={name: b""}))
    with pytest.raises(InputError, match="it may have a quarter as many"):
        asyncio.run(sandbox.run("1", stdin="x" * (sandbox.limits.file_bytes // 4 + 1)))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "10", True, None])
def test_a_limit_that_is_no_number_above_0_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"The sandbox limit wall_seconds is .*; it must be a number above 0"):
        Limits(wall_seconds=value)


def test_the_filter_is_whole_instructions_and_ends_in_a_decision() -> None:
    program = seccomp.program()
    assert program is not None
    assert len(program) % 8 == 0
    assert program[-8:] == seccomp._op(seccomp._RETURN, seccomp._ALLOW)


def test_an_unknown_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Did you mean 'bubblewrap'"):
        choose("bublewrap")


def test_without_a_safe_provider_the_error_names_the_package_and_the_unsafe_one_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InputError, match=r"bwrap is not installed.*apt-get install bubblewrap.*docker is not installed"
    ):
        choose()
    assert choose("subprocess").provider.name == "subprocess"


def test_bubblewrap_that_may_not_make_namespaces_is_a_problem_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_program(tmp_path / "bwrap", "#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InputError, match=r"No permissions to create new namespace.*allow user namespaces"):
        choose("bubblewrap")


def test_a_sandbox_that_does_not_start_is_a_failure_with_what_it_said(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_program(tmp_path / "bwrap", "#!/bin/sh\necho 'bwrap: out of luck' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InfrastructureError, match="did not start: bwrap: out of luck"):
        asyncio.run(sandbox.run("1"))


def test_docker_is_run_hardened_and_ended_by_name() -> None:
    launch = Docker("python:3.12-slim").launch(Limits(processes=5, memory_bytes=2**28, file_bytes=2**20))
    command = " ".join(launch.command[: launch.command.index("python:3.12-slim")])
    for option in (
        "--rm", "--interactive", "--network none", "--ipc none", "--read-only", "--cap-drop ALL",
        "--security-opt no-new-privileges", "--pids-limit 7", f"--memory {2**28}", f"--memory-swap {2**28}",
        "--user 65534:65534", "--pull never", "--init",
        f"--tmpfs /tmp:rw,nosuid,nodev,mode=1777,size={2**22}", "--env PYTHONHASHSEED=0",
    ):  # fmt: skip
        assert option in command
    assert "--volume" not in command
    assert "--mount" not in command
    name = launch.command[launch.command.index("--name") + 1]
    assert launch.kill_command is not None
    assert launch.kill_command[1:] == ("kill", name)


def test_docker_without_an_engine_or_without_the_image_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    write_program(tmp_path / "docker", "#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"does not answer \(Cannot connect\); start it: systemctl start docker"):
        choose("docker")
    write_program(tmp_path / "docker", '#!/bin/sh\ntest "$1" = version\n')
    with pytest.raises(InputError, match=r"is not on this machine: docker pull python:3\.11-slim"):
        choose("docker")


def test_the_docker_provider_talks_to_what_runs_in_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for the client runs the command after the image on this machine: the way of every byte is the real
    one, the shutting off is not."""
    (tmp_path / "scratch").mkdir()
    script = (
        f'#!{os.path.realpath("/bin/bash")}\n[ "$1" = run ] || exit 0\n'
        'while [ "$1" != an-image ]; do shift; done; shift\n'
        f'args=("$@"); last=$((${{#args[@]}} - 1)); args[$last]="${{args[$last]//\\/run\\/output/{str(tmp_path / "scratch").replace("/", chr(92) + "/")}}}"\n'
        'exec "${args[@]}"\n'
    )
    write_program(tmp_path / "docker", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = talk(choose("docker", image="an-image"), "x = 20", "print('out')\nx + 1")
    assert done[1] == Execution(stdout="out\n", value="21", seconds=done[1].seconds)


def test_the_unsafe_provider_limits_memory_time_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYMRAIL_SECRET", "hunter2")
    (slow,) = talk(choose("subprocess", limits=Limits(wall_seconds=1)), "while True: pass")
    unsafe = choose("subprocess", limits=Limits(wall_seconds=60))
    big, variables, folder = talk(unsafe, "'x' * 10**9", "import os\nsorted(os.environ)", "import os\nos.getcwd()")
    assert (big.stopped, slow.stopped) == ("memory", "timeout")
    assert "GYMRAIL" not in (variables.value or "GYMRAIL")
    assert not Path((folder.value or "").strip("'")).exists()


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
