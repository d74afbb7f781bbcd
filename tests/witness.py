"""Watches a pool in Redis from outside, by its documented keys only, and holds it against the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

POOL = "presence:{main}:"
HOLDS_NO_MORE = {"released", "completed", "kicked", "abandoned"}
CLOCKS = ("now", "wall")


def client(url: str) -> Any:  # noqa: ANN401 - redis-py's types say less than nothing
    """A Redis client of our own."""
    return Redis.from_url(url, decode_responses=True)


@dataclass(slots=True)
class Look:
    """What stood in Redis at one moment."""

    holders: int
    waiting: int


@dataclass(slots=True)
class Watch:
    """Everything that was seen of holders and line while watching, from one transaction a look."""

    limit: int
    looks: int = 0
    fewest_while_waiting: int = 1_000_000
    most: int = 0
    broken: list[Look] = field(default_factory=list)

    def take(self, look: Look) -> None:
        """Count a look in."""
        self.looks += 1
        self.most = max(self.most, look.holders)
        if look.waiting:
            self.fewest_while_waiting = min(self.fewest_while_waiting, look.holders)
        if look.holders > self.limit or (look.waiting and look.holders < self.limit):
            self.broken.append(look)


async def look(redis: Any) -> Look:  # noqa: ANN401
    """Holders and waiters at one moment."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zcard(POOL + "interviews")
        pipe.zcard(POOL + "line")
        holders, waiting = await pipe.execute()
    return Look(holders, waiting)


@asynccontextmanager
async def watching(url: str, limit: int, pause_s: float = 0.001) -> AsyncIterator[Watch]:
    """Look again and again: never more holders than `limit`, and never fewer while somebody waits."""
    watch, over = Watch(limit), asyncio.Event()

    async def run() -> None:
        async with client(url) as redis:
            while not over.is_set():
                watch.take(await look(redis))
                await asyncio.sleep(pause_s)

    # Ended by a flag: redis-py may swallow a cancellation in the middle of a command.
    task = asyncio.create_task(run(), name="witness")
    try:
        yield watch
    finally:
        over.set()
        await task


async def events(redis: Any) -> list[dict[str, str]]:  # noqa: ANN401
    """The whole stream of the pool."""
    return [fields for _, fields in await redis.xrange(POOL + "events")]


async def holders(redis: Any) -> set[str]:  # noqa: ANN401
    """Who holds a permit."""
    return set(await redis.zrange(POOL + "interviews", 0, -1))


async def line(redis: Any) -> list[str]:  # noqa: ANN401
    """Who waits, in order."""
    return list(await redis.zrange(POOL + "line", 0, -1))


@dataclass(slots=True)
class Replayed:
    """What the stream says that happened."""

    holders: dict[str, int] = field(default_factory=dict)
    most: int = 0
    grants: int = 0


def replay(stream: Iterable[dict[str, str]]) -> Replayed:
    """Follow the stream. Fails on a gap, a change of epoch, a fence that does not rise, a permit given twice."""
    story, seq, epoch, fence = Replayed(), 0, "", 0
    for event in stream:
        assert int(event["seq"]) == seq + 1, f"a gap before {event}"
        assert not epoch or event["epoch"] == epoch
        seq, epoch = seq + 1, event["epoch"]
        who = event.get("session_id", "")
        if event["type"] == "granted":
            assert int(event["fence"]) > fence, f"the fence did not rise: {event}"
            assert who not in story.holders, f"granted twice: {event}"
            fence = story.holders[who] = int(event["fence"])
            story.grants += 1
            story.most = max(story.most, len(story.holders))
        elif event["type"] in HOLDS_NO_MORE:
            story.holders.pop(who, None)
    return story


async def picture(redis: Any) -> dict[str, Any]:  # noqa: ANN401
    """All that is in Redis but what moves by itself: the clocks, the deadlines of those renewed, who flushes."""
    shown: dict[str, Any] = {}
    for key in sorted(await redis.keys("*")):
        match await redis.type(key):
            case "hash":
                shown[key] = await redis.hgetall(key)
            case "zset":
                shown[key] = dict(await redis.zrange(key, 0, -1, withscores=True))
            case "set":
                shown[key] = await redis.smembers(key)
            case "string":
                shown[key] = await redis.get(key)
            case "stream":
                shown[key] = await redis.xrange(key)
    for clock in CLOCKS:
        shown.get(POOL + "config", {}).pop(clock, None)
    shown[POOL + "online"] = set(shown.get(POOL + "online", ()))
    return shown
