"""A small workplace: every episode has an owner, an inbox and a calendar of its own. For tests with other people's MCP
clients."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel

from gymrail import Environment, Rollout, Task, ToolError, tool
from gymrail.spec import EnvironmentSpec


class Email(BaseModel):
    sender: str
    to: str
    subject: str


class Mailbox(BaseModel):
    owner: str
    emails: list[Email]


class WorkplaceTask(Task):
    owner: str
    inbox: list[Email]


class Workplace(Environment[WorkplaceTask]):
    """Answer every email once."""

    def seed(self) -> None:
        self.inbox = list(self.task.inbox)
        self.sent: list[Email] = []

    @tool(read_only=True)
    def read_inbox(self) -> Mailbox:
        """Read the emails that came."""
        return Mailbox(owner=self.task.owner, emails=self.inbox)

    @tool
    def send_email(self, to: str, subject: str) -> str:
        """Send an email.

        Args:
            to: The address.
            subject: What it is about.
        """
        if "@" not in to:
            raise ToolError(f"{to!r} is no address.")
        self.sent.append(Email(sender=self.task.owner, to=to, subject=subject))
        return f"sent to {to}"

    @tool(read_only=True)
    def list_sent(self) -> Mailbox:
        """List the emails that were sent."""
        return Mailbox(owner=self.task.owner, emails=self.sent)

    def verify(self, rollout: Rollout) -> float:
        """Each email was answered, and nothing else was sent."""
        wanted = sorted((email.sender, f"Re: {email.subject}") for email in self.task.inbox)
        return float(sorted((email.to, email.subject) for email in self.sent) == wanted)


WORKPLACE = EnvironmentSpec("workplace", Workplace)


def workplace_row() -> dict[str, Any]:
    """A task whose inbox no other task has."""
    code = uuid.uuid4().hex[:8]
    email = {"sender": f"{code}@example.com", "to": "ana@example.com", "subject": f"Order {code}"}
    return {
        "responses_create_params": {"input": "Answer your email."},
        "owner": "ana@example.com",
        "inbox": [email],
    }


def expected_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a client that lists the tools, reads the inbox, answers its email and lists what it sent must have seen."""
    (email,) = row["inbox"]
    answer = {"sender": row["owner"], "to": email["sender"], "subject": f"Re: {email['subject']}"}
    return {
        "tools": list(WORKPLACE.tools),
        "inbox": {"owner": row["owner"], "emails": [email]},
        "sent": {"owner": row["owner"], "emails": [answer]},
    }
