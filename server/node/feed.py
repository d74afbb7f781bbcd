"""The readers of this node's pools: each event is taken from the node's one follower, and encoded once for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from msgspec import structs

from server.domain.errors import PresenceError, TooManyReadersError
from server.domain.events import Event, EventType
from server.domain.pool import Capacity, PoolState
from server.live.store import Store
from server.live.stream import StreamId, newest
from server.live.verbs import Snapshot
from server.node.frames import event_message, message
from server.node.front import Fronts
from server.node.hub import Hub, LocalPool
from server.node.looks import Looks, Show
from server.node.reader import Reader, Wants

MOST_READERS = 100


class PoolFeed:
    """The readers of one pool. `live`: the last event that the node has heard of; None until it follows the pool."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.store = store
        self.live: StreamId | None = None
        self.looks: Looks | None = None
        self.fronts = Fronts(store, name)
        self.readers: set[Reader] = set()
        self._epoch: str | None = None

    def hear(self, event: Event) -> None:
        """Something happened."""
        if event.id is None:
            return
        self.live = StreamId.parse(event.id)
        if self.looks is not None and event.session_id is not None:
            self.looks.note_change(event.session_id)
        if event.type is EventType.WAITING and event.session_id is not None:
            self.fronts.forget(event.session_id)
        if self.readers:
            frame = event_message(event)
            for reader in list(self.readers):
                reader.hear(event, self.live, frame)

    def begin_anew(self, snapshot: Snapshot) -> None:
        """The node may have missed something."""
        is_same = snapshot.state.epoch == self._epoch
        self.live, self._epoch = StreamId.parse(snapshot.last_event_id), snapshot.state.epoch
        for reader in list(self.readers):
            reader.check_place(self.live, is_same=is_same)

    def who_want_capacity(self) -> Iterator[Reader]:
        """The readers that are told how full the pool is."""
        return (reader for reader in self.readers if reader.wants.capacity)

    def who_want_line(self) -> Iterator[Reader]:
        """The readers that are told of the line."""
        return (reader for reader in self.readers if reader.wants.line)

    def add(self, reader: Reader, show: Show) -> None:
        """Another one reads."""
        self.readers.add(reader)
        if reader.wants.sessions and self.looks is None:
            self.looks = Looks(self.store, self.name, show)

    def remove(self, reader: Reader) -> None:
        """One is gone; with the last one who reads sessions, what was remembered of them goes as well."""
        self.readers.discard(reader)
        if not any(each.wants.sessions for each in self.readers):
            self.looks = None


class Feed:
    """All readers of this node, by pool; `show` makes the object of a session."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._pools: dict[str, PoolFeed] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return sum(len(pool.readers) for pool in self._pools.values())

    def _pool(self, name: str) -> PoolFeed:
        if name not in self._pools:
            self._pools[name] = PoolFeed(self._store, name)
        return self._pools[name]

    # What the follower and the loops tell

    def on_event(self, name: str, event: Event) -> None:
        """Tell all readers of the pool, without waiting."""
        self._pool(name).hear(event)

    def on_resync(self, name: str, snapshot: Snapshot) -> None:
        """Events may have been missed: the stream knows which, if anybody does."""
        self._pool(name).begin_anew(snapshot)

    def wants_capacity(self, name: str) -> bool:
        """Whether anybody here wants to know how full the pool is."""
        return any(self._pool(name).who_want_capacity())

    def tell_capacity(self, pool: LocalPool, state: PoolState, *, is_news: bool) -> bool:
        """The pool stands like this; False if all readers knew."""
        shown = pool.capacity(state)
        counts = _counts(shown)
        readers = [
            reader for reader in self._pool(pool.name).who_want_capacity() if is_news or reader.told != counts
        ]
        frame = message("capacity", shown) if readers else b""
        for reader in readers:
            reader.told = counts
            reader.show("capacity", frame)
        return bool(readers)

    async def tell_line(self, pool: LocalPool) -> None:
        """Tell those who want to know what has changed of the line. Nothing is read while there are none."""
        feed = self._pool(pool.name)
        if not any(feed.who_want_line()):
            return
        with suppress(PresenceError):  # Redis is away: a second later this is tried again
            frame = await feed.fronts.frame(pool.line)
            if frame is not None:
                for reader in feed.who_want_line():
                    reader.show("line", frame)

    # Readers

    def check_room(self) -> None:
        """TooManyReadersError if nobody can read from this node now."""
        if self._is_closed:
            raise TooManyReadersError("This node is stopping; read from another one.")
        if len(self) >= MOST_READERS:
            raise TooManyReadersError(
                f"{MOST_READERS} read events from this node already, which is as many as may; try again soon."
            )

    async def open(
        self, name: str, wants: Wants, after: StreamId | None, *, show: Show, cut: Callable[[], None]
    ) -> Reader:
        """A reader of what happens in the pool `after` this event, or from now on. It must be closed.

        `cut` disconnects it at once. TooManyReadersError; RedisAwayError and its kin.
        """
        self.check_room()
        place = await newest(self._store, name) if after is None else (after, None)
        self.check_room()
        self._hub.pool(name)  # a pool that was made a moment ago is followed from now on
        pool = self._pool(name)
        reader = Reader(pool, wants, place, cut)
        pool.add(reader, show)
        try:
            await self._tell_first(reader, self._hub.pool(name))
        except BaseException:
            reader.close()
            raise
        return reader

    async def _tell_first(self, reader: Reader, pool: LocalPool) -> None:
        """How things stand, at once, unless something newer came meanwhile."""
        if reader.wants.capacity:
            state = await self._store.state(pool.name)
            if reader.told is None:
                self.tell_capacity(pool, state, is_news=False)
        if reader.wants.line:
            frame = await self._pool(pool.name).fronts.frame(pool.line)
            if frame is not None:
                reader.show("line", frame)

    def close(self) -> None:
        """End all streams, for good."""
        self._is_closed = True
        for pool in self._pools.values():
            for reader in list(pool.readers):
                reader.end()


def _counts(shown: Capacity) -> Capacity:
    """A capacity without what changes all the time."""
    return structs.replace(shown, as_of="", eta_s=None, eta_max_s=None)
