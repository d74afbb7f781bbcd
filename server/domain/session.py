"""A session: one participant's stay, as it is kept in Redis and shown to the outside."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated, Any

import msgspec

# Python's `$` would also match before a final newline; the look-ahead is valid in JSON Schema too.
_END = r"$(?!\n)"
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}" + _END

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN, description="1-128 of A-Z a-z 0-9 _ . : @ -")]
LANGUAGE_PATTERN = r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*" + _END
LanguageCode = Annotated[str, msgspec.Meta(pattern=LANGUAGE_PATTERN, max_length=35)]
# Without control characters: Postgres would take no NUL.
PAGE_PATTERN = r"^[^\x00-\x1f\x7f]*" + _END
Page = Annotated[str, msgspec.Meta(pattern=PAGE_PATTERN, max_length=200)]
Metadata = dict[str, Any]

# What each pattern asks for, to people.
PATTERNS_IN_WORDS = {
    ID_PATTERN: "1-128 of A-Z a-z 0-9 _ . : @ -, the first a letter or digit",
    LANGUAGE_PATTERN: "a language code like de or pt-BR",
    PAGE_PATTERN: "text without control characters",
}

METADATA_MAX_BYTES = 4096
# Whoever reads a session must be able to parse it: parsers give up at some depth, Python's own at about 1000.
METADATA_MAX_DEPTH = 32


class Status(StrEnum):
    """Where a session stands; the `status` column."""

    ACTIVE = "active"
    COMPLETED = "completed"
    ABANDONED = "abandoned"


class EndReason(StrEnum):
    """Why a session ended; the `end_reason` column."""

    COMPLETED = "completed"
    KICKED = "kicked"
    ABANDONED = "abandoned"
    CLEANUP = "cleanup"

    @property
    def status(self) -> Status:
        """The status that a session with this end has."""
        return Status.COMPLETED if self is EndReason.COMPLETED else Status.ABANDONED


class ConnectionKind(StrEnum):
    """How a session's current connection reaches us."""

    WS = "ws"
    HTTP = "http"


def new_session_id() -> str:
    """A fresh id. A UUID, since an old `presence` table may hold its ids in a uuid column."""
    return str(uuid.uuid4())


class SessionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of a session in Redis (`presence:{pool}:session:<sid>`); times are wall-clock ms.

    An absent field means null. `metadata` is JSON text.
    """

    session_id: str
    user_id: str
    pool: str
    status: Status
    started_at: int
    last_seen: int
    version: int
    is_in_interview: bool = False
    language_code: str | None = None
    current_page: str | None = None
    completed_at: int | None = None
    interview_started_at: int | None = None
    interview_ended_at: int | None = None
    waited_s: float | None = None
    end_reason: EndReason | None = None
    metadata: str | None = None
    node: str | None = None
    connection: ConnectionKind | None = None
    connection_id: str | None = None
    tab: str | None = None
    visible: bool | None = None
    waiting_since: int | None = None
