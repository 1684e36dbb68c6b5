"""Model-written code under bubblewrap: every way out is tried from within, and each is refused."""

# ruff: noqa: E501
# The programs that are tried stand here as one string each.

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gymrail.sandbox import Execution, Limits, Sandbox, choose

SHORT = Limits(wall_seconds=60, cpu_seconds=30, memory_bytes=256 * 1024**2, file_bytes=4 * 1024**2, output_bytes=4096)
ANY_ERROR = "except Exception as error: print('refused', type(error).__name__, error)"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Bubblewrap or a failure that says how to install it, never a skip."""
    return choose("bubblewrap", limits=SHORT)


def run(sandbox: Sandbox, code: str) -> Execution:
    return asyncio.run(sandbox.run(code))


def refused(sandbox: Sandbox, *statements: str) -> list[str]:
    """Try each statement alone; return how each was refused, and fail on one that was not."""
    tried = [f"try:\n    {statement}\n    print('WENT THROUGH')\n{ANY_ERROR}" for statement in statements]
    done = run(
        sandbox, "import os, socket, ctypes, signal, sys\nC = ctypes.CDLL(None, use_errno=True)\n" + "\n".join(tried)
    )
    assert done.error is None, done
    answers = done.stdout.splitlines()
    assert len(answers) == len(statements)
    assert [line for line in answers if not line.startswith("refused")] == []
    return answers


CHECKED = "(lambda result: result == -1 and (_ for _ in ()).throw(OSError(ctypes.get_errno(), 'call refused')))"


def test_no_network_is_reachable_not_even_the_hosts_own_loopback(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused(
            sandbox,
            f"socket.create_connection(('127.0.0.1', {port}), timeout=2)",
            "socket.create_connection(('192.0.2.1', 80), timeout=2)",
            "socket.create_connection(('::1', 80), timeout=2)",
            "socket.getaddrinfo('localhost.example', 80)",
            "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
            "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        )
    done = run(
        sandbox, "print(sorted(open('/proc/net/dev').read().split())[-1:], open('/proc/net/route').read().count('\\n'))"
    )
    assert "eth" not in done.stdout
    assert done.stdout.split()[-1] == "1"  # the heading alone


def test_sockets_of_the_host_are_not_reachable_by_path_by_abstract_name_or_by_vsock(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    name = f"gymrail-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as abstract:
        by_path.bind(str(tmp_path / "s"))
        abstract.bind(f"\0{name}")
        by_path.listen()
        abstract.listen()
        answers = refused(
            sandbox,
            f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})",
            f"socket.socket(socket.AF_UNIX).connect('\\0{name}')",
            "socket.socket(40, socket.SOCK_STREAM)",  # AF_VSOCK: the host of a virtual machine
            "socket.socket(16, socket.SOCK_RAW)",  # AF_NETLINK
            "socket.socket(38, socket.SOCK_SEQPACKET)",  # AF_ALG
        )
    assert "not supported" in answers[2]


def test_files_of_the_host_are_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    secret.chmod(0o644)
    home, project = Path.home(), Path(__file__).resolve().parents[3]
    refused(
        sandbox,
        "open('/etc/shadow').read()",
        "open('/etc/passwd').read()",
        f"open({str(secret)!r}).read()",
        f"open({str(project / 'pyproject.toml')!r}).read()",
        f"os.listdir({str(home / '.ssh')!r})",
        f"os.listdir({str(project)!r})",
        "open('/var/log/dpkg.log').read()",
        "open('/dev/mem').read(1)",
        "open('/dev/kmsg').read(1)",
        "open('/proc/kcore', 'rb').read(1)",
        "open('/proc/sysrq-trigger', 'w').write('h')",
        "open('/proc/1/environ').read() or 1/0",
        "os.listdir('/proc/1/root/etc')",
        "os.listdir('/proc/1/cwd') and 1/0 or os.listdir('/proc/1/fd')",
    )
    seen = run(sandbox, "import os; print(os.listdir('/'))").stdout
    assert not {"home", "work", "mnt", "var", "boot", "srv", "sys"} & set(re.findall(r"\w+", seen))


def test_the_installed_packages_of_this_interpreter_are_not_importable(sandbox: Sandbox) -> None:
    refused(sandbox, "import pydantic", "import gymrail", "import pip")


def test_nothing_of_the_system_can_be_written(sandbox: Sandbox) -> None:
    stdlib = os.path.dirname(os.__file__)
    refused(
        sandbox,
        "open('/usr/bin/python3', 'ab')",
        "open('/usr/new', 'w')",
        f"open({stdlib + '/os.py'!r}, 'a')",
        f"os.unlink({stdlib + '/os.py'!r})",
        "open('/new', 'w')",
        "open('/etc/new', 'w')",
        "open('/dev/new', 'w')",
        "os.mkdir('/home')",
        "os.chmod('/usr', 0o777)",
    )


def test_our_environment_variables_and_open_files_do_not_get_in(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GYMRAIL_SECRET", "hunter2")
    with open(tmp_path / "open", "w+", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        code = (
            "import os\nfor name in os.listdir('/proc/self/fd'):\n"
            "    try: print(name, os.readlink('/proc/self/fd/' + name))\n    except OSError: pass\n"
            "print(dict(os.environ), flush=True)\nos.system('cat /proc/self/environ /proc/1/environ')"
        )
        done = run(sandbox, code)
    assert done.error is None
    assert "hunter2" not in done.stdout
    assert "GYMRAIL" not in done.stdout
    assert str(tmp_path) not in done.stdout
    opened = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if re.match(r"\d+ ", line)]
    assert [
        target for target in opened if not target.startswith(("/run/output/#", "/dev/null", "socket:", "/proc/"))
    ] == []


def test_other_processes_are_neither_seen_nor_signalled_nor_read(sandbox: Sandbox) -> None:
    me = os.getpid()
    done = run(sandbox, "import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))")
    assert all(int(number) < 10 for number in re.findall(r"\d+", done.stdout))
    refused(
        sandbox,
        f"os.kill({me}, 0)",
        "os.kill(1, 9)",
        f"open('/proc/{me}/mem', 'rb').read(1)",
        f"open('/proc/{me}/environ', 'rb').read(1)",
        "open('/proc/1/mem', 'rb').read(1)",
    )


def test_a_signal_to_everybody_reaches_no_one_outside(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        done = run(sandbox, "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(0, signal.SIGKILL)")
        assert done.stopped == "killed"
        assert bystander.poll() is None
        bystander.communicate(b"\n", timeout=120)
    assert bystander.returncode == 0


def test_tracing_mounting_and_new_namespaces_are_refused(sandbox: Sandbox) -> None:
    answers = refused(
        sandbox,
        f"{CHECKED}(C.ptrace(0, 0, 0, 0))",
        f"{CHECKED}(C.ptrace(16, os.getppid(), 0, 0))",
        f"{CHECKED}(C.process_vm_readv(1, None, 0, None, 0, 0))",
        f"{CHECKED}(C.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
        f"{CHECKED}(C.umount2(b'/tmp', 0))",
        f"{CHECKED}(C.umount2(b'/proc', 2))",
        f"{CHECKED}(C.unshare(0x10000000))",
        f"{CHECKED}(C.unshare(0x00020000))",
        f"{CHECKED}(C.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0))",
        f"{CHECKED}(C.chroot(b'/tmp'))",
        f"{CHECKED}(C.memfd_create(b'x', 0))",
        f"{CHECKED}(C.shmget(0, 1 << 20, 0o1600))",
        f"{CHECKED}(C.syscall(425, 8, None))",  # io_uring_setup
        f"{CHECKED}(C.personality(0x0040000))",
        "os.setsid()",
        "os.sethostname('x') if hasattr(os, 'sethostname') else socket.sethostname('x')",
    )
    assert all("refused" in answer for answer in answers)


def test_no_right_comes_back_by_setuid_or_capabilities(sandbox: Sandbox) -> None:
    refused(
        sandbox,
        "os.setuid(0) if os.getuid() else 1/0",
        "os.setgid(0) if os.getgid() else 1/0",
        "os.setgroups([0])",
        "os.nice(-5)",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_NPROC, (4096, 4096))",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1))",
        "os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))",
        "os.chown('/tmp', 0, 0)",
    )
    status = run(sandbox, "print(open('/proc/self/status').read())").stdout
    assert re.search(r"CapEff:\s*0+\n", status)
    assert re.search(r"CapPrm:\s*0+\n", status)
    assert re.search(r"NoNewPrivs:\s*1\n", status)
    assert re.search(r"Seccomp:\s*2\n", status)
    setuid = run(
        sandbox,
        "import os\nfor n in ('su','sudo','mount','passwd'):\n  p='/usr/bin/'+n\n  os.path.exists(p) and print(os.spawnv(os.P_WAIT, p, [n, '-c', 'id']))",
    )
    assert not re.search(r"uid=0|^0$", setuid.stdout, re.MULTILINE)


def test_symlinks_and_dots_do_not_lead_out_of_the_private_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    refused(
        sandbox,
        f"os.symlink({str(tmp_path)!r}, 'way'); open('way/secret').read()",
        f"open('../../../..{tmp_path}/secret').read()",
        "os.symlink('/proc/1/root', 'root'); open('root/etc/shadow').read()",
        "os.symlink('/proc/self/fd', 'fds'); [open('fds/' + n).read() for n in os.listdir('fds')] and 1/0",
        "os.link('/usr/bin/env', '/tmp/env')",
    )
    assert os.listdir(tmp_path) == ["secret"]


def test_episodes_do_not_see_each_others_files_or_processes(sandbox: Sandbox) -> None:
    async def play() -> tuple[Execution, Execution]:
        one, two = sandbox.interpreter(), sandbox.interpreter()
        try:
            await one.execute(
                "secret = 'xyzzy'\nopen('/tmp/secret', 'w').write(secret); open('/dev/shm/s', 'w').write(secret)"
            )
            code = (
                "import os\nfound = []\nfor folder, _, files in [*os.walk('/tmp'), *os.walk('/dev/shm'), *os.walk('/proc/1/root/tmp')]:\n"
                "    found += files\nfound += ['process'] * (len([n for n in os.listdir('/proc') if n.isdigit()]) > 2)\nfound"
            )
            return await one.execute("open('/tmp/secret').read()"), await two.execute(code)
        finally:
            await one.close()
            await two.close()

    mine, others = asyncio.run(play())
    assert mine.value == "'xyzzy'"
    assert others.value == "[]"


def test_two_sandboxes_run_as_different_users_that_are_not_us() -> None:
    if os.geteuid() != 0:
        pytest.fail("run as root, or in a container, where the suite's sandboxes take on users of their own")
    sandbox = choose("bubblewrap")
    users = {run(sandbox, "import os; print(os.getuid(), os.getgid(), os.getgroups())").stdout for _ in range(2)}
    assert len(users) == 2
    assert all(re.fullmatch(r"(\d{5,}) \1 \[\]\n", line) for line in users)


def test_a_huge_file_is_refused(sandbox: Sandbox) -> None:
    refused(
        sandbox,
        "open('big', 'wb').write(b'x' * (5 << 20))",
        "os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 1 << 40)",
        "os.posix_fallocate(os.open('full', os.O_CREAT | os.O_RDWR), 0, 1 << 30)",
    )
