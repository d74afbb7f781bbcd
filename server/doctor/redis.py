"""Checks of Redis: the right kind, keeps what it is told, answers soon, and its clock goes like ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from server.doctor.finding import Finding, careful, failed, ok
from server.live.connect import RedisClient, ask_each_server, connect

LEAST_VERSION = (6, 2)
PINGS = 5
SLOW_S, FAR_TOO_SLOW_S = 0.01, 0.25
CLOCK_OFF_S, CLOCK_WRONG_S = 1.0, 5.0


@dataclass(slots=True, frozen=True)
class RedisFacts:
    """One server, as it tells. `least_replicas` and `saves` are None where it won't say. Times in seconds."""

    info: dict[str, Any]
    latency_s: float
    clock_ahead_s: float
    least_replicas: int | None
    saves: bool | None


async def check_redis(url: str) -> list[Finding]:
    """Look at every server of this Redis that takes writes."""
    client = connect(url)
    try:
        servers = await _facts(client)
    except (RedisError, RedisClusterException, OSError, ValueError) as error:
        mend = "start it, or correct REDIS_URL (kind, host, port, password)"
        return [failed("redis", f"can't be asked: {_reason(error)}", mend)]
    finally:
        await client.aclose()
    clustered = url.startswith("redis+cluster://")
    return [finding for facts in servers for finding in judge(facts, clustered=clustered)]


async def _facts(client: RedisClient) -> list[RedisFacts]:
    infos = await ask_each_server(client, "INFO")
    latencies, aheads = [], []
    for _ in range(PINGS):
        asked_at, began = time.time(), time.perf_counter()
        clocks = await ask_each_server(client, "TIME")
        took = (time.perf_counter() - began) / len(clocks)
        latencies.append(took)
        aheads.append([seconds + micros / 1e6 - asked_at - took / 2 for seconds, micros in clocks])
    replicas = await _configured(client, "min-replicas-to-write", len(infos))
    saves = await _configured(client, "save", len(infos))
    return [
        RedisFacts(
            info,
            median(latencies),
            min((ahead[number] for ahead in aheads), key=abs),
            None if replicas[number] is None else int(replicas[number] or 0),
            None if saves[number] is None else bool(saves[number]),
        )
        for number, info in enumerate(infos)
    ]


async def _configured(client: RedisClient, name: str, servers: int) -> list[str | None]:
    """A value of the configuration, which hosted ones don't tell."""
    try:
        return [each.get(name) for each in await ask_each_server(client, "CONFIG GET", name)]
    except RedisError:
        return [None] * servers


def judge(facts: RedisFacts, *, clustered: bool = False) -> Iterator[Finding]:
    """What there is to say of one server."""
    yield _version(facts.info)
    yield _kind(facts.info, clustered=clustered)
    yield _eviction(str(facts.info.get("maxmemory_policy")))
    yield _persistence(facts)
    yield _replicas(facts)
    yield _latency(facts.latency_s)
    yield _clock(facts.clock_ahead_s)


def _version(info: dict[str, Any]) -> Finding:
    compatible = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {compatible}"
    numbers = tuple(int(part) for part in compatible.split(".")[:2] if part.isdecimal())
    if numbers < LEAST_VERSION:
        return failed("redis version", name, "6.2 or newer is needed")
    return ok("redis version", name)


def _kind(info: dict[str, Any], *, clustered: bool) -> Finding:
    if info.get("role", "master") != "master":
        mend = "name the master in REDIS_URL, or use redis+sentinel://"
        return failed("redis role", "a replica, which takes no writes", mend)
    if bool(info.get("cluster_enabled")) != clustered:
        what = "a single server, not a cluster" if clustered else "a node of a cluster"
        mend = f"write {'redis://' if clustered else 'redis+cluster://'} in REDIS_URL"
        return failed("redis role", what, mend)
    return ok("redis role", "a master of a cluster" if clustered else "master")


def _eviction(policy: str) -> Finding:
    mend = "set maxmemory-policy to noeviction"
    if policy == "noeviction":
        return ok("redis eviction", policy)
    if policy.startswith("allkeys"):
        return failed("redis eviction", f"{policy}: when full it throws away permits", mend)
    return careful("redis eviction", f"{policy}: when full it may throw away presence", mend)


def _persistence(facts: RedisFacts) -> Finding:
    if facts.info.get("aof_enabled"):
        return ok("redis persistence", "append-only file")
    if facts.saves is None:
        what = "no append-only file; whether it saves snapshots it does not tell"
        return ok("redis persistence", what)
    if facts.saves:
        return ok("redis persistence", "snapshots; a crash costs what came since the last one")
    what = "keeps nothing: after a restart pages bring their sessions back, and who is away loses the place"
    return careful("redis persistence", what, "set appendonly yes")


def _replicas(facts: RedisFacts) -> Finding:
    count = int(facts.info.get("connected_slaves", 0))
    if not count:
        return ok("redis replicas", "none")
    if facts.least_replicas == 0:
        what = f"{count}, but an old master that was cut off goes on granting places"
        return careful("redis replicas", what, "set min-replicas-to-write 1")
    least = "not told" if facts.least_replicas is None else facts.least_replicas
    return ok("redis replicas", f"{count}, min-replicas-to-write {least}")


def _latency(latency_s: float) -> Finding:
    what = f"{latency_s * 1000:.1f} ms a command"
    if latency_s < SLOW_S:
        return ok("redis latency", what)
    judged = failed if latency_s > FAR_TOO_SLOW_S else careful
    return judged("redis latency", what, "let it run in the server's own region and network")


def _clock(ahead_s: float) -> Finding:
    side = "ahead of" if ahead_s > 0 else "behind"
    if abs(ahead_s) < CLOCK_OFF_S:
        return ok("redis clock", "goes like this machine's")
    judged = failed if abs(ahead_s) > CLOCK_WRONG_S else careful
    what = f"{abs(ahead_s):.1f} s {side} this machine's"
    return judged("redis clock", what, "let NTP set both")


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
