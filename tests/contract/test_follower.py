"""The event follower: in order, nothing missed, and a snapshot whenever something may have been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.domain.events import Event
from server.live.follower import Follower
from server.live.verbs import Snapshot
from tests.contract.conftest import POOL, Bench

PATIENCE_S = 5


class Heard:
    """What a follower told, in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | Snapshot] = asyncio.Queue()

    def on_event(self, pool: str, event: Event) -> None:
        assert pool == POOL
        self.queue.put_nowait(event)

    def on_resync(self, pool: str, snapshot: Snapshot) -> None:
        assert pool == POOL
        self.queue.put_nowait(snapshot)

    async def next(self) -> Event | Snapshot:
        return await asyncio.wait_for(self.queue.get(), PATIENCE_S)

    async def snapshot(self) -> Snapshot:
        heard = await self.next()
        assert isinstance(heard, Snapshot)
        return heard

    async def event(self) -> Event:
        heard = await self.next()
        assert isinstance(heard, Event)
        return heard


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def follower(bench: Bench, heard: Heard) -> AsyncIterator[Follower]:
    made = Follower(bench.store, on_event=heard.on_event, on_resync=heard.on_resync)
    made.watch(POOL)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.usefixtures("follower")
async def test_it_begins_with_a_snapshot_and_then_tells_each_event(bench: Bench, heard: Heard) -> None:
    snapshot = await heard.snapshot()
    await bench.open("a")
    await bench.claim("a")
    events = [await heard.event() for _ in range(2)]
    assert [event.type.value for event in events] == ["session_started", "granted"]
    assert [event.seq for event in events] == [snapshot.state.seq + 1, snapshot.state.seq + 2]
    assert events[1].session_id == "s-a"
    assert events[1].fence == (await bench.look("a")).admission.fence


@pytest.mark.usefixtures("follower")
async def test_a_gap_leads_to_a_new_snapshot(bench: Bench, heard: Heard) -> None:
    await heard.snapshot()
    await bench.redis.hincrby("presence:{main}:config", "seq", 1)
    await bench.open("a")
    assert (await heard.snapshot()).state.sessions == 1
    await bench.open("b")
    assert (await heard.event()).session_id == "s-b"


async def test_a_redis_that_came_back_empty_is_noticed(
    bench: Bench, heard: Heard, follower: Follower
) -> None:
    first = await heard.snapshot()
    await bench.open("a")
    await heard.event()
    await bench.redis.flushdb()
    await bench.set_clock(bench.wall_ms)
    await bench.configure()
    follower.notice(await bench.store.state(POOL))
    again = await heard.snapshot()
    assert again.state.epoch != first.state.epoch
    await bench.open("b")
    assert (await heard.event()).session_id == "s-b"


@pytest.mark.usefixtures("follower")
async def test_entries_of_others_and_events_of_newer_nodes_are_passed_over(
    bench: Bench, heard: Heard
) -> None:
    await heard.snapshot()
    stream = "presence:{main}:events"
    await bench.redis.xadd(stream, {"note": "an operator was here"})
    state = await bench.store.state(POOL)
    await bench.redis.hincrby("presence:{main}:config", "seq", 1)
    await bench.redis.xadd(
        stream, {"type": "from_the_future", "seq": state.seq + 1, "epoch": state.epoch, "at": 1}
    )
    await bench.open("a")
    assert (await heard.event()).session_id == "s-a"
