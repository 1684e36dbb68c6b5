"""A private directory per episode, started from a template folder and removed when the episode closes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from gymrail import ToolError, ToolServer, tool
from gymrail.errors import InputError
from gymrail_mcp_servers.files.directory import Directory

_SHOWN_CHARACTERS = 20_000
_SHOWN_LINES = 500
_SHOWN_NAMES = 500
_MATCHES = 100


class Files(ToolServer):
    """Read and change files in a private directory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._remove: weakref.finalize | None = None

    async def seed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        files: Mapping[str, str] | None = None,
        template: str | None = None,
        max_bytes: int = 10 << 20,
        max_files: int = 1000,
    ) -> None:
        """Make the episode's directory.

        Args:
            files: Texts to start with, by their relative path.
            template: Path of a folder whose content is copied. Links in it are not.
            max_bytes: What all files together may have.
            max_files: How many files and folders there may be.

        Raises:
            InputError: the template is no folder, or what is given does not fit.
        """
        await asyncio.to_thread(self._make, dict(files or {}), template, max_bytes, max_files)

    async def close(self) -> None:
        if self._remove is not None:
            await asyncio.to_thread(self._remove)

    @property
    def root(self) -> Path:
        """Where the directory is, for whoever shares it with another tool server."""
        return self._directory.root

    @tool(read_only=True, blocking=True)
    def list_files(self, path: str = ".") -> str:
        """List everything below a folder, one path a line; folders end with /.

        Args:
            path: A folder, relative to the directory; all of it by default.
        """
        with self._lock:
            names = self._directory.names(path)
        more = f"\n... and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return "\n".join(names[:_SHOWN_NAMES]) + more or "It is empty."

    @tool(read_only=True, blocking=True)
    def read_file(self, path: str, first_line: int = 1, lines: int = _SHOWN_LINES) -> str:
        """Read a text file, or some lines of it.

        Args:
            path: The file, relative to the directory.
            first_line: Where to start; the first line is 1.
            lines: How many lines at most.
        """
        text = self._text(path)
        if first_line < 1 or lines < 1:
            raise ToolError("first_line and lines are at least 1.")
        every = text.splitlines(keepends=True)
        found = "".join(every[first_line - 1 : first_line - 1 + lines])
        if len(found) > _SHOWN_CHARACTERS:
            return f"{found[:_SHOWN_CHARACTERS]}\n... cut after {_SHOWN_CHARACTERS} characters; read fewer lines."
        last = first_line - 1 + lines
        return found + (f"\n... {len(every) - last} more lines" if last < len(every) else "")

    @tool(destructive=True, blocking=True)
    def write_file(self, path: str, content: str) -> str:
        """Write a text file: make it, with the folders on its way, or replace what it holds.

        Args:
            path: The file, relative to the directory.
            content: All of its text.
        """
        with self._lock:
            self._directory.write(path, content.encode("utf-8", "replace"))
        return f"Wrote {path}."

    @tool(destructive=True, blocking=True)
    def edit_file(self, path: str, old_text: str, new_text: str) -> str:
        """Replace a passage of a text file. The passage must stand there exactly once.

        Args:
            path: The file, relative to the directory.
            old_text: The passage, exactly as it stands in the file.
            new_text: What takes its place.
        """
        text = self._text(path)
        count = text.count(old_text) if old_text else 0
        if count != 1:
            raise ToolError(f"old_text stands {count} times in {path!r}; it must stand there once.")
        self.write_file(path, text.replace(old_text, new_text))
        return f"Edited {path}."

    @tool(destructive=True, blocking=True)
    def move_file(self, source: str, destination: str) -> str:
        """Move or rename a file or a folder. Nothing is overwritten.

        Args:
            source: What to move, relative to the directory.
            destination: Its new path; folders on the way are made.
        """
        with self._lock:
            self._directory.move(source, destination)
        return f"Moved {source} to {destination}."

    @tool(destructive=True, blocking=True)
    def delete_file(self, path: str) -> str:
        """Delete a file, or a folder with everything in it.

        Args:
            path: What to delete, relative to the directory.
        """
        with self._lock:
            self._directory.delete(path)
        return f"Deleted {path}."

    @tool(read_only=True, blocking=True)
    def search_files(self, text: str, name: str = "*") -> str:
        """Find the lines of all files that hold a text, upper and lower case alike.

        Args:
            text: What to look for; plain text, no pattern.
            name: Only in files whose path matches this, such as *.txt.
        """
        if not text:
            raise ToolError("The text to look for is empty.")
        found = []
        for path, content in self.texts().items():
            if fnmatchcase(path, name) and "\0" not in content:
                found += [
                    f"{path}:{row}: {line[:300]}"
                    for row, line in enumerate(content.splitlines(), 1)
                    if text.casefold() in line.casefold()
                ]
        more = f"\n... and {len(found) - _MATCHES} more" if len(found) > _MATCHES else ""
        return "\n".join(found[:_MATCHES]) + more or "Nothing found."

    def texts(self) -> dict[str, str]:
        """Return every file's text by its path, for verifiers; not a tool."""
        with self._lock:
            return {path: content.decode("utf-8", "replace") for path, content in self._directory.tree().items()}

    def _text(self, path: str) -> str:
        with self._lock:
            content = self._directory.read(path)
        if b"\0" in content:
            raise ToolError(f"{path!r} is no text file.")
        return content.decode("utf-8", "replace")

    def _make(self, files: dict[str, str], template: str | None, max_bytes: int, max_files: int) -> None:
        # A Path is seen as such where an episode's state is shown, and not by its random name.
        root = Path(tempfile.mkdtemp(prefix="gymrail-files-"))
        self._remove = weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        self._directory = Directory(root, max_bytes, max_files)
        files = {**({} if template is None else _texts_below(Path(template))), **files}
        contents = {path: text.encode("utf-8", "surrogateescape") for path, text in files.items()}
        if len(contents) > max_files or sum(map(len, contents.values())) > max_bytes:
            raise InputError(f"An episode's files are more than {max_files} or have more than {max_bytes} bytes.")
        for path, content in contents.items():
            try:
                self._directory.put(path, content)
            except ToolError as error:
                raise InputError(f"The file {path!r} cannot be put into an episode's directory: {error}") from None


def _texts_below(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise InputError(f"No folder at {str(folder)!r}; `template` is a folder whose content episodes start with.")
    names = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes().decode("utf-8", "surrogateescape") for path in names}
