"""The scripts as files: header, wrapper and text agree; every script is bounded, legal on a cluster, and heals."""

from __future__ import annotations

import re

import msgspec
import pytest
from redis.asyncio import Redis

from server.live.keys import SCRIPT_KEYS, PoolKeys
from server.live.scripts import PRELUDE, VERBS, Scripts, source
from server.live.store import Store
from tests.contract.conftest import POOL, Bench, make_bench

HEADER = re.compile(
    r"-- (?P<name>\w+)\.lua: .+\n(?:-- .*\n)*?-- KEYS +the pool's keys \(prelude\)\n-- ARGV +\S"
)
# Verbs that read only: they must not write, so that they run on a full Redis and need no clock to be kept.
READ_ONLY = {"snapshot", "state"}
# Verbs that the store runs under another name than the script's, each for a reason given in server/live/dirty.py.
RUN_BY_THE_FLUSH_PORT = {"flush_take", "flush_ack", "flush_refuse", "flush_lease", "touch", "touch_ack"}


@pytest.mark.parametrize("verb", VERBS)
def test_each_script_says_what_it_does_takes_and_returns(verb: str) -> None:
    text = source(verb)
    header = HEADER.match(text)
    assert header is not None
    assert header["name"] == verb
    assert "\n-- Returns  head" in text


@pytest.mark.parametrize("verb", VERBS)
def test_each_script_is_run_by_a_method_of_its_name(verb: str) -> None:
    assert verb in RUN_BY_THE_FLUSH_PORT or callable(getattr(Store, verb))


@pytest.mark.parametrize("verb", VERBS)
def test_no_script_reads_the_whole_keyspace_or_names_a_key_itself(verb: str) -> None:
    text = source(verb)
    assert not re.search(r"'(KEYS|SCAN|FLUSHALL|FLUSHDB)'", text)
    assert "presence:" not in re.sub(r"--.*", "", text)


@pytest.mark.parametrize("verb", VERBS)
def test_each_script_declares_whether_it_may_write_on_a_full_redis(verb: str) -> None:
    text = source(verb)
    declares = "begin_freeing()" in text or "begin_adding()" in text
    assert declares is not (verb in READ_ONLY | {"look"})
    if verb in READ_ONLY:
        assert not re.search(r"\b(save|set|event|pump|each_item)\(", text)


def test_the_prelude_names_the_keys_in_the_order_in_which_they_are_given() -> None:
    named = re.search(r"^local ([A-Z, ]+) = unpack\(KEYS\)$", source(PRELUDE[0]), re.MULTILINE)
    assert named is not None
    assert tuple(name.strip().lower() for name in named[1].split(",")) == SCRIPT_KEYS


def test_all_keys_of_a_pool_share_one_hash_tag() -> None:
    keys = PoolKeys("study-7")
    made = (
        keys.session("s"),
        keys.alive("s"),
        keys.tombstone("s"),
        keys.user("u"),
        keys.lease,
        *keys.in_order,
    )
    assert {re.findall(r"\{(.*?)\}", key)[0] for key in made} == {"study-7"}


async def test_scripts_that_redis_has_forgotten_are_sent_again(bench: Bench) -> None:
    await bench.redis.script_flush()
    opened = await bench.open("anna")
    await bench.redis.script_flush()
    assert (await bench.look("anna")).record == opened.record


async def test_a_script_that_fails_changes_nothing(bench: Bench) -> None:
    before = await bench.store.snapshot(POOL)
    with pytest.raises(Exception, match=r"invalid token"):
        await bench.store.scripts.run("claim", bench.store.keys(POOL), b"not json")
    assert await bench.store.snapshot(POOL) == before


async def test_the_real_clock_is_the_clock_of_redis(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    bench = await make_bench(redis_url)
    before, _ = await redis.time()
    (head,) = await Scripts(redis).run("state", bench.store.keys(POOL))
    after, _ = await redis.time()
    assert before * 1000 <= msgspec.json.decode(head)["at"] < (after + 1) * 1000
    await bench.redis.aclose()
    await redis.aclose()
