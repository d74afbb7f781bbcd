"""How long news takes on an idle machine, since that is what people see: a place freed, somebody gone."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from benchmarks.ground import POOL, Ground
from benchmarks.load import Browser, connect, each, frame, hello, open_sessions, percentile
from benchmarks.table import Row, at_most
from server.domain.pool import PoolChanges
from server.live.store import Store

BROWSERS = 100
HAND_OVERS = 200
CLOSED_TABS = 60
WATCHED_LEAVES = 15
QUIET_S = 0.005
# Watchers are told twice a second at most; who waits a little longer is told at once.
COALESCED_S = 0.6

ENTER, LEAVE, WATCH = frame(type="enter"), frame(type="leave"), frame(type="watch")
GRANTED, WAITING, GAVE_UP = b'"granted"', b'"waiting","message"', b'"none","message"'


async def measure(ground: Ground) -> list[Row]:
    """p50 and p99 in ms: a freed place at the next browser; a leave at a follower of the stream and at a watcher."""
    async with ground.store(PoolChanges(limit=1, offer_s=0)) as store, ground.presence() as server:
        opened = await open_sessions(store, ground.sized(BROWSERS))

        async def join(text: bytes) -> Browser:
            browser = await connect(server.ws_url)
            await browser.ask(text, b"welcome")
            return browser

        browsers = await each([hello(one, ground.tokens) for one in opened], join, 1)
        handed = await _hand_over(browsers, ground.sized(HAND_OVERS))
        watched = await _watch_leaves(browsers, max(2, round(WATCHED_LEAVES * ground.scale)))
        closed = await _close_tabs(store, browsers[: ground.sized(CLOSED_TABS)])
    return [
        *_rows("freed place at the next browser", handed, 50),
        *_rows("closed tab in the pool's events", closed, 20),
        *_rows("leave at a watcher", watched, 20),
    ]


def _rows(name: str, seconds: list[float], goal_ms: float) -> list[Row]:
    return [
        Row(f"{name}, p50", percentile(seconds, 0.5) * 1e3, "ms", at_most(goal_ms)),
        Row(f"{name}, p99", percentile(seconds, 0.99) * 1e3, "ms", at_most(goal_ms)),
    ]


async def _hand_over(browsers: list[Browser], times: int) -> list[float]:
    """From the holder's `leave` until the next in line reads that it is granted; the holder then queues up again."""
    line = deque(browsers)
    await line[0].ask(ENTER, GRANTED)
    for browser in browsers[1:]:
        await browser.ask(ENTER, WAITING)
    seconds = []
    for _ in range(times):
        holder = line.popleft()
        granted = line[0].expect(GRANTED)
        began = time.perf_counter()
        await holder.ask(LEAVE, GAVE_UP)
        seconds.append(await granted - began)
        await holder.ask(ENTER, WAITING)
        line.append(holder)
        await asyncio.sleep(QUIET_S)
    for browser in line:
        await browser.ask(LEAVE, GAVE_UP)
    return seconds


async def _watch_leaves(browsers: list[Browser], times: int) -> list[float]:
    """From a holder's `leave` until a browser that watches reads the new capacity."""
    holder, watcher = browsers[-1], browsers[-2]
    await watcher.ask(WATCH, b'"capacity"')
    seconds = []
    for _ in range(times):
        await holder.ask(ENTER, GRANTED)
        await asyncio.sleep(COALESCED_S)
        told = watcher.expect(b'"active":0')
        began = time.perf_counter()
        holder.send(LEAVE)
        seconds.append(await told - began)
        await asyncio.sleep(COALESCED_S)
    return seconds


async def _close_tabs(store: Store, browsers: list[Browser]) -> list[float]:
    """From the closing of a socket until somebody who follows the pool's events reads `disconnected`."""
    seconds = []
    last = (await store.snapshot(POOL)).last_event_id
    for browser in browsers:
        await asyncio.sleep(QUIET_S)
        began = time.perf_counter()
        browser.close()
        last = await _next_disconnect(store, last)
        seconds.append(time.perf_counter() - began)
    return seconds


async def _next_disconnect(store: Store, last: str) -> str:
    key = store.keys(POOL).events
    while True:
        reply = await store.scripts.command("XREAD", "BLOCK", 1500, "STREAMS", key, last)
        if not reply:
            raise RuntimeError("a closed tab was not noticed")
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        last = entries[-1][0].decode()
        if any(fields[b"type"] == b"disconnected" for _, fields in entries):
            return last
