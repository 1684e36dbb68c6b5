"""The provider `bubblewrap`: Linux namespaces, a read-only system, no network, a seccomp filter, by the tool `bwrap`.

As root, the code inside becomes a user of its own that owns nothing, one number per sandbox; as any other user, it
lives in a user namespace. Either way the kernel counts its processes apart from everybody else's.
"""

from __future__ import annotations

import functools
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gymrail.sandbox import seccomp
from gymrail.sandbox.limits import Limits
from gymrail.sandbox.packages import FOLDER, entries_of
from gymrail.sandbox.provider import ENVIRONMENT, SCRATCH, Launch, inside_command, own_python

INSTALL = "Install bubblewrap: apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora)."
_FIRST_USER = 0x40000000
_USERS_PER_PROCESS = 1024
_SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
_SITE_PACKAGES = re.compile(r"(site|dist)-packages")
_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_PROBE_SECONDS = 20.0


@dataclass
class Bubblewrap:
    """Starts sandboxes by `bwrap`."""

    packages: tuple[str, ...] = ()
    """Installed distributions that the code inside may import, with what they need."""
    name: str = field(default="bubblewrap", init=False)
    has_own_processes: bool = field(default=True, init=False)
    _counter: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False)

    def problem(self) -> str | None:
        return _problem()

    def launch(self, limits: Limits) -> Launch:
        user = _user(next(self._counter))
        inherited: tuple[int, ...] = ()
        filter_program = seccomp.program()
        arguments = ["bwrap", *_shut_off(user), *_mounts(limits, self.packages)]
        if filter_program is not None:
            inherited = (_readable(filter_program),)
            arguments += ["--seccomp", str(inherited[0])]
        for name, value in ENVIRONMENT.items():
            arguments += ["--setenv", name, value]
        # In a user namespace bubblewrap's own first process counts too.
        processes = limits.processes + (1 if user else 2)
        inside = inside_command(
            own_python(), limits, user=user, processes=processes, owns_pids=True, folder="/tmp", scratch=SCRATCH,
            packages=FOLDER if self.packages else "",
        )  # fmt: skip
        arguments[0] = shutil.which("bwrap") or "bwrap"
        return Launch((*arguments, "--", *inside), inherited=inherited)


def _shut_off(user: int) -> list[str]:
    """Return the options for namespaces and rights; to become a `user` other than 0 inside takes two rights."""
    rights = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if user else ["--unshare-user"]
    return [
        *_NAMESPACES, "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox",
        *(["--cap-drop", "ALL"] if os.geteuid() == 0 else []), *rights,
    ]  # fmt: skip


def _mounts(limits: Limits, packages: tuple[str, ...]) -> list[str]:
    """Return the options for what the code sees: the system and Python, read-only, and a private folder."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    for name in ("/etc/ld.so.cache", "/etc/alternatives", "/nix/store"):
        options += ["--ro-bind-try", name, name]
    options += _python_mounts()
    if packages:
        for entry in entries_of(packages):
            options += _bind(str(entry), f"{FOLDER}/{entry.name}")
    options += ["--proc", "/proc", "--dev", "/dev"]
    for folder, files in (("/tmp", 4), ("/dev/shm", 1), (SCRATCH, 4)):
        options += ["--perms", "1777", "--size", str(files * limits.file_bytes), "--tmpfs", folder]
    options += ["--chdir", "/tmp"]
    return [*options, "--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"]


def _python_mounts() -> list[str]:
    """Bind this interpreter and its standard library, without the packages that are installed beside it."""
    executable = own_python()
    library = os.path.realpath(os.path.join(sys.base_prefix, "lib"))
    options: list[str] = []
    for path in (library, executable):
        if not path.startswith("/usr/"):
            options += _bind(path, path)
    for folder in _package_folders():
        options += ["--tmpfs", folder]
    return options


@functools.cache
def _package_folders() -> tuple[str, ...]:
    """Folders of installed packages within what is bound."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    roots = {os.path.realpath(sys.base_prefix), "/usr", "/usr/local"}
    found = {
        str(path)
        for root in roots
        for library in (f"lib/{version}", "lib/python3")
        for path in (Path(root, library).iterdir() if Path(root, library).is_dir() else ())
        if _SITE_PACKAGES.fullmatch(path.name)
    }
    return tuple(sorted(found))


def _bind(source: str, target: str) -> list[str]:
    """Bind read-only. The folders above are made by name: those that bubblewrap makes may be closed to others."""
    above = [str(parent) for parent in reversed(Path(target).parents) if str(parent) != "/"]
    return [*(option for path in above for option in ("--perms", "0755", "--dir", path)), "--ro-bind", source, target]


def _readable(data: bytes) -> int:
    """Return a pipe's end that holds `data`, which fits its buffer."""
    end, start = os.pipe()
    os.write(start, data)
    os.close(start)
    return end


@functools.cache
def _mapped_users() -> range:
    """The user numbers that root may take on here: in a container they may be few."""
    if os.geteuid() != 0:
        return range(0)
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="utf-8").splitlines()
    except OSError:
        return range(0)
    spans = [range(int(first), int(first) + int(count)) for first, _, count in (line.split() for line in lines)]
    widest = max(spans, key=len, default=range(0))
    return widest if len(widest) > 2 * _USERS_PER_PROCESS else range(0)


def _user(count: int) -> int:
    """Return a user number that no other living sandbox has, as far as the numbers go; 0 where there are none."""
    mapped = _mapped_users()
    if not mapped:
        return 0
    number = (os.getpid() & 0xFFFF) * _USERS_PER_PROCESS + count % _USERS_PER_PROCESS
    if len(mapped) > _FIRST_USER + (0x10000 * _USERS_PER_PROCESS):
        return _FIRST_USER + number
    # The upper half, where no account of the container's own is.
    half = len(mapped) // 2
    return mapped[half + number % half]


@functools.cache
def _problem() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return f"the program bwrap is not installed. {INSTALL}"
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if not _mapped_users() and release < (5, 14):
        return (
            f"Linux {platform.release()} cannot limit the processes of a sandbox that is not started by root; "
            "use 5.14 or newer, or root"
        )
    probe = Bubblewrap().launch(Limits())
    command = [shutil.which("bwrap") or "bwrap", *_shut_off(_user(0)), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    for descriptor in probe.inherited:
        os.close(descriptor)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, env={})
    except subprocess.TimeoutExpired:
        return f"bwrap gave no answer within {_PROBE_SECONDS:g} seconds"
    if done.returncode == 0:
        return None
    return (
        f"bwrap may not make namespaces here ({done.stderr.strip() or f'exit code {done.returncode}'}); allow user "
        "namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), or "
        "in Docker: --security-opt seccomp=unconfined --cap-add SYS_ADMIN"
    )
