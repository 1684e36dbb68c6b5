"""Tables that episodes share: what one changes is its own, and is told as rows before and after."""

from __future__ import annotations

import pytest

from gymrail.tables import Sheet, Table
from gymrail.verifiers.state import Changes, Rules, changes, row_changes

ROWS = [{"id": "1", "name": "Ada"}, {"id": "2", "name": "Bo"}, {"id": "2", "name": "Cleo"}]
BASE = Table("id", ROWS, searched=("name",))


def test_a_sheet_shows_the_loaded_rows_until_it_changes_them_and_no_other_sheet_sees_that() -> None:
    mine, other = Sheet(BASE), Sheet(BASE)
    assert mine.entries is BASE.entries
    mine.put("1", "name", "Ava")
    mine.append({"id": "3", "name": "Dan"})
    assert mine.delete("2")
    assert list(mine.rows) == [{"id": "1", "name": "Ava"}, {"id": "3", "name": "Dan"}]
    assert [row["name"] for row in other.rows] == ["Ada", "Bo", "Cleo"]


def test_searched_columns_follow_an_update() -> None:
    sheet = Sheet(BASE)
    sheet.put("1", "name", "EVA")
    assert [entry.text for entry in sheet.entries] == ["eva", "bo", "cleo"]


def test_rows_are_found_by_the_id_that_they_have_now() -> None:
    sheet = Sheet(BASE)
    sheet.put("1", "id", "9")
    assert (sheet.get("1"), sheet.get("9")) == (None, {"id": "9", "name": "Ada"})
    assert sheet.get("2") == {"id": "2", "name": "Bo"}, "the first of several"
    assert not sheet.delete("1")
    assert sheet.next_id() == 10


def test_a_table_without_numbers_as_ids_has_no_next_one() -> None:
    for rows in ([], [{"id": "x"}]):
        with pytest.raises(ValueError, match=r"."):
            Sheet(Table("id", rows)).next_id()


def test_what_was_touched_is_what_the_states_differ_by() -> None:
    rows = ROWS[:2]
    sheet = Sheet(Table("id", rows))
    sheet.put("1", "name", "Ava")
    sheet.delete("2")
    sheet.append({"id": "3", "name": "Dan"})
    sheet.delete("3")
    sheet.append({"id": "4", "name": "Eli"})
    rules = Rules(keys={"people": "id"})
    found = Changes(row_changes("people", sheet.touched(), rules))
    assert found == changes({"people": rows}, {"people": sheet.rows}, rules)
    assert sorted(change.kind for change in found) == ["created", "deleted", "updated"]
