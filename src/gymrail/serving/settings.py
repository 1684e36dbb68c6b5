"""How a server is run: its key, its limits, whom it answers."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import InputError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server; `Settings.for_address` makes those that fit an address."""

    key: str | None = None
    """Opens the control plane; None leaves it open to everybody who can connect."""
    limits: Limits = DEFAULT_LIMITS
    max_episodes: int = 10_000
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_depth: int = 100
    """How deep a JSON body may nest."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a request's Host header may have, without the port; empty for any."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose browsers may send requests; others are refused."""
    public_url: str | None = None
    """The address in the URLs that seeding answers; the request's own by default."""

    def __post_init__(self) -> None:
        for name in ("max_episodes", "max_body_bytes", "max_depth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be at least 1.")
        if self.key is not None and len(self.key) < 16:
            raise InputError(f"The server's key has {len(self.key)} characters; use 16 or more, or leave it out.")

    @classmethod
    def for_address(
        cls, host: str, *, key: str | None = None, is_open: bool = False, limits: Limits = DEFAULT_LIMITS,
        max_episodes: int = 10_000, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        allowed_origins: tuple[str, ...] = (), public_url: str | None = None,
    ) -> Settings:  # fmt: skip
        """Return the settings for a server bound to `host`, with a random key unless one is given or `is_open`.

        Raises:
            InputError: open, and `host` is not a loopback address.
        """
        is_local = is_loopback(host)
        if is_open and not is_local:
            raise InputError(
                f"A server without a key listens on loopback only, and {host!r} is not a loopback address; "
                "use --host 127.0.0.1, or leave out --open and pass the key to your clients."
            )
        if is_open and key is not None:
            raise InputError("A key and --open exclude each other; leave one of them out.")
        return cls(
            None if is_open else key or secrets.token_urlsafe(32),
            limits,
            max_episodes,
            max_body_bytes,
            # Behind another name a cluster's clients would be refused; there the key and the origin protect.
            allowed_hosts=LOOPBACK_HOSTS if is_local else (),
            allowed_origins=allowed_origins,
            public_url=public_url.rstrip("/") if public_url else None,
        )


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
