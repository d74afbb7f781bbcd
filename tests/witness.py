"""Watches a pool in Redis from outside, by its documented keys only, and holds it against the rules."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

from redis.asyncio import Redis

from tests.model.invariants import CARRIED_OVER
from tests.model.replay import Replay

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
    """All that is in Redis but what moves by itself: the clocks, the deadlines of those renewed, who flushes.

    And but the tallies, which count also what was refused.
    """
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
    shown.pop(POOL + "tallies", None)
    shown[POOL + "online"] = set(shown.get(POOL + "online", ()))
    return shown


# The observer of a whole cluster: the stream of events, each held against the rules, and every few milliseconds what
# stands in Redis, held against what the stream has told.

LISTEN_MS = 20
SETS = ("interviews", "offers", "line", "ready", "grace")
SAMPLE = """
local pool, config = ARGV[1], {}
local flat = redis.call('HGETALL', pool .. 'config')
for i = 1, #flat, 2 do
  config[flat[i]] = flat[i + 1]
end
local time = redis.call('TIME')
local passed = time[1] * 1000 + math.floor(time[2] / 1000) - config.wall
local now = config.now + math.max(0, math.min(passed, tonumber(config.max_step_ms)))
local sets = {}
for i = 2, #ARGV do
  sets[ARGV[i]] = redis.call('ZRANGE', pool .. ARGV[i], 0, -1, 'WITHSCORES')
end
local here = 0
for i = 1, #sets.ready, 2 do
  if tonumber(redis.call('ZSCORE', pool .. 'online', sets.ready[i]) or 0) > now then
    here = here + 1
  end
end
return cjson.encode({
  seq = tonumber(config.seq), now = now, limit = tonumber(config.limit), mode = config.mode,
  grace_min_ms = config.permit_grace_min_s * 1000, here = here, sets = sets,
})
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What stood in Redis at one moment, just after event `seq`. `now` is the pool's clock (ms).

    `interviews` maps to deadlines, `grace` to when the connection was lost, the others to tickets; `here`: how many
    of the ready are still present.
    """

    seq: int
    now: float
    limit: int
    mode: str
    grace_min_ms: float
    here: int
    interviews: Mapping[str, float]
    offers: Mapping[str, float]
    line: Mapping[str, float]
    ready: Mapping[str, float]
    grace: Mapping[str, float]

    def idle(self) -> set[str]:
        """The places that the next in line should have: one that is free, and those whose time is over."""
        if self.mode != "open" or not self.here:
            return set()
        over = {who for who, until in self.interviews.items() if until <= self.now}
        over |= {who for who, lost_at in self.grace.items() if lost_at <= self.now - self.grace_min_ms}
        return over if len(self.interviews) >= self.limit else over | {"a free place"}


async def sample(redis: Any) -> Sample:  # noqa: ANN401
    """All that the rules are about, read by one script."""
    read: dict[str, Any] = json.loads(await redis.eval(SAMPLE, 0, POOL, *SETS))
    read |= {name: dict(_scores(flat)) for name, flat in read.pop("sets").items()}
    return Sample(**read)


def _scores(flat: Iterable[str]) -> Iterator[tuple[str, float]]:
    members = iter(flat)
    return ((member, float(next(members))) for member in members)


@dataclass(slots=True)
class Observer:
    """Hears each event and sees samples in between, in their order; what breaks a rule is kept in `faults`.

    `allowed`: the limit, or while a lowered one drains the number of places that are still taken. `returned_at`: when
    (ms since 1970) somebody came back to the front of the line; `ever_reclaimed`: who could. `longest_idle_ms`: how
    long a place was seen idle while a ready waiter waited.
    """

    replay: Replay = field(default_factory=Replay)
    limit: int | None = None
    mode: str = "open"
    allowed: int = 0
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    returned_at: list[int] = field(default_factory=list)
    ever_reclaimed: set[str] = field(default_factory=set)
    longest_idle_ms: float = 0.0
    most: int = 0
    _fence: int = 0
    _newest_ticket: int = 0
    _ready: dict[str, float] = field(default_factory=dict)
    _reclaimed: set[str] = field(default_factory=set)
    _idle_since: dict[str, float] = field(default_factory=dict)

    # Events

    @property
    def places(self) -> int:
        """Permits and offers, by the stream."""
        return len(self.replay.holders) + len(self.replay.offers)

    def hear(self, event: Mapping[str, str]) -> None:
        """The next event."""
        kind, who = event["type"], event.get("session_id", "")
        self.counts[kind] += 1
        self._ready.pop(who, None)
        if kind in {"granted", "offered"} and event.get("cause") not in CARRIED_OVER:
            self._judge_admission(event, who)
        if kind == "granted":
            self._judge_fence(event)
        if kind == "waiting":
            self._judge_ticket(event, who)
        self._note_reclaimed(event, who)
        self.replay.apply(event)
        if kind == "pool_changed":
            self._take_change(event["cause"])
        self._judge_limit(event)

    def _judge_admission(self, event: Mapping[str, str], who: str) -> None:
        """A place is taken, unless it is that of an offer: in an open pool, by the first of those who are ready."""
        if who in self.replay.offers:
            return
        if self.mode != "open":
            self.faults.append(f"let in while {self.mode}: {event}")
        # Without a ticket it was let in by its very claim: with a new ticket, or with one in front of all.
        ticket = self.replay.tickets.get(who, -inf if who in self._reclaimed else inf)
        overtaken = {other: has for other, has in self._ready.items() if has < ticket}
        if overtaken:
            self.faults.append(f"with ticket {ticket} {event} overtook {overtaken}")

    def _judge_fence(self, event: Mapping[str, str]) -> None:
        if int(event["fence"]) <= self._fence:
            self.faults.append(f"the fence did not rise above {self._fence}: {event}")
        self._fence = int(event["fence"])

    def _judge_ticket(self, event: Mapping[str, str], who: str) -> None:
        """A new ticket is the last of all, or the first if its bearer's permit was reclaimed."""
        ticket = int(event["ticket"])
        if event.get("cause") in CARRIED_OVER:
            return
        if ticket > self._newest_ticket:
            self._newest_ticket = ticket
        elif who in self._reclaimed:
            self.returned_at.append(int(event["at"]))
        else:
            self.faults.append(f"an old ticket, and no return: {event}")

    def _note_reclaimed(self, event: Mapping[str, str], who: str) -> None:
        if event["type"] == "released" and event.get("cause") == "grace":
            self._reclaimed.add(who)
            self.ever_reclaimed.add(who)
        elif event["type"] in {"waiting", "granted"}:
            self._reclaimed.discard(who)

    def _take_change(self, cause: str) -> None:
        change = dict(word.split("=", 1) for word in cause.split() if "=" in word)
        self.mode = change.get("mode", self.mode)
        if "limit" in change:
            self.limit = int(change["limit"])
            self.allowed = max(self.limit, self.places)

    def _judge_limit(self, event: Mapping[str, str]) -> None:
        self.most = max(self.most, self.places)
        if self.limit is None:
            return
        if self.places > self.allowed:
            self.faults.append(f"{self.places} places with {self.allowed} allowed by {event}")
        if event["type"] != "taken_over":  # the place is about to be another session's
            self.allowed = max(self.limit, min(self.allowed, self.places))

    # Samples

    def see(self, sample: Sample) -> None:
        """What stands in Redis after the events heard so far."""
        self.counts["sample"] += 1
        if self.limit is None:
            self.limit = self.allowed = sample.limit
        self._compare(sample)
        if len(sample.interviews) > self.allowed:
            self.faults.append(f"{len(sample.interviews)} places with {self.allowed} allowed: {sample}")
        self._ready = dict(sample.ready)
        self._judge_idle(sample)

    def _compare(self, sample: Sample) -> None:
        told = (self.limit, self.mode, set(self.replay.holders), self.replay.offers, self.replay.tickets)
        holders = sample.interviews.keys() - sample.offers.keys()
        if told != (sample.limit, sample.mode, holders, sample.offers, sample.line):
            self.faults.append(f"the stream tells {told}, but there is {sample}")

    def _judge_idle(self, sample: Sample) -> None:
        self._idle_since = {place: self._idle_since.get(place, sample.now) for place in sample.idle()}
        longest = max((sample.now - since for since in self._idle_since.values()), default=0.0)
        self.longest_idle_ms = max(self.longest_idle_ms, longest)


@asynccontextmanager
async def observing(url: str) -> AsyncIterator[Observer]:
    """Follow the stream of a pool that exists, and look at it after each news and every few milliseconds."""
    observer, over = Observer(), asyncio.Event()
    task = asyncio.create_task(_observe(url, observer, over), name="observer")
    try:
        yield observer
    finally:
        over.set()
        await task


async def _observe(url: str, observer: Observer, over: asyncio.Event) -> None:
    last_id, unread = "0-0", deque[Mapping[str, str]]()
    async with client(url) as redis:
        is_last = False
        while not is_last:
            is_last = over.is_set()
            seen = await sample(redis)
            for event_id, event in await _news(redis, last_id):
                last_id = event_id
                unread.append(event)
            while unread and int(unread[0]["seq"]) <= seen.seq:
                observer.hear(unread.popleft())
            observer.see(seen)


async def _news(redis: Any, last_id: str) -> list[tuple[str, dict[str, str]]]:  # noqa: ANN401
    reply = await redis.xread({POOL + "events": last_id}, block=LISTEN_MS)
    if not reply:
        return []
    return list(next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1])
