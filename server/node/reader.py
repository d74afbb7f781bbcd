"""One reader of a pool's events: what it wants, what it has yet to get, and its way from the past into the present."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import msgspec
import structlog

from server.domain.errors import PresenceError
from server.domain.events import Event
from server.live.store import Store
from server.live.stream import Backlog, LostError, Mark, StreamId, newest
from server.node import frames
from server.node.looks import Looks

log = structlog.get_logger(__name__)

ALIVE_EVERY_S = 15.0
RETRY_S = 0.5
MOST_FRAMES = 1000
MOST_BYTES = 1024 * 1024
SESSIONS_AT_ONCE = 100
MOST_SESSIONS = 50_000


@dataclass(slots=True, frozen=True)
class Wants:
    """Which types of events (None: all), and what else."""

    types: frozenset[str] | None = None
    capacity: bool = False
    sessions: bool = False
    line: bool = False

    def event(self, event: Event) -> bool:
        """Whether this event is wanted."""
        return self.types is None or event.type in self.types


class Reset(msgspec.Struct, frozen=True):
    """What was missed can't be told: `trimmed`, `new_epoch` or `restored`. Read anew how things stand."""

    reason: str


class Source(Protocol):
    """Where a reader gets from: a pool of this node."""

    name: str
    store: Store
    live: StreamId | None
    looks: Looks | None

    def remove(self, reader: Reader) -> None:
        """The reader is gone."""


class Reader:
    """Hands over, as bytes: first what is behind its place in the stream, then what happens, as the node hears it.

    What it did not take yet is bounded: of capacity and line there is only the newest, of changed sessions only their
    ids, and with too many events waiting the reader is cut off. It comes back, and resumes behind the last id it got.
    """

    def __init__(
        self, source: Source, wants: Wants, place: tuple[StreamId, Mark | None], cut: Callable[[], None]
    ) -> None:
        self.wants = wants
        self.told: object = None  # the capacity that it was told last
        self._source = source
        self._cut = cut
        self._place = place[0]
        self._backlog: Backlog | None = Backlog(source.store, source.name, *place)
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._newest: dict[str, bytes] = {}
        self._shown: dict[str, bytes] = {}
        self._changed: dict[str, None] = {}
        self._news = asyncio.Event()
        self._is_writing = False
        self._has_ended = False

    # What the node tells; none of it waits.

    def hear(self, event: Event, event_id: StreamId, frame: bytes) -> None:
        """Something happened. While it is still behind, the reader will find it in the stream."""
        if self._backlog is not None or event_id <= self._place:
            return
        self._place = event_id
        self._note_session(event)
        if self.wants.event(event):
            self._queue.append(frame)
            self._queued_bytes += len(frame)
        self._news.set()
        if len(self._queue) > MOST_FRAMES or self._queued_bytes > MOST_BYTES:
            self.cut_off("too_slow")

    def show(self, what: str, frame: bytes) -> None:
        """How something stands; what was not taken yet of it is out of date. What it knows, it is not told again."""
        if self._shown.get(what) != frame:
            self._shown[what] = self._newest[what] = frame
            self._news.set()

    def check_place(self, live: StreamId, *, is_same: bool) -> None:
        """The node begins anew at `live`. Unless it is where it was, the stream itself tells what came between."""
        if self._backlog is None and not (is_same and self._place == live):
            self._backlog = Backlog(self._source.store, self._source.name, self._place)
        self._news.set()

    def end(self) -> None:
        """The stream ends; at once, also for who does not read."""
        self._has_ended = True
        self._news.set()
        if self._is_writing:
            self._cut()

    def cut_off(self, why: str) -> None:
        """Disconnect one who does not read as fast as things happen."""
        if not self._has_ended:
            log.info("event_reader_cut_off", pool=self._source.name, why=why, waiting=len(self._queue))
        self._has_ended = True
        self._cut()
        self.close()

    def close(self) -> None:
        """The reader is gone; may be repeated."""
        self._has_ended = True
        self._source.remove(self)
        self._queue.clear()
        self._newest.clear()
        self._changed.clear()

    # What the connection takes.

    async def frames(self) -> AsyncIterator[bytes]:
        """All that there is to tell, until the end."""
        loop = asyncio.get_running_loop()
        alive_due = loop.time() + ALIVE_EVERY_S
        chunk = [frames.opening(str(self._place))]
        while not self._has_ended:
            self._news.clear()
            chunk += self._take()
            if self._backlog is not None:
                chunk += await self._catch_up(self._backlog)
            place = self._place  # while sessions are read, more may be queued
            chunk += await self._sessions()
            if loop.time() >= alive_due:
                chunk.append(frames.alive(str(place)))
                alive_due = loop.time() + ALIVE_EVERY_S
            if chunk:
                self._is_writing = True
                yield b"".join(chunk)
                self._is_writing = False
                chunk = []
            else:
                await self._wait(min(alive_due, self._sessions_due()))

    def _take(self) -> list[bytes]:
        taken = [*self._queue, *self._newest.values()]
        self._queue.clear()
        self._queued_bytes = 0
        self._newest.clear()
        return taken

    async def _wait(self, until: float) -> None:
        now = asyncio.get_running_loop().time()
        longest = math.inf if self._backlog is None else RETRY_S
        with suppress(TimeoutError):
            async with asyncio.timeout(min(longest, max(0.0, until - now))):
                await self._news.wait()

    # Out of the past

    async def _catch_up(self, backlog: Backlog) -> list[bytes]:
        """The next page of what was missed; with the last one, the reader joins those whom the node tells."""
        live = self._source.live
        try:
            events, is_end = await backlog.page()
        except LostError as lost:
            return await self._reset(lost.reason)
        except PresenceError as error:
            log.debug("event_reader_waits", pool=self._source.name, error=error.code)
            return []
        self._place = backlog.position
        for event in events:
            self._note_session(event)
        if is_end and live is not None:
            self._place = max(self._place, live)
        self._join()
        if events or not is_end:
            self._news.set()  # there may be more, even if nothing of this is wanted
        return [frames.event_message(event) for event in events if self.wants.event(event)]

    def _join(self) -> None:
        live = self._source.live
        if live is not None and self._place >= live:
            self._backlog = None
        elif self._backlog is not None:
            self._backlog.position = self._place

    async def _reset(self, reason: str) -> list[bytes]:
        try:
            place, mark = await newest(self._source.store, self._source.name)
        except PresenceError:
            return []
        log.info("event_reader_reset", pool=self._source.name, reason=reason)
        self._place = place
        self._backlog = Backlog(self._source.store, self._source.name, place, mark)
        self._news.set()
        return [frames.message("reset", Reset(reason)), frames.place(str(place))]

    # Sessions

    def _note_session(self, event: Event) -> None:
        if not self.wants.sessions or event.session_id is None or self._source.looks is None:
            return
        self._source.looks.note_change(event.session_id)
        self._changed[event.session_id] = None
        if len(self._changed) > MOST_SESSIONS:
            self.cut_off("too_many_sessions")

    async def _sessions(self) -> list[bytes]:
        """Some of the changed sessions as they are now."""
        looks = self._source.looks
        if not self._changed or looks is None:
            return []
        now = asyncio.get_running_loop().time()
        some = islice(self._changed, 2 * SESSIONS_AT_ONCE)
        due = [session_id for session_id in some if looks.due(session_id) <= now][:SESSIONS_AT_ONCE]
        for session_id in due:
            del self._changed[session_id]
        told = await looks.tell(due)
        for session_id in due:
            if not looks.is_known(session_id):
                self._changed[session_id] = None
        return list(told.values())

    def _sessions_due(self) -> float:
        looks = self._source.looks
        if looks is None:
            return math.inf
        some = islice(self._changed, 2 * SESSIONS_AT_ONCE)
        return min((looks.due(session_id) for session_id in some), default=math.inf)
