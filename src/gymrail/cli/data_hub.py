"""`gymrail data download` and `gymrail data push`: data from elsewhere, and to the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gymrail.cli.options import AsJson

Token = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="Environment variable that holds the hub's token.")
]


def download(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Dataset id such as org/name, or a file's URL.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder; data/NAME, or data, by default.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="PATTERN", help="Files of the dataset, such as *.jsonl; may be repeated."),
    ] = None,
    revision: Annotated[str, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit.")] = "main",
    sha256: Annotated[
        str | None, typer.Option("--checksum", metavar="SHA256", help="Checksum that the URL's file must have.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Take the newest version, and replace what was changed here.")
    ] = False,
    token_env: Token = "HF_TOKEN",
    as_json: AsJson = False,
) -> None:
    """Fetch a dataset or a file; go on where an attempt broke off, and note every checksum in gymrail.lock.json.

    With HF_HUB_OFFLINE=1 a dataset comes from the Hugging Face cache alone.
    """
    import os

    from gymrail.cli.output import print_json
    from gymrail.data.download import download_dataset, download_file
    from gymrail.errors import InputError

    on_bytes = _Bytes()
    if "://" in source:
        if file or revision != "main":
            raise InputError("--file and --revision are for datasets of the hub; a URL names one file.")
        made = download_file(source, output or Path("data"), sha256=sha256, overwrite=overwrite, on_bytes=on_bytes)
    else:
        if sha256:
            raise InputError("--checksum is for a URL; the hub itself says what its files' checksums are.")
        with packages():
            made = download_dataset(
                source,
                output or Path("data") / source.rpartition("/")[2],
                files=file or (),
                revision=revision,
                token=os.environ.get(token_env) or None,
                endpoint=os.environ.get("HF_ENDPOINT") or None,
                overwrite=overwrite,
                on_bytes=on_bytes,
            )
    if as_json:
        print_json(made.to_json())
        return
    size = sum(entry["size"] for entry in made.files.values())
    at = f" at {made.commit[:12]}" if made.commit else ""
    typer.echo(
        f"{made.source}{at}: {len(made.files)} files, {size:,} bytes; {len(made.fetched)} fetched, "
        f"{len(made.from_cache)} from the cache, {len(made.unchanged)} here already"
    )


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that was prepared or exported.")],
    repository: Annotated[str, typer.Option("--to", metavar="ORG/NAME", help="Dataset, made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new dataset private.")] = False,
    revision: Annotated[str, typer.Option("--revision", metavar="NAME", help="Branch to commit to.")] = "main",
    message: Annotated[str | None, typer.Option("--message", metavar="TEXT", help="Of the commit.")] = None,
    token_env: Token = "HF_TOKEN",
    as_json: AsJson = False,
) -> None:
    """Upload a folder to a dataset of the Hugging Face hub, as one commit, with a dataset card if it has none."""
    import os

    from gymrail.cli.output import print_json
    from gymrail.data.push import push as run

    token = os.environ.get(token_env) or None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    with packages():
        made = run(
            folder, repository, token=token, endpoint=endpoint, private=private, revision=revision, message=message
        )
    if as_json:
        print_json(made.to_json())
        return
    typer.echo(f"Pushed {len(made.files)} files to {made.url} (commit {made.commit[:12]})")
    if made.kept_here:
        typer.echo(f"Not pushed, since it was left out of the data: {', '.join(made.kept_here)}")


@contextmanager
def packages() -> Iterator[None]:
    """Say which extra to install as one message."""
    from gymrail.errors import GymrailError

    try:
        yield
    except ImportError as error:
        if "pip install" not in str(error):  # an environment's own trouble
            raise
        raise GymrailError(str(error)) from None


class _Bytes:
    """Progress on a terminal's stderr, one line that is written over."""

    def __init__(self) -> None:
        import sys

        self._out = sys.stderr if sys.stderr.isatty() else None
        self._shown = -1

    def __call__(self, name: str, have: int, total: int | None) -> None:
        if self._out is None or have >> 20 == self._shown:
            return
        self._shown = have >> 20
        of = f" of {total:,}" if total else ""
        self._out.write(f"\r\x1b[K{name}: {have:,}{of} bytes" + ("\n" if have == total else ""))
        self._out.flush()
