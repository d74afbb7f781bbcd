"""All that a node counts and times. What is true of a whole pool is not here: Redis has it, whatever node is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import get_args

from server.domain.interview import InterviewState
from server.domain.messages import Close, FromBrowser
from server.measure.instruments import MILLISECONDS, OTHER, SECONDS, SIZES, Counter, Gauge, Histogram

# What became of a claim; `failed`: there was an error in place of an answer.
FAILED = "failed"
OUTCOMES = (*(state.value for state in InterviewState if state is not InterviewState.NONE), FAILED)
# Messages from the browser, by the names that the protocol gives them.
MESSAGES = tuple(str(kind.__struct_config__.tag) for kind in get_args(FromBrowser))
# Close codes with a meaning here. A browser may close with any of thousands.
CLOSE_CODES = frozenset({*Close, 1000, 1001, 1005, 1006, 1012})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Their labels are bounded one by one: routes, methods, and five classes of status.
MOST_KINDS_OF_REQUEST = 1024


class Connections:
    """WebSockets, and what browsers say by them."""

    def __init__(self) -> None:
        self.opened = Counter("presence_connections_opened_total", "WebSockets that were welcomed")
        self.reconnects = Counter(
            "presence_reconnects_total", "WebSockets welcomed whose session had been connected before"
        )
        self.closed = Counter(
            "presence_connections_closed_total",
            "WebSockets that ended after their welcome, by close code",
            ("code",),
        )
        self.refused = Counter(
            "presence_connections_refused_total",
            "WebSockets refused or cut off by the server, by reason",
            ("reason",),
        )
        self.messages = Counter(
            "presence_messages_total",
            "Messages from browsers by WebSocket, by type",
            ("type",),
            known=[(name,) for name in MESSAGES],
        )
        # By far the most frequent: it has no time to look for its cell.
        self.heartbeats = self.messages.at("heartbeat")
        self.renewals = Counter(
            "presence_renewals_total",
            "Connections whose presence was to be extended, by outcome",
            ("outcome",),
            known=[("renewed",), ("lost",)],
        )
        self.renewal_batch = Histogram(
            "presence_renewal_batch_size", "Connections renewed by one script call", SIZES
        )

    def welcomed(self, *, resumed: bool) -> None:
        """A connection was welcomed."""
        self.opened.at().add()
        if resumed:
            self.reconnects.at().add()

    def ended(self, code: int) -> None:
        """A welcomed connection ended."""
        self.closed.at(str(code) if code in CLOSE_CODES else OTHER).add()

    def renewed(self, asked: int, lost: int) -> None:
        """A batch was renewed but for those `lost`."""
        self.renewal_batch.at().observe(asked)
        self.renewals.at("renewed").add(asked - lost)
        self.renewals.at("lost").add(lost)


class Admissions:
    """Claims, and the places that go from one to the next."""

    def __init__(self) -> None:
        self.claims = Histogram(
            "presence_claim_seconds",
            "From a claim to its answer, within the node, by what became of it",
            MILLISECONDS,
            ("outcome",),
            known=[(outcome,) for outcome in OUTCOMES],
        )
        self.handover = Histogram(
            "presence_handover_seconds",
            "From a place becoming free until the node of the next in line knows that it is theirs",
            MILLISECONDS,
        )
        self.event_lag = Histogram(
            "presence_event_lag_seconds", "From an event in Redis until the node has read it", MILLISECONDS
        )
        self.resyncs = Counter(
            "presence_resyncs_total",
            "Times that the node read a pool anew, at the start or after missing events",
        )
        self.ticks = Counter("presence_ticks_total", "Periodic passes over a pool that Redis answered")

    def claimed(self, outcome: str, began: float) -> None:
        """A claim, made at `began` by `time.perf_counter`, was answered."""
        self.claims.at(outcome).observe(time.perf_counter() - began)


class Requests:
    """HTTP."""

    def __init__(self) -> None:
        self.count = Counter(
            "presence_http_requests_total",
            "Requests, by method, route and class of the status",
            ("method", "route", "status"),
            most=MOST_KINDS_OF_REQUEST,
        )
        self.seconds = Histogram(
            "presence_http_request_seconds",
            "From a request until the answer begins, by route",
            MILLISECONDS,
            ("route",),
        )
        self.problems = Counter(
            "presence_http_problems_total",
            "Requests that were answered with a problem, by its code",
            ("code",),
        )
        self.sign_in_failures = Counter(
            "presence_sign_in_failures_total", "Sign-ins to the dashboard that were refused"
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is a template of ours, whatever the path was."""
        self.count.at(method if method in METHODS else OTHER, route, _class_of(status)).add()
        self.seconds.at(route).observe(seconds)


class Dependencies:
    """Redis, and the way to Postgres."""

    def __init__(self) -> None:
        self.redis_calls = Histogram(
            "presence_redis_call_seconds",
            "From sending a call to Redis until its reply, by script",
            MILLISECONDS,
            ("script",),
        )
        self.redis_failures = Counter(
            "presence_redis_failures_total", "Calls that Redis did not serve, by error", ("error",)
        )
        self.flush_seconds = Histogram(
            "presence_flush_seconds", "How long a flush of all pools took that this node did", SECONDS
        )
        self.flushed_rows = Counter("presence_flushed_rows_total", "Rows that were written to Postgres")
        self.flush_failures = Counter(
            "presence_flush_failures_total", "Flushes that failed, since Postgres or Redis did not serve"
        )

    def redis_answered(self, script: str, seconds: float) -> None:
        """See `RedisObserver`."""
        self.redis_calls.at(script).observe(seconds)

    def redis_failed(self, error: str) -> None:
        """See `RedisObserver`."""
        self.redis_failures.at(error).add()

    def rows_flushed(self, rows: int) -> None:
        """See `FlushObserver`."""
        self.flushed_rows.at().add(rows)

    def flushed(self, seconds: float) -> None:
        """See `FlushObserver`."""
        self.flush_seconds.at().observe(seconds)

    def flush_failed(self) -> None:
        """See `FlushObserver`."""
        self.flush_failures.at().add()


class Measured:
    """Everything of one node. `gauges`: what it asks others for; `scraping`: held by whoever reads the pools for it."""

    def __init__(self) -> None:
        self.connections = Connections()
        self.admissions = Admissions()
        self.requests = Requests()
        self.dependencies = Dependencies()
        self.gauges: list[Gauge] = []
        self.scraping = asyncio.Lock()

    def instruments(self) -> Iterator[Counter | Histogram]:
        """All counters and histograms."""
        for part in (self.connections, self.admissions, self.requests, self.dependencies):
            for each in vars(part).values():
                if isinstance(each, Counter | Histogram):
                    yield each


def _class_of(status: int) -> str:
    return f"{status // 100}xx"
