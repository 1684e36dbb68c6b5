"""A private directory, entered one component at a time so that nothing in it leads out of it.

Covers: `..`, absolute paths, symbolic links in any component and at the end, special files (pipes, devices), names that
the system does not take, more files or bytes than the quota. Does not cover: other processes that write there too may
go over the quota; hard links that somebody else made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gymrail import ToolError

_MAX_DEPTH = 16
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: opening a pipe must not wait for its other end."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Directory:
    """A root, and what may stand below it. All paths are relative, with `/` between components."""

    root: Path
    max_bytes: int = 10 << 20
    max_files: int = 1000

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            ToolError: there is no such regular file, or the path leads out.
        """
        with self._parent(path) as (folder, name), _explained(path):
            file = os.open(name, _READ_FLAGS, dir_fd=folder)
            with open(file, "rb") as opened:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise ToolError(f"{path!r} is not a file.")
                return opened.read(self.max_bytes + 1)

    def write(self, path: str, content: bytes) -> None:
        """Make a file or replace its content; folders on the way are made.

        Raises:
            ToolError: the quota is used up, or the path leads out.
        """
        used, files = self._usage()
        before = self._size(path)
        if used - (before or 0) + len(content) > self.max_bytes:
            raise ToolError(f"No space: all files together may have {self.max_bytes} bytes, and {used} are used.")
        if before is None and files >= self.max_files:
            raise ToolError(f"Too many files: there may be {self.max_files} files and folders.")
        self.put(path, content)

    def put(self, path: str, content: bytes) -> None:
        """Write without a look at the quota: what an episode starts with.

        Raises:
            ToolError: the path leads out.
        """
        with self._parent(path, makes=True) as (folder, name), _explained(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(name, flags, 0o600, dir_fd=folder)
            with open(file, "wb") as opened:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise ToolError(f"{path!r} is not a file.")
                os.ftruncate(file, 0)
                opened.write(content)

    def move(self, source: str, destination: str) -> None:
        """Move or rename a file or a folder; what stands at the destination is not replaced.

        Raises:
            ToolError: there is nothing to move, something stands there, or a path leads out.
        """
        with self._parent(source) as (from_folder, from_name):
            with _explained(source):
                os.lstat(from_name, dir_fd=from_folder)
            with self._parent(destination, makes=True) as (to_folder, to_name):
                with contextlib.suppress(FileNotFoundError), _explained(destination, missing_is_fine=True):
                    os.lstat(to_name, dir_fd=to_folder)
                    raise ToolError(f"{destination!r} exists already; delete it first, or choose another name.")
                with _explained(source):
                    os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def delete(self, path: str) -> None:
        """Delete a file, a link, or a folder with all that is in it.

        Raises:
            ToolError: there is none, or the path leads out.
        """
        with self._parent(path) as (folder, name), _explained(path):
            remove = shutil.rmtree if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode) else os.unlink
            remove(name, dir_fd=folder)

    def names(self, path: str = ".") -> list[str]:
        """Return the paths of everything below a folder, in order; a folder's ends with `/`. Links are not followed.

        Raises:
            ToolError: there is no such folder, or the path leads out.
        """
        parts = parts_of(path)
        with self._folder(parts, path) as folder:
            return sorted(name for name, _ in _walk(folder, "/".join(parts)))

    def tree(self) -> dict[str, bytes]:
        """Return every regular file's content by its path, for verifiers."""
        return {name: self.read(name) for name in self.names() if not name.endswith(("/", "@"))}

    def _usage(self) -> tuple[int, int]:
        with self._folder([], ".") as folder:
            sizes = [size for _, size in _walk(folder, "")]
        return sum(sizes), len(sizes)

    def _size(self, path: str) -> int | None:
        """The size of a regular file; None where there is none yet."""
        try:
            with self._parent(path) as (folder, name):
                found = os.lstat(name, dir_fd=folder)
        except (ToolError, OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    @contextlib.contextmanager
    def _parent(self, path: str, makes: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder that a path stands in, and its last component."""
        parts = parts_of(path)
        if not parts:
            raise ToolError(f"{path!r} is the whole directory; name something in it.")
        with self._folder(parts[:-1], path, makes) as folder:
            yield folder, parts[-1]

    @contextlib.contextmanager
    def _folder(self, parts: list[str], path: str, makes: bool = False) -> Iterator[int]:
        folder = os.open(self.root, _FOLDER_FLAGS)
        try:
            for part in parts:
                with _explained(path):
                    if makes:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(part, 0o700, dir_fd=folder)
                    inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def parts_of(path: str) -> list[str]:
    """Split a relative path.

    Raises:
        ToolError: it is absolute, goes up, or is no path.
    """
    if path.startswith(("/", "\\", "~")):
        raise ToolError(f"{path[:200]!r} is not relative; paths start in the directory itself, as in 'notes/a.txt'.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ToolError(f"{path[:200]!r} goes up; paths stay in the directory.")
    if len(parts) > _MAX_DEPTH:
        raise ToolError(f"A path has at most {_MAX_DEPTH} components; this one has {len(parts)}.")
    if any(not part.isprintable() or part.endswith("@") for part in parts):
        raise ToolError(f"{path[:200]!r} has a name with signs that cannot be shown, or with @ at its end.")
    return parts


def _walk(folder: int, above: str) -> Iterator[tuple[str, int]]:
    """Everything below an open folder: its path as `names` writes it, and the size of a file."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, about in found:
        path = f"{above}/{name}" if above else name
        if not stat.S_ISDIR(about.st_mode):
            # A link or a special file is named, and never opened.
            yield (path, about.st_size) if stat.S_ISREG(about.st_mode) else (f"{path}@", 0)
            continue
        yield f"{path}/", 0
        inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
        try:
            yield from _walk(inner, path)
        finally:
            os.close(inner)


@contextlib.contextmanager
def _explained(path: str, missing_is_fine: bool = False) -> Iterator[None]:
    """Turn what the system refuses into text for the model."""
    try:
        yield
    except FileNotFoundError:
        if missing_is_fine:
            raise
        raise ToolError(f"There is no {path!r}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        # A link as a component: ELOOP with O_NOFOLLOW, or ENOTDIR with O_DIRECTORY.
        raise ToolError(f"{path[:200]!r} cannot be used: {reason}. Links are not followed.") from None
