"""The workplace server: what its tools answer, and that episodes share tables without sharing changes."""

import asyncio
import csv
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import ToolError
from gymrail.cli.serve import find_served
from gymrail.environment import tool_table
from gymrail.episode import Episode
from gymrail.errors import InputError
from gymrail.schema_check import schema_problems
from gymrail.serving.alone import empty_task
from gymrail_mcp_servers.workplace.generated import PEOPLE, generated_office
from gymrail_mcp_servers.workplace.search import moment
from gymrail_mcp_servers.workplace.server import METRICS, NOW, Workplace
from gymrail_mcp_servers.workplace.tables import COLUMNS, load_office

OFFICE = generated_office()
EMAIL = OFFICE.emails.entries[7].row
EVENT = OFFICE.calendar.entries[7].row
TASK = OFFICE.tasks.entries[7].row
CUSTOMER = OFFICE.customers.entries[7].row
CRM = "customer_relationship_manager_"
PM = "project_management_"


@pytest.fixture
def office() -> Workplace:
    return Workplace()


def said(office: Workplace, name: str, /, **arguments: Any) -> Any:
    """What a tool answers, by the way of a call: validated, run, read."""
    tool = Workplace.tools[name]
    return orjson.loads(getattr(office, tool.method)(**tool.parse(arguments)))["output"]


def refused(office: Workplace, name: str, arguments: Any) -> str:
    tool = Workplace.tools[name]
    with pytest.raises(ToolError) as caught:
        getattr(office, tool.method)(**tool.parse(arguments))
    text = orjson.loads(str(caught.value))["output"]
    assert text.startswith(f"Error executing tool '{name}': ")
    return text


def test_there_are_27_tools_whose_arguments_are_texts_but_for_pages() -> None:
    tools = tool_table(Workplace)
    assert len(tools) == 27
    for tool in tools.values():
        assert schema_problems(tool.parameters) == []
        for name, part in tool.parameters["properties"].items():
            assert part["type"] == ("integer" if name in ("page", "page_size") else "string")
            assert part["description"]
    required = tools["calendar_create_event"].parameters["required"]
    assert required == ["event_name", "participant_email", "event_start", "duration"]
    assert tools["customer_relationship_manager_add_customer"].parameters["required"] == [
        "customer_name", "assigned_to_email", "status",
    ]  # fmt: skip
    assert tools["email_search_emails"].parameters["required"] == []


def test_what_one_episode_changes_no_other_one_sees(office: Workplace) -> None:
    other = Workplace()
    assert said(office, "email_delete_email", email_id=EMAIL["email_id"]) == "Email deleted successfully."
    said(office, f"{PM}update_task", task_id=TASK["task_id"], field="list_name", new_value="Completed")
    assert said(office, "email_delete_email", email_id=EMAIL["email_id"]) == "Email not found."
    assert said(other, "email_get_email_information_by_id", email_id=EMAIL["email_id"], field="subject") == {
        "subject": EMAIL["subject"]
    }
    assert office.changes()
    assert not other.changes()
    other.seed()
    assert OFFICE.tasks.entries[7].row is TASK


def test_an_open_episode_holds_kilobytes_and_not_tables(office: Workplace) -> None:
    tracemalloc.start()
    episodes = []
    for _ in range(50):
        one = Workplace()
        said(one, f"{PM}update_task", task_id=TASK["task_id"], field="board", new_value="Design")
        said(one, "email_send_email", recipient="a@b.co", subject="Hello", body="There.")
        episodes.append(one)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(episodes) < 10_000


def test_the_changes_of_an_episode_are_what_its_tables_differ_by(office: Workplace) -> None:
    said(office, f"{CRM}update_customer", customer_id=CUSTOMER["customer_id"], field="notes", new_value="Call back")
    said(office, "calendar_delete_event", event_id=EVENT["event_id"])
    said(office, "analytics_create_plot", time_min="2023-10-01", time_max="2023-10-02", value_to_plot="user_engaged",
         plot_type="bar")  # fmt: skip
    said(office, "email_send_email", recipient="A@B.co", subject="Hello", body="There.")
    found = sorted((change.table, change.kind, change.column) for change in office.changes())
    assert found == [
        ("calendar", "deleted", ""), ("customers", "updated", "notes"), ("emails", "created", ""),
        ("plots", "created", ""),
    ]  # fmt: skip


def test_setting_what_is_set_already_and_deleting_what_was_made_are_no_changes(office: Workplace) -> None:
    said(office, f"{PM}update_task", task_id=TASK["task_id"], field="board", new_value=TASK["board"])
    said(office, f"{PM}update_task", task_id=TASK["task_id"], field="task_name", new_value=TASK["task_name"].upper())
    made = said(
        office, "calendar_create_event", event_name="Walk", participant_email="A@b.co", duration="30",
        event_start="2023-12-01 09:00:00",
    )  # fmt: skip
    assert said(office, "calendar_get_event_information_by_id", event_id=made, field="participant_email") == {
        "participant_email": "a@b.co"
    }
    assert said(office, "calendar_delete_event", event_id=made) == "Event deleted successfully."
    assert not office.changes()


def test_search_words_may_stand_in_any_of_the_fields_and_the_newest_comes_first(office: Workplace) -> None:
    name = EMAIL["sender/recipient"].partition(".")[0]
    found = said(office, "email_search_emails", query=f"ROBIN {name}", page_size=50)["emails"]
    times = [row["sent_datetime"] for row in found]
    assert EMAIL["email_id"] in {row["email_id"] for row in found}
    assert times == sorted(times, reverse=True)
    assert said(office, "email_search_emails", query="no such words") == "No emails found."


def test_pages_are_counted_and_the_nearest_one_is_shown(office: Workplace) -> None:
    whole = said(office, "email_search_emails", page_size=500)
    assert whole["pagination"] == {"total_emails": 500, "page": 1, "page_size": 500, "total_pages": 1}
    last = said(office, "email_search_emails", page=99, page_size=30)
    assert last["pagination"] == {"total_emails": 500, "page": 17, "page_size": 30, "total_pages": 17}
    assert last["emails"] == whole["emails"][480:]
    assert "modulo by zero" in said(office, "email_search_emails", page_size=0)


def test_dates_bound_a_search_on_both_sides(office: Workplace) -> None:
    day = EMAIL["sent_datetime"][:10]
    found = said(office, "email_search_emails", date_min=day, date_max=day, page_size=50)["emails"]
    assert {row["sent_datetime"][:10] for row in found} == {day}
    events = said(office, "calendar_search_events", time_min=NOW, time_max="2023-12-08", page_size=50)["events"]
    assert all(NOW <= row["event_start"] <= "2023-12-08 00:00:00" for row in events)
    assert "unable to parse: soon" in said(office, "email_search_emails", date_min="soon")
    assert said(office, "calendar_search_events", time_min="noon").startswith("Invalid time_min format.")


def test_dates_are_read_in_several_forms_and_time_zones_do_not_matter() -> None:
    forms = ("2023-12-01 09:00:00", "2023-12-01T09:00", "2023-12-01 9:00", "2023-12-01T09:00:00Z", " 2023-12-01 09:00 ")
    assert {moment(text) for text in forms} == {moment("2023-12-01 09:00:00")}
    assert moment("2023-12") == moment("12/01/2023") == moment("December 1, 2023") == moment("2023-12-01")


def test_a_search_text_is_a_regular_expression_and_one_that_could_run_for_ever_is_refused(office: Workplace) -> None:
    everyone = said(office, "company_directory_find_email_address", name=".")
    assert everyone == list(PEOPLE.values())
    assert said(office, "company_directory_find_email_address", name="^GRETA|^Esme") == [
        PEOPLE["Esme"],
        PEOPLE["Greta"],
    ]
    for text in ("(a+)+$", "(x*)*y", "a?a?a?a?aaaa", "(.)\\1", "(?P<a>.)(?P=a)", "(a|b){2}"):
        assert "repeats too much" in refused(office, "company_directory_find_email_address", {"name": text})
    assert "unterminated" in refused(office, f"{PM}search_tasks", {"task_name": "("})


def test_a_dot_in_an_address_stands_for_any_character(office: Workplace) -> None:
    address = CUSTOMER["assigned_to_email"]
    first = said(office, f"{CRM}search_customers", assigned_to_email=address, page_size=200)
    assert said(office, f"{CRM}search_customers", assigned_to_email=address.replace("@", "."), page_size=200) == first
    assert {row["assigned_to_email"] for row in first["customers"]} == {address}


def test_null_arguments_count_as_absent_and_missing_ones_are_named_by_the_tool(office: Workplace) -> None:
    assert said(office, "email_search_emails", query=None, page=None) == said(office, "email_search_emails")
    assert said(office, "email_send_email", recipient="a@b.co") == "Recipient, subject, or body not provided."
    assert said(office, "calendar_create_event", event_name="Walk") == "Participant email not provided."
    assert said(office, "company_directory_find_email_address") == "Name not provided."
    assert not office.changes()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"email_id": "1", "colour": "red"}, "colour: Extra inputs"),
        ({"email_id": 57}, "email_id: Input should be a valid string"),
        ("[]", "Input should be an object"),
        ('{"email_id"', "unexpected end"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_the_words_of_a_tool_error(
    office: Workplace, arguments: Any, problem: str
) -> None:
    assert problem in refused(office, "email_delete_email", arguments)
    assert not office.changes()


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("email_forward_email", {"email_id": EMAIL["email_id"], "recipient": "nobody"}, "Invalid recipient email"),
        ("email_reply_email", {"email_id": "x", "body": "Hi"}, "Email not found."),
        ("calendar_update_event", {"event_id": "12", "field": "duration", "new_value": "5"}, "Invalid event ID format"),
        ("calendar_update_event", {"event_id": EVENT["event_id"], "field": "duration", "new_value": "-5"},
         "Duration must be a positive"),
        ("calendar_update_event", {"event_id": EVENT["event_id"], "field": "event_id", "new_value": "5"},
         "Invalid field. Available fields are: event_name,"),
        (f"{PM}create_task", {"task_name": "x", "assigned_to_email": "x@y.zz", "list_name": "Backlog", "due_date": "x",
         "board": "Design"}, "Assignee email not valid."),
        (f"{PM}update_task", {"task_id": TASK["task_id"], "field": "list_name", "new_value": "backlog"},
         "List not valid."),
        (f"{PM}update_task", {"task_id": TASK["task_id"], "field": "colour", "new_value": "red"}, "Field not valid."),
        (f"{PM}search_tasks", {}, "No search parameters provided."),
        (f"{PM}search_tasks", {"assigned_to_email": "esme"}, "Invalid email format"),
        (f"{CRM}update_customer", {"customer_id": CUSTOMER["customer_id"], "field": "status", "new_value": "won"},
         "Status not valid."),
        (f"{CRM}update_customer", {"customer_id": "7", "field": "notes", "new_value": "x"}, "Customer not found."),
        (f"{CRM}search_customers", {}, "No search parameters provided."),
        ("analytics_create_plot", {"time_min": "a", "time_max": "b", "value_to_plot": METRICS[0], "plot_type": "pie"},
         "Plot type must be one of"),
        ("analytics_get_visitor_information_by_id", {"visitor_id": "x"}, "Visitor not found."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_changes_nothing(
    office: Workplace, name: str, arguments: dict[str, str], answer: str
) -> None:
    assert said(office, name, **arguments).startswith(answer)
    assert not office.changes()


def test_a_reply_goes_to_the_sender_at_the_time_that_it_always_is(office: Workplace) -> None:
    said(office, "email_reply_email", email_id=EMAIL["email_id"], body="Fine.")
    (sent,) = said(office, "email_search_emails", date_min=NOW[:10], query="fine.", page_size=1)["emails"]
    assert sent == {
        "email_id": "500", "inbox/outbox": "outbox", "sender/recipient": EMAIL["sender/recipient"],
        "subject": f"RE: {EMAIL['subject']}", "sent_datetime": NOW, "body": "Fine.",
    }  # fmt: skip


def test_a_customer_is_added_with_what_is_known_and_found_by_it(office: Workplace) -> None:
    arguments = {"customer_name": "Ada Quill", "assigned_to_email": "A@B.co", "status": "Lead"}
    number = said(office, f"{CRM}add_customer", **arguments)
    assert number == "00000200"
    (row,) = said(office, f"{CRM}search_customers", customer_name="ada q")["customers"]
    assert tuple(row) == COLUMNS["customers"]
    assert (row["assigned_to_email"], row["customer_email"], row["notes"]) == ("a@b.co", None, "")
    assert said(office, f"{CRM}search_customers", customer_name="ada", customer_email="a") == "No customers found."
    assert said(office, f"{CRM}search_customers", customer_name="ada", follow_up_by_min="2") == "No customers found."


def test_visits_are_counted_by_date(office: Workplace) -> None:
    dates = {"time_min": "2023-10-01", "time_max": "2023-10-31"}
    visits = [row for row in OFFICE.visits if dates["time_min"] <= row["date_of_visit"] <= dates["time_max"]]
    total = said(office, "analytics_total_visits_count", **dates)
    assert (sum(total.values()), list(total)) == (len(visits), sorted(total))
    engaged = said(office, "analytics_engaged_users_count", **dates)
    assert sum(engaged.values()) == sum(row["user_engaged"] for row in visits)
    direct = said(office, "analytics_traffic_source_count", traffic_source="direct", **dates)
    assert (direct.keys(), sum(direct.values())) == (
        total.keys(), sum(row["traffic_source"] == "direct" for row in visits)
    )  # fmt: skip
    average = said(office, "analytics_get_average_session_duration", **dates)
    seconds = sum(average[date] * count for date, count in total.items())
    assert seconds == pytest.approx(sum(int(row["session_duration_seconds"]) for row in visits))


def test_an_update_of_an_id_is_followed(office: Workplace) -> None:
    said(office, f"{PM}update_task", task_id=TASK["task_id"], field="task_id", new_value="99999999")
    assert said(office, f"{PM}delete_task", task_id=TASK["task_id"]) == "Task not found."
    assert said(office, f"{PM}delete_task", task_id="99999999") == "Task deleted successfully."
    (change,) = office.changes()
    assert (change.kind, change.key) == ("deleted", (TASK["task_id"],))


def test_the_generated_office_has_the_originals_shape_and_its_seed_makes_it() -> None:
    sizes = [len(table.entries) for table in (OFFICE.emails, OFFICE.calendar, OFFICE.tasks, OFFICE.customers)]
    assert (sizes, len(OFFICE.visits), len(OFFICE.directory)) == ([500, 300, 300, 200], 1000, 20)
    assert tuple(EMAIL) == COLUMNS["emails"]
    again = generated_office.__wrapped__(0)
    assert [entry.row for entry in again.emails.entries] == [entry.row for entry in OFFICE.emails.entries]
    assert generated_office(1).emails.entries[7].row != EMAIL


def test_the_generated_office_is_the_same_on_every_machine() -> None:
    assert EMAIL["sender/recipient"] in PEOPLE.values()
    assert (EVENT["event_id"], TASK["task_id"], CUSTOMER["customer_id"]) == ("00000233", "00000043", "00000117")


def test_a_first_name_in_an_email_is_that_of_its_sender_or_recipient() -> None:
    for seed in range(3):
        for row, text in generated_office(seed).emails.entries:
            named = {address for name, address in PEOPLE.items() if name.lower() in text}
            assert named == {row["sender/recipient"]}


def test_events_of_the_generated_office_do_not_overlap() -> None:
    rows = sorted((moment(row["event_start"]), int(row["duration"])) for row, _ in OFFICE.calendar.entries)
    assert all(
        (later - start).total_seconds() >= 60 * length for (start, length), (later, _) in itertools.pairwise(rows)
    )


def write_tables(folder: Path) -> None:
    files = {
        "processed/emails.csv": OFFICE.emails, "processed/calendar_events.csv": OFFICE.calendar,
        "processed/project_tasks.csv": OFFICE.tasks,
        "processed/customer_relationship_manager_data.csv": OFFICE.customers,
    }  # fmt: skip
    rows = {name: [entry.row for entry in table.entries] for name, table in files.items()}
    rows["processed/analytics_data.csv"] = list(OFFICE.visits)
    for name, content in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    (folder / "raw").mkdir()
    (folder / "raw/email_addresses.csv").write_text("\n".join(OFFICE.directory), encoding="utf-8")


def test_tables_are_loaded_from_csv_files_as_they_were(tmp_path: Path) -> None:
    write_tables(tmp_path)
    loaded = load_office(tmp_path)
    for name in ("emails", "calendar", "tasks", "customers"):
        assert [entry.row for entry in getattr(loaded, name).entries] == [
            entry.row for entry in getattr(OFFICE, name).entries
        ]
    assert (loaded.visits, loaded.directory) == (OFFICE.visits, OFFICE.directory)


def test_a_folder_without_the_tables_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no emails\.csv"):
        load_office(tmp_path)
    write_tables(tmp_path)
    (tmp_path / "processed/project_tasks.csv").write_text("task_id,task_name\n1,x\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no column 'assigned_to_email'"):
        load_office(tmp_path)


def test_the_server_runs_alone_with_a_generated_office_or_loaded_tables(tmp_path: Path) -> None:
    write_tables(tmp_path)

    async def first_email(**settings: Any) -> Any:
        spec = find_served("workplace")
        episode = await Episode.open(spec, empty_task(spec, settings))
        done = await episode.call("email_search_emails", '{"page_size": 1}')
        await episode.close()
        return orjson.loads(str(done.output))["output"]["emails"]

    def newest(seed: int) -> Any:
        return [
            max((entry.row for entry in generated_office(seed).emails.entries), key=lambda row: row["sent_datetime"])
        ]

    assert asyncio.run(first_email()) == asyncio.run(first_email(data_dir=str(tmp_path))) == newest(0)
    assert asyncio.run(first_email(office_seed=2)) == newest(2)
    with pytest.raises(InputError, match="no setting 'dir'"):
        asyncio.run(first_email(dir="x"))
