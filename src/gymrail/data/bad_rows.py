"""What becomes of bad rows: counted, shown up to a bound, and written to a file where they are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from gymrail.data.rows import Problem, RawRow, dump_row
from gymrail.errors import InputError

BAD_ROWS = "bad_rows.jsonl"
MAX_ERRORS = 20


class BadRows:
    """The bad rows of a pass over files. With `skipped_to`, each is written there with what is wrong with it."""

    def __init__(self, *, show: int = MAX_ERRORS, skipped_to: Path | None = None) -> None:
        self.rows = 0
        self.shown: list[Problem] = []
        self.by_file: Counter[str] = Counter()
        self._show = show
        self._path = skipped_to
        self._file: IO[bytes] | None = None
        if skipped_to is not None:
            skipped_to.unlink(missing_ok=True)  # of an earlier run

    def add(self, problems: Sequence[Problem], row: RawRow | None = None) -> None:
        """Count one row, with all that is wrong with it."""
        self.rows += 1
        self.by_file[problems[0].file] += 1
        self.shown += problems[: max(0, self._show - len(self.shown))]
        if self._path is not None:
            if self._file is None:
                self._file = self._path.open("wb")
            held = {"row": row.values} if row is not None else {}
            written = {**problems[0].to_json(), "problems": [problem.to_json() for problem in problems], **held}
            self._file.write(dump_row(written) + b"\n")

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()

    def refuse(self, total: int) -> None:
        """Fail if there is any.

        Raises:
            InputError: how many rows are bad, and what is wrong with the first.
        """
        if self.rows:
            lines = "\n".join(f"  {problem}" for problem in self.shown)
            more = " The first:" if self.rows > len({(problem.file, problem.line) for problem in self.shown}) else ""
            raise InputError(
                f"{self.rows} of {total} rows are bad, and nothing was written.{more}\n{lines}\n"
                "Mend them, or leave them out with --skip-bad."
            )
