"""Operations for those who watch over this node: alive, ready, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from server.domain.errors import PresenceError, UnknownPoolError
from server.domain.pool import DEFAULT_POOL, PoolState
from server.http.auth import Access
from server.http.routing import Answer, Call, Operation, operation
from server.node.node import Node

# Name and meaning of what is measured of each pool; the name is also the field of its state.
_OF_A_POOL = {
    "limit": "Permits that may be held at the same time",
    "active": "Permits held, including those in grace",
    "offered": "Permits reserved for a waiter",
    "available": "Places that a claim could take now",
    "waiting": "Sessions in line",
    "online": "Sessions that are present",
    "sessions": "Sessions that have not ended",
}


class Health(msgspec.Struct, frozen=True):
    """The process runs and answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """How this node is. `flush_lag_s` and `backlog` say how far Postgres is behind; null without Postgres.

    `flush_failures`: flushes of this node that failed; `set_aside`: sessions whose rows Postgres refuses.
    """

    ready: bool
    redis: Literal["ok", "down"]
    postgres: Literal["ok", "down", "off"]
    recovering: bool
    draining: bool
    flush_lag_s: float | None
    backlog: int | None
    flush_failures: int | None
    set_aside: int | None


@operation("GET", "/healthz", Access.ANYONE, answers={200: Health})
async def get_health(call: Call[None, None]) -> Answer:  # noqa: ARG001 - there is nothing to look at
    """Say that the process is alive."""
    return Answer(Health())


@operation("GET", "/readyz", Access.ANYONE, answers={200: Readiness, 503: Readiness})
async def get_readiness(call: Call[None, None]) -> Answer:
    """Say whether this node can serve: 503 while Redis is away, in recovery, and while it stops.

    Postgres being away is shown, but live sessions don't need it.
    """
    node = call.node
    is_up, recovering = await _redis(node)
    ready = is_up and not recovering and not node.draining
    flush = node.flush_status()
    readiness = Readiness(
        ready=ready,
        redis="ok" if is_up else "down",
        postgres=node.postgres,
        recovering=recovering,
        draining=node.draining,
        flush_lag_s=None if flush is None else flush.lag_s,
        backlog=None if flush is None else flush.backlog,
        flush_failures=None if flush is None else flush.failures,
        set_aside=None if flush is None else flush.set_aside,
    )
    return Answer(readiness, 200 if ready else 503)


@operation("GET", "/metrics", Access.METRICS, answers={200: bytes}, media_type=CONTENT_TYPE_PLAIN_0_0_4)
async def get_metrics(call: Call[None, None]) -> Answer:
    """Metrics for Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Measured(list(_of_the_node(call.node)) + await _of_the_pools(call.node)))
    return Answer(generate_latest(registry))


OPERATIONS: tuple[Operation, ...] = (get_health, get_readiness, get_metrics)


class _Measured(Collector):
    """What was measured just now."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


async def _redis(node: Node) -> tuple[bool, bool]:
    """Whether Redis answers, and whether it is being recovered."""
    try:
        recovering = (await node.store.state(DEFAULT_POOL)).recovering
    except UnknownPoolError:
        return True, True  # made anew by the next that needs it
    except PresenceError:
        return False, False
    return node.store.takes_writes, recovering


def _of_the_node(node: Node) -> Iterator[Metric]:
    yield GaugeMetricFamily("presence_connections", "WebSockets that this node holds", node.connections)
    yield GaugeMetricFamily("presence_draining", "1 while this node stops", int(node.draining))
    flush = node.flush_status()
    if flush is not None:
        yield GaugeMetricFamily(
            "presence_postgres_up", "1 while Postgres answers", int(node.postgres == "ok")
        )
        yield GaugeMetricFamily(
            "presence_flush_lag_seconds", "Age of the oldest unwritten change", flush.lag_s
        )
        yield GaugeMetricFamily("presence_flush_backlog", "Sessions that wait to be written", flush.backlog)
        yield GaugeMetricFamily(
            "presence_flush_set_aside", "Sessions whose rows Postgres refuses", flush.set_aside
        )
        yield CounterMetricFamily("presence_flush_failures", "Flushes that failed", flush.failures)


async def _of_the_pools(node: Node) -> list[Metric]:
    """The pools' gauges, and whether Redis could be asked for them."""
    states: list[PoolState] = []
    up = GaugeMetricFamily("presence_redis_up", "1 while Redis answers")
    try:
        states = [await node.store.state(pool) for pool in await node.store.pool_names()]
        up.add_metric([], 1)
    except PresenceError:
        up.add_metric([], 0)
    return [up, *(_gauge(name, meaning, states) for name, meaning in _OF_A_POOL.items())]


def _gauge(name: str, meaning: str, states: list[PoolState]) -> Metric:
    gauge = GaugeMetricFamily(f"presence_{name}", meaning, labels=["pool"])
    for state in states:
        gauge.add_metric([state.pool], getattr(state, name))
    return gauge
