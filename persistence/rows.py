"""The rows of the tables that this package owns. Times are wall-clock ms, as the live state keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class PresenceRow(NamedTuple):
    """One row of `presence`: the state of a session at `version`.

    `metadata` is JSON text. Times end in `_ms` here and are `timestamptz` in SQL.
    """

    session_id: str
    user_id: str
    pool: str
    status: str
    version: int
    started_at_ms: int
    last_seen_ms: int
    is_in_interview: bool
    language_code: str | None = None
    current_page: str | None = None
    completed_at_ms: int | None = None
    interview_started_at_ms: int | None = None
    interview_ended_at_ms: int | None = None
    waited_s: float | None = None
    end_reason: str | None = None
    metadata: str | None = None


@dataclass(slots=True, frozen=True)
class PoolRow:
    """One row of `presence_pools`: a pool's limit and mode, as last flushed."""

    pool: str
    limit: int
    mode: str
