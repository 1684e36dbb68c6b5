"""Datasets and files from elsewhere, into a folder with a lock file that says what exactly they are.

    download_dataset("org/name", Path("data/name"), files=["*.jsonl"])
    download_file("https://example.org/tasks.jsonl", Path("data"))

`gymrail.lock.json` holds, for each source, the commit and every file's SHA-256, size and ETag. What it names and is
there is not fetched again, and a dataset stays at its commit; `overwrite` takes the newest. Files of the Hugging Face
cache are copied from there, and with HF_HUB_OFFLINE=1 nothing else is looked at.
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from gymrail.data.fetch import Expected, Fetched, digest, fetch, git_sha1, shown_url
from gymrail.data.jsonl import reason_of
from gymrail.errors import GymrailError, InputError, did_you_mean

LOCK = "gymrail.lock.json"
_IGNORED = (".gitattributes", ".gitignore")

OnBytes = Callable[[str, int, int | None], None]


@dataclass(slots=True)
class Downloaded:
    """What is in the folder now."""

    source: str
    commit: str | None = None
    fetched: list[str] = field(default_factory=list)
    from_cache: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "commit": self.commit,
            "fetched": self.fetched,
            "from_cache": self.from_cache,
            "unchanged": self.unchanged,
            "files": self.files,
        }


def download_dataset(
    repository: str,
    output: Path,
    *,
    files: Sequence[str] = (),
    revision: str = "main",
    token: str | None = None,
    endpoint: str | None = None,
    overwrite: bool = False,
    on_bytes: OnBytes | None = None,
    pause_seconds: float = 1.0,
) -> Downloaded:
    """Bring a dataset's files, or those that match a pattern, into a folder.

    Args:
        token: the hub's; without it, the one that `hf auth login` or HF_TOKEN gave.
        endpoint: the hub's address; without it, HF_ENDPOINT or the public one.
        overwrite: forget the lock: take the newest commit, and replace files that were changed here.

    Raises:
        InputError: the dataset, a file or a revision is not there, is gated, or a file here was changed.
        GymrailError: the hub cannot be reached, or what it sends is not what it says.
        ImportError: `huggingface_hub` is not installed.
    """
    hub = _Hub(repository, revision, token, endpoint)
    lock = _Lock(output)
    known = {} if overwrite else lock.entry(repository)
    if known and known.get("revision") != revision:
        raise InputError(
            f"'{output}' holds {repository} at revision {known.get('revision')!r}, not {revision!r}; "
            "name another folder, or replace it with --overwrite."
        )
    wanted = _matching(known.get("files", {}), files)
    if wanted and known.get("patterns") == list(files) and all(lock.holds(repository, name) for name in wanted):
        held = {name: known["files"][name] for name in wanted}
        return Downloaded(repository, known["commit"], unchanged=list(held), files=held)
    commit, listed = hub.listing(known.get("commit"))
    made = Downloaded(repository, commit)
    for name in _chosen(listed, files, repository):
        if not overwrite and lock.holds(repository, name):
            made.unchanged.append(name)
        else:
            _refuse_foreign(output / name, overwrite)
            report = None if on_bytes is None else (lambda have, total, name=name: on_bytes(name, have, total))
            entry, is_cached = hub.bring(name, listed[name], commit, output / name, report, pause_seconds)
            (made.from_cache if is_cached else made.fetched).append(name)
            lock.add(repository, name, entry, commit=commit, revision=revision)
        made.files[name] = lock.entry(repository)["files"][name]
    lock.finish(repository, patterns=list(files))
    return made


def download_file(
    url: str,
    output: Path,
    *,
    sha256: str | None = None,
    overwrite: bool = False,
    on_bytes: OnBytes | None = None,
    pause_seconds: float = 1.0,
) -> Downloaded:
    """Bring a file from an address into a folder, under the name that its address ends with.

    Raises:
        InputError: there is no such file, or one of that name is here already.
        GymrailError: the server cannot be reached, or the file has another checksum.
    """
    parts = urllib.parse.urlsplit(url)
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.hostname or not name:
        raise InputError(f"{url!r} is no address of a file; write one such as 'https://example.org/tasks.jsonl'.")
    source, lock = shown_url(url), _Lock(output)
    made = Downloaded(source)
    held = lock.entry(source).get("files", {}).get(name)
    if not overwrite and held is not None and lock.holds(source, name):
        if sha256 is not None and held["sha256"] != sha256.lower():
            raise InputError(
                f"'{output / name}' has the sha256 {held['sha256']}, not {sha256}; fetch it again with --overwrite."
            )
        made.unchanged.append(name)
    else:
        _refuse_foreign(output / name, overwrite)
        report = None if on_bytes is None else (lambda have, total: on_bytes(name, have, total))
        fetched = fetch(
            url, output / name, expected=Expected(sha256=sha256), on_bytes=report, pause_seconds=pause_seconds
        )
        lock.add(source, name, fetched)
        lock.finish(source)
        made.fetched.append(name)
    made.files[name] = lock.entry(source)["files"][name]
    return made


def network_errors() -> tuple[type[BaseException], ...]:
    """Return what the hub's library raises when the network is at fault; its HTTP client differs between releases."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError)


class _Hub:
    """One dataset of the hub."""

    def __init__(self, repository: str, revision: str, token: str | None, endpoint: str | None) -> None:
        try:
            import huggingface_hub
        except ImportError as error:
            raise ImportError(
                "Hugging Face datasets need the package `huggingface_hub`: pip install 'gymrail[data]'"
            ) from error
        self._library = huggingface_hub
        self._repository, self._revision = repository, revision
        self._token = token or huggingface_hub.get_token()
        self._api = huggingface_hub.HfApi(endpoint=endpoint, token=self._token)
        self._is_offline = huggingface_hub.constants.HF_HUB_OFFLINE

    def listing(self, commit: str | None) -> tuple[str, dict[str, Expected]]:
        """Return the commit, the newest if none is given, and its files."""
        return self._cached(commit) if self._is_offline else self._asked(commit)

    def bring(
        self,
        name: str,
        expected: Expected,
        commit: str,
        path: Path,
        on_bytes: Callable[[int, int | None], None] | None,
        pause_seconds: float,
    ) -> tuple[Fetched, bool]:
        """Put one file at `path`; say whether it came from the cache."""
        cached = self._library.try_to_load_from_cache(self._repository, name, revision=commit, repo_type="dataset")
        if isinstance(cached, str) and _is_as_expected(Path(cached), expected):
            return _copy(Path(cached), path), True
        url = self._library.hf_hub_url(
            self._repository, name, repo_type="dataset", revision=commit, endpoint=self._api.endpoint
        )
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return (
            fetch(url, path, headers=headers, expected=expected, on_bytes=on_bytes, pause_seconds=pause_seconds),
            False,
        )

    def _asked(self, commit: str | None) -> tuple[str, dict[str, Expected]]:
        from huggingface_hub import errors

        name, where = self._repository, self._api.endpoint
        try:
            info = self._api.dataset_info(name, revision=commit or self._revision, files_metadata=True, timeout=60)
        except errors.HFValidationError as error:
            raise InputError(f"{name!r} is no dataset id; write one such as 'org/name': {error}") from None
        except errors.GatedRepoError:
            raise InputError(
                f"The dataset {name!r} is gated: accept its terms on {where}/datasets/{name}, "
                "then set HF_TOKEN to a token of that account."
            ) from None
        except errors.RevisionNotFoundError:
            raise InputError(f"The dataset {name!r} has no revision {commit or self._revision!r}.") from None
        except errors.RepositoryNotFoundError:
            why = (
                "is not one, or this token may not see it" if self._token else "is not one, or is private: set HF_TOKEN"
            )
            raise InputError(f"{where} has no dataset {name!r} that can be had; it {why}.") from None
        except network_errors() as error:
            raise GymrailError(
                f"{where} cannot be asked for {name!r}: {error}. "
                "Without a network, HF_HUB_OFFLINE=1 takes what the cache has."
            ) from None
        assert info.sha is not None
        return info.sha, {entry.rfilename: _expected(entry) for entry in info.siblings or ()}

    def _cached(self, commit: str | None) -> tuple[str, dict[str, Expected]]:
        from huggingface_hub import errors

        try:
            snapshot = Path(
                self._library.snapshot_download(
                    self._repository, repo_type="dataset", revision=commit or self._revision, local_files_only=True
                )
            )
        except (errors.HFValidationError, OSError):
            raise InputError(
                f"HF_HUB_OFFLINE is set, and the cache has no dataset {self._repository!r} at revision "
                f"{commit or self._revision!r}; unset it to fetch the dataset."
            ) from None
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
        return snapshot.name, {path.relative_to(snapshot).as_posix(): Expected() for path in files}


class _Lock:
    """The lock file of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / LOCK
        self._sources: dict[str, Any] = {}
        if self._path.is_file():
            try:
                self._sources = orjson.loads(self._path.read_bytes())["sources"]
            except (ValueError, TypeError, KeyError):
                raise InputError(f"'{self._path}' is no lock file; delete it to begin anew.") from None
        self._checked: dict[tuple[str, str], bool] = {}

    def entry(self, source: str) -> dict[str, Any]:
        return self._sources.get(source, {})

    def holds(self, source: str, name: str) -> bool:
        """Whether a file is here as it was fetched.

        Raises:
            InputError: it is here and was changed.
        """
        held, path = self.entry(source).get("files", {}).get(name), self._folder / name
        if held is None or not path.is_file():
            return False
        if (source, name) not in self._checked:
            if digest(path) != (held["sha256"], held["size"]):
                raise InputError(f"'{path}' was changed since it was fetched; --overwrite fetches it again.")
            self._checked[source, name] = True
        return True

    def add(self, source: str, name: str, fetched: Fetched, **about: str) -> None:
        """Note a file, at once: what was fetched before an interruption is not fetched again."""
        entry = self._sources.setdefault(source, {})
        if about and entry.get("commit") not in (None, about["commit"]):
            entry["files"] = {}
        entry |= about
        entry.setdefault("files", {})[name] = fetched._asdict()
        self._write()

    def finish(self, source: str, **about: Any) -> None:
        self._sources.setdefault(source, {}).update(about)
        self._write()

    def _write(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            text = {"version": 1, "sources": self._sources}
            partial.write_bytes(orjson.dumps(text, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            os.replace(partial, self._path)
        except OSError as error:
            raise InputError(f"Cannot write '{self._path}': {reason_of(error)}.") from None


def _chosen(listed: dict[str, Expected], patterns: Sequence[str], repository: str) -> list[str]:
    names = [name for name in listed if name not in _IGNORED]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise GymrailError(f"The dataset {repository!r} lists the file {name!r}, which lies outside the folder.")
    for pattern in patterns:
        if not _matching(names, [pattern]):
            raise InputError(f"The dataset {repository!r} has no file {pattern!r}. {did_you_mean(pattern, names)}")
    return _matching(names, patterns)


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def _refuse_foreign(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"'{path}' exists already and was not fetched from there; --overwrite replaces it.")


def _expected(entry: Any) -> Expected:
    if entry.lfs is not None:
        return Expected(entry.lfs.size, entry.lfs.sha256)
    return Expected(entry.size, git_sha1=entry.blob_id)


def _is_as_expected(path: Path, expected: Expected) -> bool:
    if expected.size is not None and path.stat().st_size != expected.size:
        return False
    if expected.sha256 is not None:
        return digest(path)[0] == expected.sha256
    return expected.git_sha1 is None or git_sha1(path) == expected.git_sha1


def _copy(source: Path, path: Path) -> Fetched:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        fetched = Fetched(*digest(partial), None)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
    return fetched
