"""The Compose file, the Kubernetes manifest and the image: valid by their own specifications, and what they start is
what our command line takes and answers."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OBJECTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
KEY = "a key of the tests, long enough"
PAGE = (ROOT / "docs" / "where_it_runs.md").read_text(encoding="utf-8")


def objects(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


POD = objects("StatefulSet")["gymrail"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
COMMANDS = {
    **{f"compose: {name}": service["command"] for name, service in COMPOSE["services"].items()},
    "kubernetes": CONTAINER["args"],
    "image": json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]),
}


def test_every_kubernetes_object_is_valid_by_the_cluster_s_own_schemas() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for version in ("1.30", validator.latest_version().rpartition(".")[0]):
        for found in OBJECTS:
            validator.validate(found, version, strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**OBJECTS[0], "spec": {"prots": []}}, version, strict=True)


def test_the_compose_file_is_valid_by_the_compose_specification() -> None:
    specification = pytest.importorskip("compose_spec")
    parsed = specification.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    assert set(parsed.service_names()) == {"one", "two", "sandboxed"}
    with pytest.raises(ValueError, match="prots"):
        specification.PyCompose.from_yaml("services:\n  one:\n    image: gymrail\n    prots: [1]\n")


def test_kubernetes_finds_its_pods_their_port_and_their_key() -> None:
    labels = objects("StatefulSet")["gymrail"]["spec"]["template"]["metadata"]["labels"]
    services = objects("Service")
    for service in services.values():
        assert service["spec"]["selector"].items() <= labels.items()
        (port,) = service["spec"]["ports"]
        assert {found["name"]: found["containerPort"] for found in CONTAINER["ports"]}[port["targetPort"]] == port[
            "port"
        ]
    assert objects("StatefulSet")["gymrail"]["spec"]["serviceName"] in services
    assert objects("StatefulSet")["gymrail"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    policy = objects("NetworkPolicy")["gymrail"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8000}]
    (key,) = CONTAINER["env"]
    assert (key["name"], key["valueFrom"]["secretKeyRef"]) == ("GYMRAIL_KEY", {"name": "gymrail-key", "key": "key"})
    assert "create secret generic gymrail-key --from-literal=key=" in (DEPLOY / "kubernetes.yaml").read_text()


def test_an_episode_s_requests_reach_the_replica_that_has_it() -> None:
    services = objects("Service")
    assert services["gymrail"]["spec"]["clusterIP"] == "None"
    sticky = services["gymrail-sticky"]["spec"]
    assert sticky["sessionAffinity"] == "ClientIP"
    seconds = float(CONTAINER["args"][CONTAINER["args"].index("--episode-seconds") + 1])
    assert sticky["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] >= seconds
    # Under Compose no two servers share an address.
    published = [port.rpartition(":")[0] for service in COMPOSE["services"].values() for port in service["ports"]]
    assert len(set(published)) == len(published)


def test_servers_run_without_privileges_but_for_the_one_that_makes_sandboxes() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    plain = [service for name, service in COMPOSE["services"].items() if name != "sandboxed"]
    assert all(
        service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service for service in plain
    )
    sandboxed = COMPOSE["services"]["sandboxed"]
    assert (sandboxed["cap_add"], sandboxed["profiles"]) == (["SYS_ADMIN"], ["sandbox"])
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert user == [str(POD["securityContext"]["runAsUser"])]


def test_the_image_copies_every_package_that_the_wheel_is_built_of() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    copied = set(re.findall(r"^COPY (\S+) /source/", DOCKERFILE, re.MULTILINE))
    assert {name.partition("/")[0] for name in packages["targets"]["wheel"]["packages"]} <= copied
    files = re.search(r"^COPY (.*) /source/$", DOCKERFILE, re.MULTILINE)
    assert files is not None
    assert all((ROOT / name).is_file() for name in files[1].split())
    assert re.search(r"^FROM python:3\.11-slim$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_very_command_serves_answers_its_probes_and_judges_an_episode(command: list[str]) -> None:
    with serving(command) as address:
        for path in {probe["httpGet"]["path"] for name, probe in CONTAINER.items() if name.endswith("Probe")}:
            status, body = ask(f"{address}{path}", key=None)
            assert (status, body["status"]) == (200, "ok")
            assert body["environments"] == [word for word in command[: command.index("--host")]]
        for test in [service["healthcheck"]["test"] for service in COMPOSE["services"].values()] + [image_health()]:
            assert probe_in_container(test[-1], address) == 0
        name = body["environments"][0]
        row = {"responses_create_params": {"input": "4 plus 17 ?"}, **ROWS[name]}
        assert ask(f"{address}/{name}/seed_session", row, key=None)[0] in (401, 404)
        status, episode = ask(f"{address}/{name}/seed_session", row, key=KEY)
        assert status == 200, episode
        assert episode["url"].startswith(address)
        judged = {"_gymrail": {"episode_id": episode["episode_id"]}, "response": {"output": []}, **row}
        status, verdict = ask(f"{address}/{name}/verify", judged, key=KEY)
        assert (status, verdict["reward"]) == (200, 0.0)


def test_every_command_of_the_page_and_the_files_is_one_that_the_command_line_takes() -> None:
    from typer.main import get_command

    from gymrail.cli import app

    root: Any = get_command(app)
    shown = re.findall(
        r"^ *(?:# +)?gymrail ((?:train|serve|rollout|check|data prepare|profile) .*)$", PAGE, re.MULTILINE
    )
    assert len(shown) > 6
    for line in shown:
        words = re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line.split("  ")[0])
        names = [words.pop(0)] if words[0] != "data" else [words.pop(0), words.pop(0)]
        found = root
        for name in names:
            found = found.commands[name]
        found.make_context(names[-1], [word.strip("'\"") for word in words], resilient_parsing=False)


ROWS: dict[str, dict[str, Any]] = {
    "word_math": {"word": "plus", "a": 4, "b": 17},
    "session_counter": {"initial_count": 3, "expected_count": 7},
    "math_with_code": {"expected_result": "21"},
}


def image_health() -> list[str]:
    found = re.search(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", DOCKERFILE)
    assert found is not None
    return json.loads(found[1])


def probe_in_container(code: str, address: str) -> int:
    """Run the health check's own code; in a container it meets the server on the port that the command names."""
    assert "127.0.0.1:8000/health" in code
    code = code.replace("http://127.0.0.1:8000", address)
    return subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """Start `gymrail serve` with these words, on a free port instead of theirs."""
    words = list(command)
    assert words[words.index("--port") + 1] == "8000"
    words[words.index("--port") + 1] = "0"
    process = subprocess.Popen(
        [sys.executable, "-m", "gymrail", "serve", *words],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "GYMRAIL_KEY": KEY},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        ready, _, _ = select.select([process.stderr], [], [], 100)
        line = process.stderr.readline() if ready else ""
        found = re.search(r"on http://0\.0\.0\.0:(\d+)", line)
        assert found is not None, line + (process.stderr.read() if process.poll() is not None else "")
        address = f"http://127.0.0.1:{found[1]}"
        wait_for(address)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode in (0, -15)


def wait_for(address: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if ask(f"{address}/health", key=None)[0] == 200:
                return
        except urllib.error.URLError:
            continue
    raise AssertionError("the server does not answer")


def ask(url: str, body: dict[str, Any] | None = None, *, key: str | None) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}
