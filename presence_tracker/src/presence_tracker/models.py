"""What the server answers, as values. Fields are those of its JSON; what is unknown here is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class _FromJson:
    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the server's answer; newer servers may send more than this version knows."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in answer.items() if name in known})


@dataclass(frozen=True, slots=True)
class Interview(_FromJson):
    """How a session stands towards the limit; `message` is a sentence for the participant, in their language.

    `state`: `none`, `waiting`, `offered`, `granted`, or `denied` (the answer to a claim only). `fence` is the permit's
    number; it only rises. `position` counts the whole line from 1. `eta_s` is the median wait, `eta_max_s` the 90 %
    bound, both in seconds.
    """

    state: str
    message: str = ""
    reason: str | None = None
    fence: int | None = None
    position: int | None = None
    waiting: int | None = None
    eta_s: float | None = None
    eta_max_s: float | None = None
    eta_reason: str | None = None
    offer_expires_in_s: float | None = None
    ends_in_s: float | None = None

    @property
    def is_granted(self) -> bool:
        """Whether the session may be in the interview."""
        return self.state == "granted"

    @property
    def is_denied(self) -> bool:
        """Whether this answers a claim that gave neither a place nor one in line."""
        return self.state == "denied"

    @property
    def is_in_line(self) -> bool:
        """Whether the session waits, or has an offer."""
        return self.state in ("waiting", "offered")


@dataclass(frozen=True, slots=True)
class OpenedSession(_FromJson):
    """A session that was opened, or `resumed`; `token` is for its browser, which loads `client_url`."""

    session_id: str
    token: str = field(repr=False)
    ws_url: str
    client_url: str
    resumed: bool
    interview: Interview

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the server's answer."""
        values = {**answer, "interview": Interview.from_json(answer["interview"])}
        return super(OpenedSession, cls).from_json(values)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the participant may be in the interview now.

    `is_confirmed` False: the server is away, and `interview` is what was last known. Then `may_enter` is True only for
    who was in already, or with `fail_open`.
    """

    interview: Interview
    may_enter: bool
    is_confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Capacity(_FromJson):
    """How full the pool is. `active`: permits held, without offers; `waiting`: tickets, without offers."""

    pool: str
    mode: str
    limit: int
    active: int
    available: int
    offered: int
    waiting: int
    sessions_online: int
    sessions_active: int
    eta_s: float | None = None
    eta_max_s: float | None = None
    recovering: bool = False
    as_of: str = ""
