"""A sandbox for code that a model wrote.

    sandbox = choose()                                    # bubblewrap, else docker; never an unsafe one
    done = await sandbox.run("print(input()[::-1])", stdin="abc")         # done.stdout == "cba\\n"
    python = sandbox.interpreter()
    await python.execute("x = 6")
    (await python.execute("x * 7")).value                 # "42"
    await python.close()

covers, under `bubblewrap` (tests/core/sandbox tries each):
- the network, this machine's own loopback, and Unix sockets by path or abstract name: none is reachable
- files: /usr, Python and its standard library, read-only; a private folder in memory; nothing else, so no home, no
  project, no password file, no other episode
- processes: it sees its own alone; it cannot signal, trace or read another one; all end with the sandbox, and what a
  call leaves running ends with the call
- our environment variables and open files: none is passed on
- rights: no capability, no setuid program counts, no mounts, no new namespaces; a seccomp filter refuses kernel
  interfaces that a program under test does not need
- amounts: wall time, CPU time, memory, processes and threads, output, file size, space in its folder
- neighbours: a sandbox is one scheduling group where the kernel has autogroups, so a bomb's many processes share one
  share of the processor

does not cover:
- a flaw in the Linux kernel or the processor: the code talks to the same kernel as we do. For code that somebody wrote
  to attack you, use a virtual machine
- memory beyond one process's between two looks (a fifth of a second): each process is bound by the kernel, their sum is
  looked at; `processes` times `memory_bytes` bounds it by force
- fairness of the processor where our processes run in a control group with the `cpu` controller (most containers):
  there `processes` and `cpu_seconds` bound a bomb
- what the code learns of this machine: its clock, processor, kernel version, /usr
- truth: the code can forge its own output, value and error. A verifier compares them with what never entered
- the seccomp filter on machines other than x86_64 and aarch64

`docker` covers the same by a container, as far as the engine does. `subprocess` covers next to nothing: see unsafe.py.
"""

from gymrail.sandbox.limits import Execution, Limits, Stop
from gymrail.sandbox.sandbox import Interpreter, Programs, Sandbox, choose

__all__ = ["Execution", "Interpreter", "Limits", "Programs", "Sandbox", "Stop", "choose"]
