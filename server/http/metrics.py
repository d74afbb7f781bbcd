"""Metrics for Prometheus: of each pool from Redis, the same whatever node is asked; of this node, what it measured."""

from __future__ import annotations

import asyncio
import platform
import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from persistence.errors import SourceAwayError
from persistence.port import Backlog
from server.domain.errors import PresenceError, RedisAwayError
from server.domain.events import EventType
from server.domain.pool import DEFAULT_POOL, Mode, PoolState
from server.http.auth import Access
from server.http.routing import Answer, Call, Operation, operation
from server.live.dirty import StoreDirtySessions
from server.measure.exposition import alone
from server.measure.instruments import OTHER
from server.node.node import Node

MOST_POOLS = 100
MOST_CAUSES = 32
# A claim without one is denied for none, a permit may be given back for none.
NO_CAUSE = "none"
_CAUSE = re.compile(r"[a-z_]{1,32}")

# Name and meaning of the gauges that are fields of a pool's state.
_OF_A_STATE = {
    "limit": "Permits that may be held at the same time",
    "active": "Permits held, including those in grace",
    "offered": "Permits reserved for a waiter",
    "available": "Places that a claim could take now",
    "waiting": "Sessions in line",
    "online": "Sessions that are present",
    "recovering": "1 while the pool grants nothing, since Redis lost its memory of it",
}
# Of a pool's events: how many there were, by type and cause.
Causes = Mapping[str, Mapping[str, int]]
# The events by which somebody goes, or loses something.
_LEAVING = ("disconnected", "offline", "released", "left_line", "abandoned")


@dataclass(frozen=True, slots=True)
class Reading:
    """A pool at one moment. `backlog`: what waits to be written, if there is a Postgres."""

    state: PoolState
    tallies: Mapping[str, int]
    in_grace: int
    ready: int
    backlog: Backlog | None

    @property
    def phases(self) -> dict[str, int]:
        """All sessions that have not ended, each in one phase."""
        state = self.state
        standing = state.active + state.offered + state.waiting
        return {
            "in_interview": max(0, state.active - self.in_grace),
            "in_grace": self.in_grace,
            "offered": state.offered,
            "ready": self.ready,
            "not_ready": max(0, state.waiting - self.ready),
            "elsewhere": max(0, state.sessions - standing),
        }


@operation("GET", "/metrics", Access.METRICS, answers={200: bytes}, media_type=CONTENT_TYPE_PLAIN_0_0_4)
async def get_metrics(call: Call[None, None]) -> Answer:
    """Metrics for Prometheus."""
    node = call.node
    # One after the other: whoever may ask can't make many of Redis's calls by asking often.
    async with node.measured.scraping:
        of_pools = await _of_the_pools(node)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready([*of_pools, *_of_the_node(node), _build()]))
    return Answer(generate_latest(registry))


OPERATIONS: tuple[Operation, ...] = (get_metrics,)


class _Ready(Collector):
    """What was measured just now."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _of_the_node(node: Node) -> Iterable[Metric]:
    """This process's, or those of all workers beside it."""
    return alone(node.measured) if node.shared is None else node.shared.together(node.measured)


@cache
def _build() -> Metric:
    family = GaugeMetricFamily(
        "presence_build_info", "What runs here; always 1", labels=("version", "python")
    )
    family.add_metric((version("interview-presence"), platform.python_version()), 1)
    return family


async def _of_the_pools(node: Node) -> list[Metric]:
    """The pools' metrics, and whether Redis could be asked for them."""
    up = GaugeMetricFamily("presence_redis_up", "1 while Redis answers")
    try:
        names = await node.store.pool_names()
        readings = await asyncio.gather(*(_read(node, name) for name in shown_pools(names)))
    except PresenceError:
        up.add_metric([], 0)
        return [up]
    up.add_metric([], 1)
    number = GaugeMetricFamily(
        "presence_pools", "Pools that there are, of which some may not be shown", len(names)
    )
    return [up, number, *families([each for each in readings if each is not None])]


def shown_pools(names: Sequence[str]) -> list[str]:
    """The pools that get series of their own: the default one, then by name."""
    return sorted(names, key=lambda name: (name != DEFAULT_POOL, name))[:MOST_POOLS]


async def _read(node: Node, name: str) -> Reading | None:
    """None: it is gone, or somebody put another kind of key there."""
    store, keys = node.store, node.store.keys(name)
    try:
        state, tallies, in_grace, ready = await asyncio.gather(
            store.state(name),
            store.tallies(name),
            store.scripts.command("ZCARD", f"{keys.prefix}grace"),
            store.scripts.command("ZCARD", f"{keys.prefix}ready"),
        )
        backlog = None if node.flusher is None else await StoreDirtySessions(store).backlog(name)
    except RedisAwayError:
        raise
    except SourceAwayError as error:
        raise RedisAwayError(str(error)) from error
    except PresenceError:
        return None
    return Reading(state, tallies, in_grace, ready, backlog)


def families(readings: Sequence[Reading]) -> Iterator[Metric]:
    """What is true of the pools, whatever node is asked."""
    for name, meaning in _OF_A_STATE.items():
        yield _gauge(name, meaning, {(each.state.pool,): getattr(each.state, name) for each in readings})
    yield _gauge(
        "offline",
        "Sessions that are not present, and have not ended",
        {(each.state.pool,): max(0, each.state.sessions - each.state.online) for each in readings},
    )
    yield _gauge(
        "sessions",
        "Sessions that have not ended, by how they stand towards the limit",
        {(each.state.pool, phase): count for each in readings for phase, count in each.phases.items()},
        ("phase",),
    )
    yield _gauge(
        "mode",
        "1 for the mode that the pool is in",
        {(each.state.pool, mode.value): mode is each.state.mode for each in readings for mode in Mode},
        ("mode",),
    )
    yield from _of_the_flush([each for each in readings if each.backlog is not None])
    yield from _of_the_tallies(readings)


def _of_the_flush(readings: Sequence[Reading]) -> Iterator[Metric]:
    waiting = {each.state.pool: each.backlog for each in readings if each.backlog is not None}
    if waiting:
        yield _gauge(
            "flush_backlog",
            "Sessions that wait to be written to Postgres",
            {(pool,): backlog.sessions for pool, backlog in waiting.items()},
        )
        yield _gauge(
            "flush_lag_seconds",
            "Age of the oldest change that is not in Postgres",
            {(pool,): backlog.oldest_age_ms / 1000 for pool, backlog in waiting.items()},
        )


def _of_the_tallies(readings: Sequence[Reading]) -> Iterator[Metric]:
    """What has happened since Redis's memory began."""
    told: dict[str, Causes] = {each.state.pool: _by_cause(each.tallies) for each in readings}
    yield _counter(
        "events",
        "Events, by type",
        {
            (pool, kind.value): sum(causes.get(kind.value, {}).values())
            for pool, causes in told.items()
            for kind in EventType
        },
        ("type",),
    )
    yield _counter(
        "leaves",
        "Events by which somebody went or lost something, by their cause",
        {
            (pool, kind, cause): count
            for pool, causes in told.items()
            for kind in _LEAVING
            for cause, count in causes.get(kind, {}).items()
        },
        ("type", "cause"),
    )
    yield _counter("offers", "Offers made, and what became of them", _offers(told), ("outcome",))
    yield _counter(
        "denied_claims",
        "Claims that were denied, by reason",
        {
            (pool, why): count
            for pool, causes in told.items()
            for why, count in causes.get("denied", {}).items()
        },
        ("reason",),
    )
    yield _counter(
        "ghosts_reaped",
        "Sessions that fell silent without a word, found by their deadline",
        {(pool,): causes.get("offline", {}).get("deadline", 0) for pool, causes in told.items()},
    )


def _offers(told: Mapping[str, Causes]) -> dict[tuple[str, ...], float]:
    shown: dict[tuple[str, ...], float] = {}
    for pool, causes in told.items():
        # One that only moves to another session of the same user was made before.
        shown[pool, "made"] = causes.get("offered", {}).get(NO_CAUSE, 0)
        shown[pool, "taken"] = sum(causes.get("offer_taken", {}).values())
        shown[pool, "missed"] = sum(causes.get("offer_missed", {}).values())
    return shown


def _by_cause(tallies: Mapping[str, int]) -> dict[str, Tally[str]]:
    """The tallies, whose fields are `type` or `type:cause`, by type and cause."""
    found: dict[str, Tally[str]] = {}
    for name, count in sorted(tallies.items()):
        kind, _, cause = name.partition(":")
        causes = found.setdefault(kind, Tally())
        is_known = _CAUSE.fullmatch(cause) and len(causes) < MOST_CAUSES
        causes[cause if is_known else OTHER if cause else NO_CAUSE] += count
    return found


def _gauge(
    name: str, meaning: str, samples: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> Metric:
    family = GaugeMetricFamily(f"presence_{name}", meaning, labels=("pool", *labels))
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


def _counter(
    name: str, meaning: str, samples: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> Metric:
    family = CounterMetricFamily(f"presence_{name}", meaning, labels=("pool", *labels))
    for values, value in samples.items():
        family.add_metric(values, value)
    return family
