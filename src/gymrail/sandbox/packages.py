"""Which files an installed distribution needs, so that a sandbox shows these and no others."""

from __future__ import annotations

import functools
import re
from importlib import metadata
from pathlib import Path

from gymrail.errors import InputError

FOLDER = "/opt/packages"
"""Where the code inside finds them."""


@functools.cache
def entries_of(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the top-level files and folders of distributions and of all that they require, extras left out.

    Raises:
        InputError: one that is named is not installed.
    """
    found: dict[str, Path] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                raise InputError(
                    f"The sandbox is to offer the package {name!r}, which is not installed: pip install {name}"
                ) from None
            continue  # required on other systems or with an extra
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth"):
                found[top] = Path(str(distribution.locate_file(top))).resolve()
        waiting += [
            re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in distribution.requires or () if "extra ==" not in line
        ]
    return tuple(path for _, path in sorted(found.items()) if path.exists())
