"""A pool's event stream, read backwards and forwards: what came behind an event, and whether it is whole."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from server.domain.events import Event, EventType
from server.live.store import Store

EVENTS_PER_PAGE = 500
# An operator may have written entries of another kind: our own are looked for among the next so many.
ENTRIES_FOR_A_MARK = 10
MOST = 2**64 - 1
_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_TYPES = frozenset(EventType)


class StreamId(NamedTuple):
    """Where an entry stands in its stream; they only rise."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """An id as Redis writes it, `1732460000000-0` or `1732460000000`. ValueError if it is none."""
        found = _ID.fullmatch(text)
        parts = () if found is None else (int(found[1]), int(found[2] or 0))
        if not parts or max(parts) > MOST:
            raise ValueError(f"not the id of an event: {text[:60]!r}")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


BEGINNING = StreamId(0, 0)


class Mark(msgspec.Struct, frozen=True):
    """What every event has, whatever else it says."""

    type: str
    seq: int
    epoch: str


class LostError(Exception):
    """What lies between can't be told any more. `reason`: `trimmed`, `new_epoch` or `restored`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Entry(NamedTuple):
    """One entry of a stream."""

    id: StreamId
    fields: dict[str, str]

    def mark(self) -> Mark | None:
        """None: somebody else wrote it."""
        try:
            return msgspec.convert(self.fields, Mark, strict=False)
        except msgspec.ValidationError:
            return None

    def event(self) -> Event:
        """The event that it is."""
        return msgspec.convert({**self.fields, "id": str(self.id)}, Event, strict=False)


class Backlog:
    """The events behind `position`, page by page, and whether none is missing.

    `mark` is that of the event at `position`, if it is known.
    """

    def __init__(self, store: Store, pool: str, position: StreamId, mark: Mark | None = None) -> None:
        self._store = store
        self._key = store.keys(pool).events
        self.position = position
        self._epoch = None if mark is None else mark.epoch
        self._seq = None if mark is None else mark.seq

    async def page(self) -> tuple[list[Event], bool]:
        """The next events, and whether these are the last for now. LostError; RedisAwayError and its kin."""
        if self._epoch is None:
            await self._find_place()
        entries = await self._read("XRANGE", f"({self.position}", "+", EVENTS_PER_PAGE)
        marks = [entry.mark() for entry in entries]
        if self._leaves_a_gap(marks):
            # A forgotten person's events leave gaps as well, but never remove everything in front.
            await self._find_place()
        events = []
        for entry, mark in zip(entries, marks, strict=True):
            if mark is not None:
                self._go_on(mark)
                if mark.type in _TYPES:
                    events.append(entry.event())
            self.position = entry.id
        return events, len(entries) < EVENTS_PER_PAGE

    def _leaves_a_gap(self, marks: list[Mark | None]) -> bool:
        first = next((mark for mark in marks if mark is not None), None)
        return first is not None and (self._seq is None or first.seq != self._seq + 1)

    def _go_on(self, mark: Mark) -> None:
        if self._epoch is not None and mark.epoch != self._epoch:
            raise LostError("new_epoch")
        self._epoch, self._seq = mark.epoch, mark.seq

    async def _find_place(self) -> None:
        """Learn at which event we are; LostError if the stream does not reach back so far, or not up to here."""
        if self.position == BEGINNING:
            return
        newest = await self._read("XREVRANGE", "+", "-", ENTRIES_FOR_A_MARK)
        here = await self._read("XREVRANGE", str(self.position), "-", ENTRIES_FOR_A_MARK)
        if newest and newest[0].id < self.position:
            raise LostError("restored")
        if not here:
            raise LostError("trimmed")
        mark, last = _first_mark(here), _first_mark(newest)
        if mark is not None and last is not None and mark.epoch != last.epoch:
            raise LostError("new_epoch")
        if mark is not None:
            self._epoch = mark.epoch
            self._seq = mark.seq if here[0].id == self.position else None

    async def _read(self, command: str, start: str, end: str, count: int) -> list[Entry]:
        reply = await self._store.scripts.command(command, self._key, start, end, "COUNT", count)
        return _entries(reply)


async def newest(store: Store, pool: str) -> tuple[StreamId, Mark | None]:
    """Id and mark of the last event; the beginning if there is none."""
    key = store.keys(pool).events
    entries = _entries(await store.scripts.command("XREVRANGE", key, "+", "-", "COUNT", 1))
    return (entries[0].id, entries[0].mark()) if entries else (BEGINNING, None)


def _entries(reply: Any) -> list[Entry]:  # noqa: ANN401 - replies are what they are
    return [
        Entry(
            StreamId.parse(entry_id.decode()),
            {name.decode(): value.decode() for name, value in fields.items()},
        )
        for entry_id, fields in reply or ()
    ]


def _first_mark(entries: list[Entry]) -> Mark | None:
    return next((mark for entry in entries if (mark := entry.mark()) is not None), None)
