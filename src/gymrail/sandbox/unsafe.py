"""The provider `subprocess`: limits of the kernel on a plain child process, and nothing else.

covers: memory, CPU time, file size and output per process; our environment variables and open files stay out.
does not cover: everything else. The code can read every file that we can read, use the network, signal our processes,
and leave processes behind. For code that you wrote yourself.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field

from gymrail.sandbox.limits import Limits
from gymrail.sandbox.provider import ENVIRONMENT, Launch, inside_command, own_python


@dataclass
class Subprocess:
    """Starts plain processes. Unsafe: it is never chosen unless it is asked for by name."""

    packages: tuple[str, ...] = ()
    name: str = field(default="subprocess", init=False)
    has_own_processes: bool = field(default=False, init=False)

    def problem(self) -> str | None:
        return None if os.name == "posix" else f"it needs a POSIX system, and this is {os.name}"

    def launch(self, limits: Limits) -> Launch:
        folder = tempfile.mkdtemp(prefix="gymrail-")
        packages = ""
        if self.packages:
            from gymrail.sandbox.packages import entries_of

            os.mkdir(packages := os.path.join(folder, "packages"))
            for entry in entries_of(self.packages):
                os.symlink(entry, os.path.join(packages, entry.name))
        # The kernel would count all our own processes too, so their number is not limited.
        inside = inside_command(
            own_python(), limits, user=0, processes=0, owns_pids=False, folder=folder, scratch=folder,
            packages=packages,
        )  # fmt: skip
        environment = {**ENVIRONMENT, "HOME": folder, "TMPDIR": folder}
        return Launch(inside, environment, folder=folder)
