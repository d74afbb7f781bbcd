"""One page of sessions, newest first, merged from what is live and what is history. The live state wins."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec

from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.domain.session import Id, SessionRecord, Status
from server.http.problems import InvalidError
from server.live.verbs import Seen

# Where a session stands in the listing: (started_at in ms, session_id).
Key = tuple[int, str]
_GivenKey = tuple[Annotated[int, msgspec.Meta(ge=0, lt=2**53)], Id]
Row = TypeVar("Row")

_CHUNK = 200


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions are wanted; None means any."""

    status: Status | None = None
    online: bool | None = None
    language_code: str | None = None
    user_id: str | None = None

    @property
    def live_only(self) -> bool:
        """Whether history can't add anything: whoever is active or here is live."""
        return self.status is Status.ACTIVE or self.online is True

    def keep(self, record: SessionRecord, *, online: bool) -> bool:
        """Whether the session is wanted."""
        return (
            self.status in (None, record.status)
            and self.online in (None, online)
            and self.language_code in (None, record.language_code)
            and self.user_id in (None, record.user_id)
        )


class Page(msgspec.Struct, frozen=True):
    """The sessions of one page, and the key after which the next one begins (None on the last)."""

    sessions: list[Seen | PresenceRow]
    next: Key | None


LiveChunk = Callable[[Key | None, int], Awaitable[Sequence[Seen]]]


async def newest_first(
    live: LiveChunk, history: Repository | None, pool: str, filters: Filters, *, after: Key | None, limit: int
) -> Page:
    """Up to `limit` sessions behind `after`.

    Live ones are read first: a session that is flushed and forgotten meanwhile is then found in the history.
    """
    overruled: set[str] = set()

    def wanted(seen: Seen) -> bool:
        overruled.add(seen.record.session_id)
        return filters.keep(seen.record, online=seen.online)

    async def past(before: Key | None, count: int) -> Sequence[PresenceRow]:
        if history is None or filters.live_only:
            return ()
        return await history.sessions(
            pool,
            status=filters.status,
            language_code=filters.language_code,
            user_id=filters.user_id,
            before=before,
            limit=count,
        )

    here = await _collect(live, wanted, _live_key, after, limit + 1)
    gone = await _collect(past, lambda row: row.session_id not in overruled, _past_key, after, limit + 1)
    keyed: list[tuple[Key, Seen | PresenceRow]] = [(_live_key(seen), seen) for seen in here]
    keyed += [(_past_key(row), row) for row in gone]
    keyed.sort(key=lambda pair: pair[0], reverse=True)
    rest = len(keyed) > limit
    return Page([session for _, session in keyed[:limit]], keyed[limit - 1][0] if rest else None)


async def _collect(
    read: Callable[[Key | None, int], Awaitable[Sequence[Row]]],
    wanted: Callable[[Row], bool],
    key: Callable[[Row], Key],
    after: Key | None,
    enough: int,
) -> list[Row]:
    """Read on behind `after` until there are `enough` wanted ones, or no more."""
    found: list[Row] = []
    while len(found) < enough:
        chunk = await read(after, max(_CHUNK, enough))
        if not chunk:  # a short one is not the last: a session may have gone while it was read
            break
        found += filter(wanted, chunk)
        after = key(chunk[-1])
    return found[:enough]


def _live_key(seen: Seen) -> Key:
    return seen.record.started_at, seen.record.session_id


def _past_key(row: PresenceRow) -> Key:
    return row.started_at_ms, row.session_id


def cursor_of(key: Key) -> str:
    """An opaque text for `key`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def key_of(cursor: str) -> Key:
    """The key in `cursor`. InvalidError if it is none of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True)
        key: Key = msgspec.json.decode(text, type=_GivenKey)
    except ValueError as error:
        raise InvalidError("The cursor is not one that this server gave out.") from error
    return key
