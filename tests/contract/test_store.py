"""The store around its scripts: coalescing, listing, errors, connecting by URL."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from server.domain.errors import RedisAwayError, RedisRefusedError, UnknownPoolError
from server.domain.pool import PoolConfig
from server.embedded.redis import EmbeddedRedis
from server.live.connect import connect
from server.live.scripts import MOST_CALLS_AT_ONCE
from server.live.store import NodeTimings, Store
from server.live.verbs import Open
from tests.contract.conftest import POOL, Bench


async def evalshas(bench: Bench) -> int:
    stats = await bench.redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_items_of_one_loop_turn_share_a_script_call(bench: Bench) -> None:
    await bench.open("warm")
    before = await evalshas(bench)
    opened = await asyncio.gather(*(bench.open(f"u{n}", given=True) for n in range(100)))
    assert await evalshas(bench) == before + 1
    assert [one.session_id for one in opened] == [f"s-u{n}" for n in range(100)]


async def test_a_cancelled_caller_takes_nobody_along(bench: Bench) -> None:
    first = asyncio.create_task(bench.open("a"))
    second = asyncio.create_task(bench.open("b"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).session_id == "s-b"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_sessions_are_listed_newest_first_page_by_page_with_ended_ones(bench: Bench) -> None:
    for n in range(7):
        await bench.open(f"u{n}", given=True)
        await bench.set_clock(bench.wall_ms + (n % 2))
    await bench.finish("u3")
    listed = []
    before = None
    while page := await bench.store.sessions(POOL, before=before, limit=3):
        listed += [seen.record.session_id for seen in page]
        before = (page[-1].record.started_at, page[-1].record.session_id)
    assert listed == ["s-u6", "s-u5", "s-u4", "s-u3", "s-u2", "s-u1", "s-u0"]


async def test_a_page_may_be_longer_than_one_read(bench: Bench) -> None:
    await asyncio.gather(*(bench.open(f"u{n}", given=True) for n in range(250)))
    assert len(await bench.store.sessions(POOL, before=None, limit=1000)) == 250


async def test_a_session_is_found_in_whichever_pool_it_is(bench: Bench) -> None:
    await bench.open("a", given=True)
    assert await bench.store.find_pool("s-a") == POOL
    assert await bench.store.find_pool("s-b") is None
    assert await bench.store.pool_names() == [POOL]


async def test_an_unknown_pool_has_no_configuration(bench: Bench) -> None:
    with pytest.raises(UnknownPoolError):
        await bench.store.config("other")


async def test_a_redis_that_is_away_is_said_so(own_redis: EmbeddedRedis) -> None:
    timings = NodeTimings(alive_ttl_s=15, renew_s=5, tombstone_s=60, history=False)
    store = Store(connect(own_redis.url), node="n", defaults=PoolConfig(), timings=timings)
    own_redis.stop()
    with pytest.raises(RedisAwayError):
        await store.open(POOL, Open(session_id="s", user_id="u"))
    with pytest.raises(RedisAwayError):
        await store.ping()
    await store.close()


async def test_a_server_that_became_a_replica_is_as_good_as_away_and_heals(bench: Bench) -> None:
    await bench.open("a", given=True)
    await bench.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        for ask in (
            lambda: bench.open("b"),
            lambda: bench.store.tick(POOL),
            lambda: bench.configure(limit=9),
        ):
            with pytest.raises(RedisAwayError):
                await ask()
    finally:
        await bench.redis.execute_command("REPLICAOF", "NO", "ONE")
    assert (await bench.open("a", given=True)).resumed


async def test_a_key_of_another_kind_is_refused_in_a_sentence(bench: Bench) -> None:
    await bench.redis.set("presence:{main}:online", "not a sorted set")
    with pytest.raises(RedisRefusedError, match="pool 'main'"):
        await bench.open("a")
    with pytest.raises(RedisRefusedError):
        await bench.store.tick(POOL)


async def test_a_member_without_a_record_is_dropped_and_stops_nothing(bench: Bench) -> None:
    await bench.configure(limit=1)
    await bench.open("a", given=True)
    for name in ("grace", "interviews", "ready", "line", "offers", "online", "offline", "absent"):
        await bench.redis.zadd(f"presence:{{main}}:{name}", {"s-gone": 1})
    await bench.store.tick(POOL)
    await bench.pass_time(5)
    assert (await bench.claim("a")).state.value == "granted"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:6379/3", Redis),
        ("rediss://user:word@redis.example:6380", Redis),
        ("unix:///run/redis.sock?db=2", Redis),
        ("redis+sentinel://:word@one:26379,two/mymaster/1", Redis),
        ("redis+cluster://one:7000,two:7001", RedisCluster),
    ],
)
async def test_every_kind_of_url_makes_a_client(url: str, kind: type) -> None:
    client = connect(url)
    assert isinstance(client, kind)
    await client.aclose()


def test_a_sentinel_url_without_a_master_is_refused() -> None:
    with pytest.raises(ValueError, match="must name the master"):
        connect("redis+sentinel://one:26379")


async def test_a_herd_waits_its_turn_and_none_of_it_is_turned_away(own_redis: EmbeddedRedis) -> None:
    timings = NodeTimings(alive_ttl_s=15, renew_s=5, tombstone_s=60, history=False)
    store = Store(connect(own_redis.url), node="n", defaults=PoolConfig(), timings=timings)
    assert await asyncio.gather(*(store.find_pool(f"s-{n}") for n in range(1000))) == [None] * 1000
    async with Redis.from_url(own_redis.url) as redis:
        assert (await redis.info("clients"))["connected_clients"] <= MOST_CALLS_AT_ONCE + 1
    await store.close()
