"""The files server: a private directory that nothing leads out of, with a quota, removed at the close."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gymrail import ToolError
from gymrail.errors import InputError
from gymrail.registry import find_tool_server
from gymrail_mcp_servers.files.server import Files

START = {"a.txt": "one\ntwo\nthree\n", "notes/b.md": "Two birds\n", "notes/deep/c.txt": ""}


@pytest.fixture
def server() -> Iterator[Files]:
    yield from opened(files=START)


def opened(**settings: Any) -> Iterator[Files]:
    server = Files()
    asyncio.run(server.seed(**settings))
    root = server.root
    yield server
    asyncio.run(server.close())
    assert not root.exists()


def test_files_are_listed_read_written_edited_moved_and_deleted(server: Files) -> None:
    assert server.list_files().splitlines() == ["a.txt", "notes/", "notes/b.md", "notes/deep/", "notes/deep/c.txt"]
    assert server.list_files("notes/deep") == "notes/deep/c.txt"
    assert server.read_file("a.txt") == START["a.txt"]
    server.write_file("new/x.txt", "hello")
    server.edit_file("new/x.txt", "hell", "jell")
    server.move_file("new/x.txt", "y/z.txt")
    server.delete_file("notes")
    assert server.texts() == {"a.txt": START["a.txt"], "y/z.txt": "jello"}
    assert server.list_files("new") == "It is empty."


def test_some_lines_of_a_file_are_read_and_the_rest_is_announced(server: Files) -> None:
    assert server.read_file("a.txt", first_line=2, lines=1) == "two\n\n... 1 more lines"
    with pytest.raises(ToolError, match="at least 1"):
        server.read_file("a.txt", first_line=0)


def test_search_finds_lines_in_any_case_and_by_name(server: Files) -> None:
    assert server.search_files("TWO").splitlines() == ["a.txt:2: two", "notes/b.md:1: Two birds"]
    assert server.search_files("two", name="*.md") == "notes/b.md:1: Two birds"
    assert server.search_files("four") == "Nothing found."


def test_an_edit_needs_a_passage_that_stands_there_once(server: Files) -> None:
    for old in ("t", "four", ""):
        with pytest.raises(ToolError, match="must stand there once"):
            server.edit_file("a.txt", old, "x")
    assert server.read_file("a.txt") == START["a.txt"]


def test_nothing_is_overwritten_by_a_move_and_no_folder_goes_into_itself(server: Files) -> None:
    with pytest.raises(ToolError, match="exists already"):
        server.move_file("a.txt", "notes/b.md")
    with pytest.raises(ToolError, match="cannot be used"):
        server.move_file("notes", "notes/inside")
    assert server.texts() == START


@pytest.mark.parametrize(
    "path",
    [
        "../x", "notes/../../x", "/etc/passwd", "//etc/passwd", "~/x", "notes/..", "", ".", "a\0b", "n\n", "x" * 300,
        "a/" * 40 + "b", "a.txt/x", "\\\\host\\x",
    ],
)  # fmt: skip
def test_a_path_that_is_none_or_leads_out_is_refused_by_every_tool(server: Files, path: str) -> None:
    for use in (
        lambda: server.read_file(path),
        lambda: server.write_file(path, "x"),
        lambda: server.edit_file(path, "x", "y"),
        lambda: server.move_file(path, "z"),
        lambda: server.move_file("a.txt", path),
        lambda: server.delete_file(path),
    ):
        with pytest.raises(ToolError):
            use()
    assert server.texts() == START


def test_symbolic_links_are_named_and_never_followed(server: Files, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("hidden", encoding="utf-8")
    os.symlink(secret, server.root / "folder")
    os.symlink(secret / "key.txt", server.root / "file")
    os.symlink("..", server.root / "up")
    for use in (
        lambda: server.read_file("file"),
        lambda: server.read_file("folder/key.txt"),
        lambda: server.write_file("file", "x"),
        lambda: server.write_file("folder/new.txt", "x"),
        lambda: server.move_file("a.txt", "folder/a.txt"),
        lambda: server.move_file("folder/key.txt", "mine.txt"),
        lambda: server.delete_file("folder/key.txt"),
        lambda: server.list_files("folder"),
        lambda: server.list_files("up"),
    ):
        with pytest.raises(ToolError, match="Links are not followed"):
            use()
    assert {"folder@", "file@", "up@"} <= set(server.list_files().splitlines())
    assert "hidden" not in server.search_files("hid")
    assert server.texts() == START
    server.delete_file("folder")
    server.delete_file("file")
    assert [path.name for path in secret.iterdir()] == ["key.txt"]
    assert (secret / "key.txt").read_text(encoding="utf-8") == "hidden"


def test_pipes_are_no_files_and_nobody_waits_for_them(server: Files) -> None:
    os.mkfifo(server.root / "pipe")
    for use in (lambda: server.read_file("pipe"), lambda: server.write_file("pipe", "x")):
        with pytest.raises(ToolError):
            use()
    assert server.texts() == START


def test_binary_files_are_not_read_as_text(server: Files) -> None:
    (server.root / "picture").write_bytes(b"\x89PNG\0\xff")
    with pytest.raises(ToolError, match="no text file"):
        server.read_file("picture")
    assert server.search_files("PNG") == "Nothing found."


def test_the_quota_counts_bytes_and_files_and_a_smaller_file_may_replace_a_larger() -> None:
    for server in opened(files={"a": "x" * 90}, max_bytes=100, max_files=3):
        with pytest.raises(ToolError, match="No space"):
            server.write_file("b", "x" * 11)
        server.write_file("a", "x" * 100)
        server.write_file("a", "y")
        server.write_file("b", "")
        server.write_file("c", "")
        with pytest.raises(ToolError, match="Too many files"):
            server.write_file("d", "")
        assert server.texts() == {"a": "y", "b": "", "c": ""}


def test_a_template_folder_is_copied_without_its_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.txt").write_bytes(b"caf\xc3\xa9 \xff")
    os.symlink("/etc/passwd", tmp_path / "in" / "link")
    for server in opened(template=str(tmp_path), files={"own.txt": "mine"}):
        assert server.list_files().splitlines() == ["in/", "in/x.txt", "own.txt"]
        assert (server.root / "in" / "x.txt").read_bytes() == b"caf\xc3\xa9 \xff"
        server.delete_file("in")
    assert (tmp_path / "in" / "x.txt").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "nowhere"}, "No folder at 'nowhere'"),
        ({"files": {"../x": ""}}, "cannot be put into an episode's directory"),
        ({"files": {"a": "xx"}, "max_bytes": 1}, "more than"),
    ],
)
def test_a_start_that_does_not_fit_is_an_error_and_leaves_nothing(settings: dict[str, Any], message: str) -> None:
    server = Files()
    with pytest.raises(InputError, match=message):
        asyncio.run(server.seed(**settings))
    root = server.root
    asyncio.run(server.close())
    assert not root.exists()


def test_a_server_that_nobody_closes_leaves_nothing_when_it_is_gone() -> None:
    server = Files()
    asyncio.run(server.seed(files=START))
    root = server.root
    del server
    assert not root.exists()


def test_the_registry_finds_it() -> None:
    assert find_tool_server("files") is Files
