"""What a connected session costs one server process, since that decides how many it can hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.ground import Ground, Server
from benchmarks.load import Browser, connect, each, frame, hello, open_sessions
from benchmarks.table import Row, at_most

SESSIONS = 4000
WARM_UP = 200
JOIN_PARTS = 4
HEARTBEAT_PARTS = 5
HEARTBEAT_ROUNDS = 3
JOINS_AT_ONCE = 100
HEARTBEATS_AT_ONCE = 200
IDLE_S = 10.0
HEARTBEAT = frame(type="heartbeat", seq=12345)


@dataclass(slots=True, frozen=True)
class Cost:
    """KB and CPU µs of one session, in one server process."""

    kb: float
    join_us: float
    joins_per_s: float
    heartbeat_us: float
    idle_us_per_s: float


async def measure(ground: Ground) -> list[Row]:
    """KB and CPU µs per session, beside a bare echo that gets the same messages."""
    async with ground.store() as store:
        opened = await open_sessions(store, ground.sized(SESSIONS) + ground.sized(WARM_UP))
        hellos = [hello(one, ground.tokens) for one in opened]
        async with ground.floor() as server:
            floor = await _cost(ground, server, hellos, b"hello", b"heartbeat")
        async with ground.presence() as server:
            ours = await _cost(ground, server, hellos, b"welcome", b"ack")
    return [
        Row("memory per session", ours.kb, "KB", at_most(22), floor.kb),
        Row("join: handshake, hello, welcome", ours.join_us, "µs CPU", None, floor.join_us),
        Row("joins", ours.joins_per_s, "/s", None, floor.joins_per_s),
        Row("heartbeat", ours.heartbeat_us, "µs CPU", at_most(25), floor.heartbeat_us),
        Row("idle session", ours.idle_us_per_s, "µs CPU/s", None, floor.idle_us_per_s),
    ]


async def _cost(ground: Ground, server: Server, hellos: Sequence[bytes], welcome: bytes, ack: bytes) -> Cost:
    async def join(text: bytes) -> Browser:
        browser = await connect(server.ws_url)
        await browser.ask(text, welcome)
        return browser

    warm_up = ground.sized(WARM_UP)
    browsers = await each(hellos[:warm_up], join, JOINS_AT_ONCE)
    await _beat(browsers, ack)
    memory = server.rss_kb()
    join_us, joins_per_s = [], []
    for part in _parts(hellos[warm_up:]):
        spent = Spent(server)
        browsers += await each(part, join, JOINS_AT_ONCE)
        join_us.append(spent.us / len(part))
        joins_per_s.append(len(part) / spent.seconds)
    heartbeat_us = []
    for _ in range(HEARTBEAT_PARTS):
        spent = Spent(server)
        await _beat(browsers, ack, HEARTBEAT_ROUNDS)
        heartbeat_us.append(spent.us / (HEARTBEAT_ROUNDS * len(browsers)))
    spent = Spent(server)
    await asyncio.sleep(ground.lasting(IDLE_S))
    cost = Cost(
        kb=(server.rss_kb() - memory) / (len(browsers) - warm_up),
        join_us=median(join_us),
        joins_per_s=median(joins_per_s),
        heartbeat_us=median(heartbeat_us),
        idle_us_per_s=spent.us / spent.seconds / len(browsers),
    )
    for browser in browsers:
        browser.close()
    return cost


class Spent:
    """What a server has spent since now."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cpu_us, self._began = server.cpu_us(), time.perf_counter()

    @property
    def us(self) -> float:
        """CPU time in µs."""
        return self._server.cpu_us() - self._cpu_us

    @property
    def seconds(self) -> float:
        """Time that went by."""
        return time.perf_counter() - self._began


def _parts(hellos: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """A neighbour on the machine may disturb one part, but hardly the median of all."""
    size = -(-len(hellos) // JOIN_PARTS)
    return (hellos[start : start + size] for start in range(0, len(hellos), size))


async def _beat(browsers: Sequence[Browser], ack: bytes, rounds: int = 1) -> None:
    for _ in range(rounds):
        await each(browsers, lambda browser: browser.ask(HEARTBEAT, ack), HEARTBEATS_AT_ONCE)
