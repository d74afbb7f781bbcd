"""What monitoring counts: a tally for each event, and for what happens without one."""

from __future__ import annotations

from collections import Counter

import pytest

from server.domain.errors import RedisFullError
from server.domain.pool import Mode
from server.domain.session import EndReason
from server.live.verbs import Open
from tests.contract.conftest import POOL, Bench
from tests.contract.test_verbs_recovery import wipe

TALLIES = f"presence:{{{POOL}}}:tallies"


async def test_each_event_is_counted_once(bench: Bench) -> None:
    await bench.configure(limit=1, offer_s=90)
    connected = [await bench.connect(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        await bench.claim(name)
    await bench.drop(connected[2])
    await bench.release("a")
    await bench.pass_time(200, renewing=connected[:2])
    await bench.finish("b", EndReason.KICKED)
    counted: Counter[str] = Counter()
    for name, count in (await bench.store.tallies(POOL)).items():
        counted[name.partition(":")[0]] += count
    assert counted == Counter(await bench.event_types())


async def test_causes_are_told_apart_and_their_names_are_few(bench: Bench) -> None:
    for name, cause in (("a", "timeout"), ("b", "closed"), ("c", "closed"), ("d", "Anna's own words")):
        await bench.drop(await bench.connect(name), cause)
    await bench.configure(mode=Mode.PAUSED)
    counts = await bench.store.tallies(POOL)
    lost = {name: count for name, count in counts.items() if name.startswith("disconnected")}
    assert lost == {"disconnected:timeout": 1, "disconnected:closed": 2, "disconnected:other": 1}
    assert counts["pool_changed"] == 2
    assert not [name for name in counts if name.startswith("pool_changed:")]


async def test_take_overs_are_not_counted_by_who_took_over(bench: Bench) -> None:
    await bench.connect("a")
    await bench.claim("a")
    await bench.store.open(POOL, Open(session_id="s-a2", user_id="a", given=True))
    await bench.hello("a2")
    await bench.claim("a2", takeover=True)
    counts = await bench.store.tallies(POOL)
    assert (counts["taken_over"], counts["granted"], counts["granted:taken_over"]) == (1, 1, 1)
    assert not [name for name in counts if "s-a" in name]


async def test_ghosts_are_those_whose_loss_nobody_reported(bench: Bench) -> None:
    gone = await bench.connect("left")
    await bench.connect("ghost")
    await bench.drop(gone)
    await bench.pass_time(16)
    counts = await bench.store.tallies(POOL)
    assert (counts["offline:grace"], counts["offline:deadline"]) == (1, 1)
    offline = [event for event in await bench.events() if event["type"] == "offline"]
    assert {event["session_id"]: event["cause"] for event in offline} == {
        "s-left": "grace",
        "s-ghost": "deadline",
    }


async def test_offers_are_counted_as_made_taken_and_missed(bench: Bench) -> None:
    await bench.configure(limit=1, offer_s=30)
    connected = [await bench.connect(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        await bench.claim(name)
    await bench.release("a")
    await bench.pass_time(30, renewing=connected)
    await bench.claim("c")
    counts = await bench.store.tallies(POOL)
    assert (counts["offered"], counts["offer_missed:expired"], counts["offer_taken"]) == (2, 1, 1)


async def test_those_who_are_turned_away_are_counted_by_why(bench: Bench) -> None:
    await bench.configure(limit=1)
    for name in ("a", "b"):
        await bench.open(name)
    await bench.claim("a")
    await bench.claim("b", wait=False)
    await bench.configure(mode=Mode.CLOSED)
    await bench.claim("b")
    counts = await bench.store.tallies(POOL)
    assert {name: count for name, count in counts.items() if name.startswith("denied")} == {
        "denied:at_capacity": 1,
        "denied:closed": 1,
    }


async def test_what_only_renews_or_reads_counts_nothing(bench: Bench) -> None:
    connected = await bench.connect("a")
    before = await bench.store.tallies(POOL)
    await bench.store.renew(POOL, [("s-a", connected.connection_id)])
    await bench.look("a")
    await bench.store.tick(POOL)
    assert await bench.store.tallies(POOL) == before


async def test_a_full_redis_counts_on(bench: Bench) -> None:
    connected = await bench.connect("a")
    await bench.claim("a")
    await bench.redis.delete(TALLIES)
    try:
        await bench.redis.config_set("maxmemory", 1)
        with pytest.raises(RedisFullError):
            await bench.open("b")
        await bench.drop(connected)
        await bench.release("a")
    finally:
        await bench.redis.config_set("maxmemory", 0)
    assert await bench.store.tallies(POOL) == {"disconnected:closed": 1, "grace": 1, "released:released": 1}


async def test_the_count_begins_anew_when_redis_has_lost_its_memory(bench: Bench) -> None:
    await bench.connect("a")
    await wipe(bench)
    counts = await bench.store.tallies(POOL)
    assert counts.keys() <= {"recovery_started", "recovery_ended", "pool_changed"}
    assert counts["recovery_started"] == 1


async def test_a_pool_that_does_not_exist_has_none(bench: Bench) -> None:
    assert await bench.store.tallies("nowhere") == {}
