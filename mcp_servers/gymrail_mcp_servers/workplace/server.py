"""An office in 27 tools: a directory, emails, a calendar, web analytics, project tasks and customers.

Names, arguments and results are those of NeMo Gym's workplace_assistant, so that its rows and rollouts grade alike.
A result is `{"output": ...}`; what cannot be run at all is `{"output": "Error executing tool '<name>': ..."}`. The time
is always 2023-11-30 23:59. Arguments that are null count as absent, in live calls and in replayed ones.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from gymrail import ToolError, ToolServer, tool
from gymrail.tables import Row, Sheet
from gymrail.tools import ToolSpec, dump_json
from gymrail.verifiers.state import Changes, Rules, row_changes
from gymrail_mcp_servers.workplace.generated import generated_office
from gymrail_mcp_servers.workplace.search import having, matching, moment, page_of
from gymrail_mcp_servers.workplace.tables import COLUMNS, Office, load_office

NOW = "2023-11-30 23:59:00"
LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")
METRICS = (
    "total_visits", "session_duration_seconds", "user_engaged", "visits_direct", "visits_referral",
    "visits_search_engine", "visits_social_media",
)  # fmt: skip
PLOTS = ("bar", "line", "scatter", "histogram")
KEYS = {"emails": "email_id", "calendar": "event_id", "tasks": "task_id", "customers": "customer_id"}
RULES = Rules(
    keys=KEYS,
    generated={table: frozenset({key}) for table, key in KEYS.items()},
    fold_case=True,
    exact=frozenset({"status", "list_name", "board"}),
)
"""How two final states are compared: letters in any case but for `status`, `list_name` and `board`. The numbers that
new rows are given depend on the order of calls and do not count."""

_ABOUT: dict[str, str] = orjson.loads(Path(__file__).with_name("arguments.json").read_bytes())
"""What the model is told of an argument, by its name; by its tool's and its own where that says more."""


class _Tool(ToolSpec):
    """A tool that drops null arguments, and hears of a missing one as an empty text: it says itself what it lacks."""

    def parse(self, arguments: str | bytes | dict[str, Any]) -> dict[str, Any]:
        try:
            given = arguments if isinstance(arguments, dict) else orjson.loads(arguments or b"{}")
            if isinstance(given, dict):
                present = {name: value for name, value in given.items() if value is not None}
                arguments = {**dict.fromkeys(self.parameters["required"], ""), **present}
            return ToolSpec.parse(self, arguments)
        except (ToolError, orjson.JSONDecodeError) as error:
            raise _failure(self.name, error) from None


def _office_tool(*, read_only: bool = False, destructive: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Mark a method as a tool of its own name, whose result the model reads as `{"output": result}`."""

    def mark(method: Callable[..., Any]) -> Any:
        @functools.wraps(method)
        def run(self: Workplace, **arguments: Any) -> str:
            try:
                return dump_json({"output": method(self, **arguments)})
            except (ToolError, ValueError, ArithmeticError, re.error) as error:
                raise _failure(method.__name__, error) from None

        names = list(inspect.signature(method).parameters)[1:]
        about = {name: _ABOUT.get(f"{method.__name__}.{name}") or _ABOUT[name] for name in names}
        run.__doc__ = "\n".join([f"{method.__doc__}\n\nArgs:", *(f"    {name}: {about[name]}" for name in names)])
        return tool(read_only=read_only, destructive=destructive)(run)

    return mark


_reads = _office_tool(read_only=True)
_writes = _office_tool()
_deletes = _office_tool(destructive=True)


class Workplace(ToolServer):
    """One episode's office. It starts from shared tables and keeps what it changed."""

    def __init__(self) -> None:
        self.seed()

    def seed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, office: Office | None = None, data_dir: str | None = None, office_seed: int = 0
    ) -> None:
        """Start from an office: the one that is given, the CSV tables of `data_dir`, or the generated one of a seed."""
        if office is None:
            office = load_office(Path(data_dir)) if data_dir else generated_office(office_seed)
        self.office = office
        self.emails = Sheet(self.office.emails)
        self.calendar = Sheet(self.office.calendar)
        self.tasks = Sheet(self.office.tasks)
        self.customers = Sheet(self.office.customers)
        self.plots: list[Row] = []

    def changes(self) -> Changes:
        """Return what is different from the start in the five tables that tools can change."""
        found = Changes(row_changes("plots", ((None, row) for row in self.plots), RULES))
        for name in KEYS:
            sheet: Sheet = getattr(self, name)
            if sheet.changed:
                found.update(row_changes(name, sheet.touched(), RULES))
        return found

    @_reads
    def company_directory_find_email_address(self, name: str = "") -> Any:
        """Look up the email addresses of colleagues by name, in any case."""
        rows = ({"address": address} for address in self.office.directory)
        return [row["address"] for row in matching(rows, name, "address")] if name else "Name not provided."

    @_reads
    def email_get_email_information_by_id(self, email_id: str, field: str) -> Any:
        """Read one field of an email."""
        unknown = f"Field '{field}' not found. Available fields: {', '.join(COLUMNS['emails'])}"
        return _read(self.emails, "Email", email_id, field, unknown)

    @_reads
    def email_search_emails(
        self, query: str = "", date_min: str = "", date_max: str = "", page: int = 1, page_size: int = 5
    ) -> Any:
        """Search sent and received emails, newest first."""
        entries = self.emails.entries
        for word in query.lower().split():
            entries = [entry for entry in entries if word in entry.text]
        found = [entry.row for entry in entries]
        try:
            if found and date_min:
                first = str(moment(date_min).date())
                found = [row for row in found if row["sent_datetime"][:10] >= first]
            if found and date_max:
                last = str(moment(date_max).date())
                found = [row for row in found if row["sent_datetime"][:10] <= last]
            found.sort(key=lambda row: row["sent_datetime"], reverse=True)
            return page_of("emails", found, page, page_size)
        except (ValueError, ArithmeticError) as error:
            return f"Error searching emails: {error}"

    @_writes
    def email_send_email(self, recipient: str, subject: str, body: str) -> Any:
        """Send an email to one address."""
        if not recipient or not subject or not body:
            return "Recipient, subject, or body not provided."
        return self._send(recipient, subject, body, "sent")

    @_deletes
    def email_delete_email(self, email_id: str) -> Any:
        """Delete an email."""
        return _delete(self.emails, "Email", email_id)

    @_writes
    def email_forward_email(self, email_id: str, recipient: str) -> Any:
        """Forward an email to one address."""
        if not email_id or not recipient:
            return "Email ID or recipient not provided."
        if not _is_address(recipient):
            return _NO_ADDRESS
        row = self.emails.get(email_id)
        return self._send(recipient, f"FW: {row['subject']}", row["body"], "forwarded") if row else "Email not found."

    @_writes
    def email_reply_email(self, email_id: str, body: str) -> Any:
        """Reply to an email."""
        if not email_id or not body:
            return "Email ID or body not provided."
        row = self.emails.get(email_id)
        return (
            self._send(row["sender/recipient"], f"RE: {row['subject']}", body, "replied") if row else "Email not found."
        )

    def _send(self, recipient: str, subject: str, body: str, deed: str) -> str:
        if not _is_address(recipient):
            return _NO_ADDRESS
        self.emails.append(
            {
                "email_id": str(self.emails.next_id()), "inbox/outbox": "outbox", "sender/recipient": recipient.lower(),
                "subject": subject, "sent_datetime": NOW, "body": body,
            }
        )  # fmt: skip
        return f"Email {deed} successfully."

    @_reads
    def calendar_get_event_information_by_id(self, event_id: str, field: str) -> Any:
        """Read one field of a calendar event."""
        problem = event_id and field and _event_problem(event_id, field)
        return problem or _read(self.calendar, "Event", event_id, field, "Field not found.")

    @_reads
    def calendar_search_events(
        self, query: str = "", time_min: str = "", time_max: str = "", page: int = 1, page_size: int = 5
    ) -> Any:
        """Search calendar events by name or participant and by when they start, latest first."""
        for name, text in (("time_min", time_min), ("time_max", time_max)):
            if problem := text and _time_problem(name, text):
                return problem
        found = list(matching(self.calendar.rows, query, "event_name", "participant_email"))
        if time_min:
            found = [row for row in found if moment(row["event_start"]) >= moment(time_min)]
        if time_max:
            found = [row for row in found if moment(row["event_start"]) <= moment(time_max)]
        found.sort(key=lambda row: moment(row["event_start"]), reverse=True)
        return page_of("events", found, page, page_size) if found else "No events found."

    @_writes
    def calendar_create_event(self, event_name: str, participant_email: str, event_start: str, duration: str) -> Any:
        """Put an event into the calendar; returns its id."""
        nouns = ("Event name", "Participant email", "Event start", "Event duration")
        values = (event_name, participant_email.lower(), event_start, duration)
        for noun, value in zip(nouns, values, strict=True):
            if not value:
                return f"{noun} not provided."
        problem = _value_problem("event_start", event_start) or _value_problem("duration", duration)
        if problem:
            return problem
        number = f"{self.calendar.next_id():08}"
        self.calendar.append(dict(zip(COLUMNS["calendar"], (number, *values), strict=True)))
        return number

    @_deletes
    def calendar_delete_event(self, event_id: str) -> Any:
        """Delete a calendar event."""
        problem = event_id and _event_problem(event_id, "event_id")
        return problem or _delete(self.calendar, "Event", event_id)

    @_writes
    def calendar_update_event(self, event_id: str, field: str, new_value: str) -> Any:
        """Change one field of a calendar event, but not its id."""
        if not event_id or not field or not new_value:
            return "Event ID, field, or new value not provided."
        problem = _event_problem(event_id, field, COLUMNS["calendar"][1:]) or _value_problem(field, new_value)
        value = new_value.lower() if field == "participant_email" else new_value
        return problem or _put(self.calendar, "Event", event_id, field, value)

    @_reads
    def analytics_get_visitor_information_by_id(self, visitor_id: str) -> Any:
        """Read all visits of one visitor of the website."""
        if not visitor_id:
            return "Visitor ID not provided."
        return [row for row in self.office.visits if row["visitor_id"] == visitor_id] or "Visitor not found."

    @_writes
    def analytics_create_plot(self, time_min: str, time_max: str, value_to_plot: str, plot_type: str) -> Any:
        """Plot one measure of the website's visits over a range of dates; returns the file's path."""
        if not time_min or not time_max:
            return f"{'End' if time_min else 'Start'} date not provided."
        if value_to_plot not in METRICS:
            return f"Value to plot must be one of {_listed(METRICS)}"
        if plot_type not in PLOTS:
            return "Plot type must be one of 'bar', 'line', 'scatter', or 'histogram'"
        self.plots.append({"file_path": f"plots/{time_min}_{time_max}_{value_to_plot}_{plot_type}.png"})
        return self.plots[-1]["file_path"]

    @_reads
    def analytics_total_visits_count(self, time_min: str = "", time_max: str = "") -> Any:
        """Count the website's visits on each date."""
        return {date: len(rows) for date, rows in self._visits(time_min, time_max)}

    @_reads
    def analytics_engaged_users_count(self, time_min: str = "", time_max: str = "") -> Any:
        """Count the visits by engaged users on each date."""
        return {date: sum(row["user_engaged"] for row in rows) for date, rows in self._visits(time_min, time_max)}

    @_reads
    def analytics_get_average_session_duration(self, time_min: str = "", time_max: str = "") -> Any:
        """Average the length of the visits on each date, in seconds."""
        visits = self._visits(time_min, time_max)
        return {date: sum(float(row["session_duration_seconds"]) for row in rows) / len(rows) for date, rows in visits}

    @_reads
    def analytics_traffic_source_count(self, time_min: str = "", time_max: str = "", traffic_source: str = "") -> Any:
        """Count the visits from one source, or from all of them, on each date."""
        visits = self._visits(time_min, time_max)
        return {date: sum(traffic_source in ("", row["traffic_source"]) for row in rows) for date, rows in visits}

    def _visits(self, first: str, last: str) -> Iterator[tuple[str, list[Row]]]:
        for date, rows in self.office.visits_by_date.items():
            if date >= first and (not last or date <= last):
                yield date, rows

    @_reads
    def project_management_get_task_information_by_id(self, task_id: str, field: str) -> Any:
        """Read one field of a project task."""
        return _read(self.tasks, "Task", task_id, field, "Field not found.")

    @_reads
    def project_management_search_tasks(
        self, task_name: str = "", assigned_to_email: str = "", list_name: str = "", due_date: str = "",
        board: str = "",
    ) -> Any:  # fmt: skip
        """Search project tasks by any of their fields; all that are given must fit."""
        parts = {"task_name": task_name, "list_name": list_name, "due_date": due_date, "board": board}
        if not assigned_to_email and not any(parts.values()):
            return "No search parameters provided."
        if assigned_to_email and not _ADDRESS.match(assigned_to_email):
            return "Invalid email format for assigned_to_email."
        owner = assigned_to_email.lower()
        rows = [row for row in self.tasks.rows if not owner or row["assigned_to_email"].lower() == owner]
        return having(rows, parts)

    @_writes
    def project_management_create_task(
        self, task_name: str, assigned_to_email: str, list_name: str, due_date: str, board: str
    ) -> Any:
        """Make a project task; returns its id."""
        if not all((task_name, assigned_to_email, list_name, due_date, board)):
            return "Missing task details."
        row = {
            "task_id": "", "task_name": task_name, "assigned_to_email": assigned_to_email.lower(),
            "list_name": list_name, "due_date": due_date, "board": board,
        }  # fmt: skip
        for field in ("assigned_to_email", "list_name", "board"):
            if problem := self._task_problem(field, row[field]):
                return problem
        row["task_id"] = f"{self.tasks.next_id():08}"
        self.tasks.append(row)
        return row["task_id"]

    @_deletes
    def project_management_delete_task(self, task_id: str) -> Any:
        """Delete a project task."""
        return _delete(self.tasks, "Task", task_id)

    @_writes
    def project_management_update_task(self, task_id: str, field: str, new_value: str) -> Any:
        """Change one field of a project task."""
        if not task_id or not field or not new_value:
            return "Task ID, field, or new value not provided."
        value = new_value.lower() if field == "assigned_to_email" else new_value
        return self._task_problem(field, value) or _put(self.tasks, "Task", task_id, field, value)

    def _task_problem(self, field: str, value: str) -> str:
        if field == "board" and value not in BOARDS:
            return f"Board not valid. Please choose from: {_listed(BOARDS)}."
        if field == "list_name" and value not in LISTS:
            return f"List not valid. Please choose from: {_listed(LISTS)}."
        if field == "assigned_to_email" and all(row[field].lower() != value for row in self.tasks.rows):
            return "Assignee email not valid. Please choose from the list of team members."
        return ""

    @_reads
    def customer_relationship_manager_search_customers(
        self, customer_name: str = "", customer_email: str = "", product_interest: str = "",
        status: str = "", assigned_to_email: str = "", last_contact_date_min: str = "",
        last_contact_date_max: str = "", follow_up_by_min: str = "", follow_up_by_max: str = "",
        page: int = 1, page_size: int = 5,
    ) -> Any:  # fmt: skip
        """Search customers by any of their fields; all that are given must fit."""
        parts = {
            "customer_name": customer_name, "customer_email": customer_email, "product_interest": product_interest,
            "status": status, "assigned_to_email": assigned_to_email,
        }  # fmt: skip
        ranges = {
            "last_contact_date": (last_contact_date_min, last_contact_date_max),
            "follow_up_by": (follow_up_by_min, follow_up_by_max),
        }
        if not any(parts.values()) and not any(map(any, ranges.values())):
            return "No search parameters provided. Please provide at least one parameter."
        found = having(list(self.customers.rows), parts)
        for field, (first, last) in ranges.items():
            found = [row for row in found if not first or (row[field] or "") >= first]
            found = [row for row in found if not last or (row[field] and row[field] <= last)]
        return page_of("customers", found, page, page_size)

    @_writes
    def customer_relationship_manager_update_customer(self, customer_id: str, field: str, new_value: str) -> Any:
        """Change one field of a customer."""
        if not customer_id or not field or not new_value:
            return "Customer ID, field, or new value not provided."
        if field == "status" and new_value not in STATUSES:
            return f"Status not valid. Please choose from: {_listed(STATUSES)}"
        if field == "product_interest" and new_value not in PRODUCTS:
            return f"Product interest not valid. Please choose from: {_listed(PRODUCTS)}"
        value = new_value.lower() if field in ("customer_email", "assigned_to_email") else new_value
        return _put(self.customers, "Customer", customer_id, field, value)

    @_writes
    def customer_relationship_manager_add_customer(
        self, customer_name: str, assigned_to_email: str, status: str, customer_email: str = "",
        customer_phone: str = "", last_contact_date: str = "", product_interest: str = "", notes: str = "",
        follow_up_by: str = "",
    ) -> Any:  # fmt: skip
        """Add a customer; returns the new id."""
        if not all((customer_name, assigned_to_email, status)):
            return "Please provide all required fields: customer_name, assigned_to_email, status."
        row = {
            "customer_id": f"{self.customers.next_id():08}", "assigned_to_email": assigned_to_email.lower(),
            "customer_name": customer_name, "customer_email": customer_email.lower() or None,
            "customer_phone": customer_phone or None, "last_contact_date": last_contact_date or None,
            "product_interest": product_interest or None, "status": status, "follow_up_by": follow_up_by or None,
            "notes": notes,
        }  # fmt: skip
        self.customers.append(row)
        return row["customer_id"]

    @_deletes
    def customer_relationship_manager_delete_customer(self, customer_id: str) -> Any:
        """Delete a customer."""
        return _delete(self.customers, "Customer", customer_id)


def _named(spec: ToolSpec) -> _Tool:
    return _Tool(**{part.name: getattr(spec, part.name) for part in dataclasses.fields(spec)})


Workplace.tools = {name: _named(spec) for name, spec in Workplace.tools.items()}

_CHANGEABLE = (
    "customer_name", "assigned_to_email", "customer_email", "customer_phone", "last_contact_date", "product_interest",
    "status", "notes", "follow_up_by",
)  # fmt: skip
_NO_ADDRESS = "Invalid recipient email address."
_ADDRESS = re.compile(r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$")


def _failure(name: str, error: Exception) -> ToolError:
    return ToolError(dump_json({"output": f"Error executing tool '{name}': {error}"}))


def _read(sheet: Sheet, noun: str, id: str, field: str, unknown: str) -> Any:
    if not id or not field:
        return f"{'Field' if id else f'{noun} ID'} not provided."
    row = sheet.get(id)
    return f"{noun} not found." if row is None else {field: row[field]} if field in row else unknown


def _delete(sheet: Sheet, noun: str, id: str) -> str:
    if not id:
        return f"{noun} ID not provided."
    return f"{noun} deleted successfully." if sheet.delete(id) else f"{noun} not found."


def _put(sheet: Sheet, noun: str, id: str, field: str, value: str) -> str:
    row = sheet.get(id)
    if row is None:
        return f"{noun} not found."
    if field not in row:
        choices = f" Please choose from: {_listed(_CHANGEABLE)}" if noun == "Customer" else ""
        return f"Field not valid.{choices}"
    sheet.put(id, field, value)
    return f"{noun} updated successfully."


def _event_problem(id: str, field: str, fields: tuple[str, ...] = COLUMNS["calendar"]) -> str:
    if len(id) != 8 or not id.isdigit():
        return "Invalid event ID format. Expected 8-digit ID."
    return "" if field in fields else f"Invalid field. Available fields are: {', '.join(fields)}"


def _value_problem(field: str, value: str) -> str:
    if field == "event_start":
        return _time_problem("event_start", value)
    if field != "duration":
        return ""
    try:
        return "" if int(value) > 0 else "Duration must be a positive number of minutes."
    except ValueError:
        return "Invalid duration format. Expected a number of minutes."


def _time_problem(name: str, text: str) -> str:
    try:
        moment(text)
    except ValueError:
        return f"Invalid {name} format. Expected YYYY-MM-DD HH:MM:SS."
    return ""


def _is_address(text: str) -> bool:
    return "@" in text and "." in text


def _listed(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words))
