"""What each verb takes and returns: the items and replies of the Lua scripts, one pair a verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import msgspec

from server.domain.interview import Admission
from server.domain.pool import PoolState
from server.domain.session import ConnectionKind, EndReason, SessionRecord


class Item(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing to do. Many items of a verb travel in one script call."""

    session_id: str


class Open(Item, frozen=True):
    """Open a session, or resume the user's. `given`: the caller chose the id, and it is not to be replaced."""

    user_id: str
    given: bool = False
    language_code: str | None = None
    current_page: str | None = None
    metadata: str | None = None


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node or a token knows of a session, should Redis have forgotten it.

    `fence` is the highest ever seen; `holds`: the permit of that fence is held. `started_at` is wall-clock ms.
    """

    user_id: str
    started_at: int
    language_code: str | None = None
    fence: int | None = None
    holds: bool = False
    ticket: int | None = None


class Connect(Item, frozen=True):
    """A connection of a session: a WebSocket's hello, or the first heartbeat over HTTP.

    `token_expired`: the token was rightly signed but too old; it still reconnects within `resume_s`.
    `connection_id`: a node registers again a connection that it holds already.
    """

    node: str
    connection_id: str | None = None
    known: Known | None = None
    kind: ConnectionKind = ConnectionKind.WS
    tab: str | None = None
    attempt: int = 0
    page: str | None = None
    visible: bool | None = None
    token_expired: bool = False


class Beat(Item, frozen=True):
    """A heartbeat over HTTP of a connection made before."""

    connection_id: str
    page: str | None = None
    visible: bool | None = None


class Update(Item, frozen=True):
    """New values for a session. With a `connection_id` only if that is the current connection."""

    connection_id: str | None = None
    page: str | None = None
    visible: bool | None = None
    metadata: str | None = None


class Drop(Item, frozen=True):
    """A connection was lost. `cause`: `closed`, `timeout`, `bye`, `too_slow`, `replaced`, ..."""

    connection_id: str
    cause: str


class Look(Item, frozen=True):
    """Read a session. `sign_of_life`: an API key's poll, which counts until the browser has been seen."""

    sign_of_life: bool = False


class Claim(Item, frozen=True):
    """Claim a permit.

    `wait`: else a place in line will do. `accept`: only if it is offered. `takeover`: also if another session of the
    user has it. `sign_of_life` as in `Look`.
    """

    wait: bool = True
    accept: bool = False
    takeover: bool = False
    sign_of_life: bool = False


class Release(Item, frozen=True):
    """Give back the permit, or leave the line; with a `fence` only that permit."""

    fence: int | None = None


class Finish(Item, frozen=True):
    """End a session."""

    reason: EndReason
    fence: int | None = None


class Opened(msgspec.Struct, frozen=True):
    """The session that was opened or resumed."""

    session_id: str
    resumed: bool
    record: SessionRecord
    admission: Admission


class Connected(msgspec.Struct, frozen=True):
    """The new current connection. `resumed`: the session had been connected before."""

    connection_id: str
    resumed: bool
    record: SessionRecord
    admission: Admission
    state: PoolState


class Seen(msgspec.Struct, frozen=True):
    """A session as it stands. `online`: its deadline lies in the future."""

    record: SessionRecord
    admission: Admission
    online: bool


class Forget(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Erase a person. `session_ids`: past ones that rows tell of; `ended`, `events`: where to go on, if at all."""

    user_id: str
    session_ids: Sequence[str]
    ended: str | None = None
    events: str | None = None


class Forgot(msgspec.Struct, frozen=True):
    """A part of a person was erased. `version` is above all that the sessions had; `more`: there is more to do."""

    version: int
    more: bool
    erased: Sequence[str] = ()
    ended: str | None = None
    events: str | None = None


class Renewal(IntEnum):
    """What became of a connection that its node wanted to renew."""

    NO_LONGER_YOURS = 0
    RENEWED = 1
    REGISTER_AGAIN = 2


class Holder(msgspec.Struct, frozen=True):
    """A session with a permit: its fence, and since when (wall-clock ms)."""

    fence: int
    since: int


class Snapshot(msgspec.Struct, frozen=True):
    """A pool at one moment, from one script.

    `offers` and `line` are in the order of their tickets, and `offer_tickets` are those of the offers; `ready` are
    those of the line who would be let in now; `lengths` are those of past interviews in ms, the newest first.
    """

    state: PoolState
    last_event_id: str
    holders: Mapping[str, Holder]
    offers: list[str]
    line: list[str]
    ready: frozenset[str]
    lengths: list[int]
    offer_tickets: Sequence[int] = ()
