"""Prepared files and exports to the Hugging Face hub, as one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import orjson

from gymrail.data.bad_rows import BAD_ROWS
from gymrail.data.download import network_errors
from gymrail.data.splits import CONTAMINATED, LEFT_OUT
from gymrail.errors import GymrailError, InputError
from gymrail.spec import Split

CARD = "README.md"
_KEPT_HERE = frozenset({BAD_ROWS, CONTAMINATED, LEFT_OUT})
"""What was left out of the data; `load_dataset` would take these files for data."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the hub has now."""

    repository: str
    url: str
    commit: str
    files: list[str]
    kept_here: list[str]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def push(
    folder: Path,
    repository: str,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    private: bool = False,
    revision: str = "main",
    message: str | None = None,
) -> Pushed:
    """Upload a folder to a dataset, which is made if it is not there; with a card if the folder has none.

    Args:
        token: the hub's; without it, the one that `hf auth login` or HF_TOKEN gave.
        endpoint: the hub's address; without it, HF_ENDPOINT or the public one.

    Raises:
        InputError: the folder has no data, there is no token, or the token may not write there.
        GymrailError: the hub cannot be reached.
        ImportError: `huggingface_hub` is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError("Pushing needs the package `huggingface_hub`: pip install 'gymrail[data]'") from error
    files, kept = _files(folder)
    token = token or huggingface_hub.get_token()
    if not token:
        raise InputError(
            "Pushing needs a token of the hub that may write: export HF_TOKEN=..., or run `hf auth login`."
        )
    api = huggingface_hub.HfApi(endpoint=endpoint, token=token)
    added = [huggingface_hub.CommitOperationAdd(name, str(folder / name)) for name in files]
    if CARD not in files:
        added.append(huggingface_hub.CommitOperationAdd(CARD, _card(folder, files).encode()))
    try:
        made = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        done = api.create_commit(
            made.repo_id,
            added,
            commit_message=message or f"Add {len(files)} files with gymrail",
            repo_type="dataset",
            revision=revision,
        )
    except errors.HFValidationError as error:
        raise InputError(f"{repository!r} is no dataset id; write one such as 'org/name': {error}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(
                f"{api.endpoint} refuses the token for {repository!r} (status {status}); "
                "it must be one that may write to that dataset."
            ) from None
        raise GymrailError(f"{api.endpoint} does not take {repository!r}: {error}") from None
    except network_errors() as error:
        raise GymrailError(f"{api.endpoint} cannot be reached: {error}") from None
    return Pushed(repository, str(made.url), done.oid, [*files, *([] if CARD in files else [CARD])], kept)


def _files(folder: Path) -> tuple[list[str], list[str]]:
    if not folder.is_dir():
        raise InputError(f"There is no folder '{folder}'; `gymrail data prepare` and `gymrail export` write one.")
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    names = [path.as_posix() for path in shown if path.name not in _KEPT_HERE]
    if not any(name.endswith((".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow", ".csv")) for name in names):
        raise InputError(f"'{folder}' has no data to push: no .jsonl, .json, .parquet, .arrow or .csv file.")
    return names, [path.as_posix() for path in shown if path.name in _KEPT_HERE]


def _card(folder: Path, files: Sequence[str]) -> str:
    """Name the splits' files, so that `load_dataset` takes them and no metrics."""
    splits = {name: f"{name}.jsonl" for name in get_args(Split) if f"{name}.jsonl" in files}
    lines = ["---"]
    if splits:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for name, file in splits.items():
            lines += [f"  - split: {name}", f"    path: {file}"]
    lines += ["---", "", f"# {folder.resolve().name}", "", "Tasks in NeMo Gym's row format, written by Gymrail.", ""]
    report = folder / "prepare.json"
    if report.is_file():
        lines += ["| Environment | Split | Rows | Source | Licence |", "|---|---|---|---|---|"]
        for source in orjson.loads(report.read_bytes())["sources"]:
            place = Path(source["source"]).name
            lines.append(
                f"| {source['environment']} | {source['split']} | {source['rows_written']:,} | {place} "
                f"| {source['license'] or 'not stated'} |"
            )
    return "\n".join(lines) + "\n"
