"""A seccomp filter for model-written code: the system calls that no program under test needs, refused.

covers: kernel interfaces that namespaces do not shut off (vsock reaches the virtual machine's host, keyrings, io_uring,
bpf, performance counters), new user namespaces, mounts, tracing, and memory that no limit counts (memfd, System V).
does not cover: machines other than x86_64 and aarch64, where `program` returns None.
"""

from __future__ import annotations

import errno
import platform
import struct

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED: dict[str, tuple[int, int]] = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268),
    # A session of its own would be a scheduling group of its own: a bomb would take many shares of the processor.
    "setsid": (112, 157),
    "settimeofday": (164, 170), "shmget": (29, 194), "swapoff": (168, 225), "swapon": (167, 224),
    "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}  # fmt: skip
"""By name, the numbers on x86_64 and aarch64 (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h)."""
_X86_64_ONLY = {"ioperm": 173, "iopl": 172, "modify_ldt": 154}
_CLONE = (56, 220)
_SOCKET = (41, 198)
_CLONE3 = (435, 435)
_NEW_NAMESPACES = 0x7E020000
"""Every CLONE_NEW* flag of linux/sched.h."""
_SOCKET_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: what they reach is the sandbox's own network namespace."""

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _JUMP_IF_NOT_BELOW, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Where `struct seccomp_data` has them."""


def program() -> bytes | None:
    """Return the filter as the kernel's `struct sock_filter` array, for `bwrap --seccomp`."""
    machine = platform.machine()
    if machine not in _AUDIT:
        return None
    column = list(_AUDIT).index(machine)
    lines = [_op(_LOAD, _MACHINE), _op(_JUMP_IF_EQUAL, _AUDIT[machine], 1, 0), _op(_RETURN, _KILL)]
    lines.append(_op(_LOAD, _NUMBER))
    numbers = [row[column] for row in _REFUSED.values()]
    if machine == "x86_64":
        numbers += _X86_64_ONLY.values()
        # The x32 calls are the same ones by other numbers.
        lines += [_op(_JUMP_IF_NOT_BELOW, 0x40000000, 0, 1), _op(_RETURN, _REFUSE | errno.ENOSYS)]
    for number in sorted(numbers):
        lines += [_op(_JUMP_IF_EQUAL, number, 0, 1), _op(_RETURN, _REFUSE | errno.EPERM)]
    # Its flags stand in memory, where a filter cannot look; on "no such call" the C library takes clone instead.
    lines += [_op(_JUMP_IF_EQUAL, _CLONE3[column], 0, 1), _op(_RETURN, _REFUSE | errno.ENOSYS)]
    lines += [_op(_JUMP_IF_EQUAL, _CLONE[column], 0, 4), _op(_LOAD, _FIRST_ARGUMENT)]
    lines += [_op(_JUMP_IF_SET, _NEW_NAMESPACES, 0, 1), _op(_RETURN, _REFUSE | errno.EPERM), _op(_RETURN, _ALLOW)]
    lines += [_op(_JUMP_IF_EQUAL, _SOCKET[column], 0, 2 + len(_SOCKET_FAMILIES)), _op(_LOAD, _FIRST_ARGUMENT)]
    for left, family in zip(range(len(_SOCKET_FAMILIES), 0, -1), _SOCKET_FAMILIES, strict=True):
        lines.append(_op(_JUMP_IF_EQUAL, family, left, 0))
    lines += [_op(_RETURN, _REFUSE | errno.EAFNOSUPPORT), _op(_RETURN, _ALLOW)]
    return b"".join(lines)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
