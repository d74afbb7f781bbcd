"""Forgetting a person: nothing of them is left in Redis, nothing brings them back, and nobody else notices."""

from __future__ import annotations

import pytest

from persistence.lines import session_id_of
from server.domain.errors import SessionEndedError
from server.domain.interview import InterviewState
from server.domain.session import EndReason
from server.live.dirty import StoreDirtySessions
from server.live.verbs import Claim, Connect, Finish, Known, Look, Open
from tests.contract.conftest import POOL, START_MS, Bench

PERSON = "anna"


async def everything(bench: Bench) -> dict[str, str]:
    """Every key of Redis with all that it holds, as text."""
    read = {
        b"string": bench.redis.get,
        b"hash": bench.redis.hgetall,
        b"zset": lambda key: bench.redis.zrange(key, 0, -1),
        b"set": bench.redis.smembers,
        b"list": lambda key: bench.redis.lrange(key, 0, -1),
        b"stream": bench.redis.xrange,
    }
    return {
        key.decode(): str(await read[await bench.redis.type(key)](key)) for key in await bench.redis.keys("*")
    }


async def traces(bench: Bench) -> list[str]:
    """The keys that name the person; the ids of the sessions in these tests don't."""
    return [key for key, held in (await everything(bench)).items() if PERSON in key + held]


async def open_session(bench: Bench, session_id: str, user_id: str = PERSON) -> str:
    """Open a session with a connection; the connection's id."""
    given = {"language_code": "de", "metadata": f'{{"name":"{user_id}"}}'}
    await bench.store.open(POOL, Open(session_id=session_id, user_id=user_id, given=True, **given))
    connected = await bench.store.connect(POOL, Connect(session_id=session_id, node="n1"))
    return connected.connection_id


async def finish(bench: Bench, session_id: str) -> None:
    await bench.store.finish(POOL, Finish(session_id=session_id, reason=EndReason.COMPLETED))


async def test_nothing_of_the_person_is_left_wherever_they_stood(bench: Bench) -> None:
    await bench.configure(limit=1, permits_per_user=0)
    for session_id in ("holds", "waits", "only-here", "ended", "bens"):
        await open_session(bench, session_id, "ben" if session_id == "bens" else PERSON)
    for session_id in ("holds", "waits", "bens"):
        await bench.store.claim(POOL, Claim(session_id=session_id))
    await finish(bench, "ended")
    assert await traces(bench)

    forgot = await bench.store.forget(POOL, PERSON)

    assert sorted(forgot.erased) == ["ended", "holds", "only-here", "waits"]
    assert await traces(bench) == []
    ids_left = {key.rpartition(":")[2] for key in await everything(bench) if ":tombstone:" not in key}
    assert ids_left.isdisjoint(forgot.erased)
    snapshot = await bench.store.snapshot(POOL)
    assert (list(snapshot.holders), snapshot.line, snapshot.state.sessions) == (["bens"], [], 1)
    assert snapshot.state.online == 1


async def test_what_is_left_of_a_session_says_only_that_it_ended(bench: Bench) -> None:
    await open_session(bench, "lonely")
    await bench.store.forget(POOL, PERSON)
    left = {key: held for key, held in (await everything(bench)).items() if "lonely" in key + held}
    assert sorted(left) == [f"presence:{{{POOL}}}:events", f"presence:{{{POOL}}}:tombstone:lonely"]
    tombstone = await bench.redis.hgetall(f"presence:{{{POOL}}}:tombstone:lonely")
    assert tombstone == {b"end_reason": b"kicked", b"language_code": b""}
    assert 0 < await bench.redis.pttl(f"presence:{{{POOL}}}:tombstone:lonely") <= 43_200_000
    (last,) = [event for event in await bench.events() if event.get("session_id") == "lonely"]
    assert (last["type"], last["user_id"]) == ("kicked", "")


async def test_forgetting_again_finds_nothing_and_changes_nothing(bench: Bench) -> None:
    await open_session(bench, "one")
    await open_session(bench, "bens", "ben")
    await bench.store.forget(POOL, PERSON)
    before = await bench.store.snapshot(POOL)
    assert (await bench.store.forget(POOL, PERSON)).erased == []
    after = await bench.store.snapshot(POOL)
    assert (after.state.seq, after.state.sessions) == (before.state.seq, 1)


async def test_other_peoples_sessions_and_events_stay(bench: Bench) -> None:
    await open_session(bench, "bens", "ben")
    await open_session(bench, "annas-like", "annabel")
    await bench.store.claim(POOL, Claim(session_id="bens"))
    before = [event for event in await bench.events() if event.get("user_id") in {"ben", "annabel"}]
    await open_session(bench, "one")
    await bench.store.forget(POOL, PERSON)
    after = [event for event in await bench.events() if event.get("user_id") in {"ben", "annabel"}]
    assert after == before
    assert (await bench.store.look(POOL, Look(session_id="bens"))).online
    assert (await bench.store.look(POOL, Look(session_id="annas-like"))).record.user_id == "annabel"


async def test_neither_an_old_token_nor_a_node_brings_the_person_back(bench: Bench) -> None:
    await bench.configure(recovery_s=60)
    connection_id = await open_session(bench, "one")
    fence = (await bench.store.claim(POOL, Claim(session_id="one"))).fence
    await bench.store.forget(POOL, PERSON)
    known = Known(user_id=PERSON, started_at=START_MS, fence=fence, holds=True)
    for again in (None, connection_id):
        item = Connect(session_id="one", node="n2", known=known, connection_id=again)
        with pytest.raises(SessionEndedError):
            await bench.store.connect(POOL, item)
    assert await traces(bench) == []


async def test_neither_does_a_token_of_a_session_that_only_rows_tell_of(bench: Bench) -> None:
    await bench.store.forget(POOL, PERSON, ["long-ago"])
    known = Known(user_id=PERSON, started_at=START_MS, fence=1, holds=True)
    with pytest.raises(SessionEndedError):
        await bench.store.connect(POOL, Connect(session_id="long-ago", node="n2", known=known))


async def test_the_freed_place_goes_to_the_next_in_line(bench: Bench) -> None:
    await bench.configure(limit=1)
    await open_session(bench, "one")
    await open_session(bench, "bens", "ben")
    await bench.store.claim(POOL, Claim(session_id="one"))
    await bench.store.claim(POOL, Claim(session_id="bens"))
    await bench.store.forget(POOL, PERSON)
    seen = await bench.store.look(POOL, Look(session_id="bens"))
    assert seen.admission.state is InterviewState.GRANTED


async def test_a_person_who_comes_again_is_somebody_new(bench: Bench) -> None:
    await open_session(bench, "one")
    forgot = await bench.store.forget(POOL, PERSON)
    await open_session(bench, "one")
    seen = await bench.store.look(POOL, Look(session_id="one"))
    assert (seen.record.user_id, seen.record.status) == (PERSON, "active")
    assert seen.record.version > forgot.version


async def test_many_sessions_and_events_are_forgotten_in_bounded_steps(bench: Bench) -> None:
    await bench.configure(permits_per_user=0, limit=1000)
    for number in range(230):
        await open_session(bench, f"s{number}")
    for number in range(230):
        await open_session(bench, f"b{number}", "ben")
        await finish(bench, f"b{number}")
    for number in range(5):
        await finish(bench, f"s{number}")
    forgot = await bench.store.forget(POOL, PERSON, [f"past{number}" for number in range(450)])
    assert sorted(forgot.erased) == sorted(f"s{number}" for number in range(230))
    assert await traces(bench) == []
    assert await bench.redis.zcard(f"presence:{{{POOL}}}:ended") == 230
    assert len(await bench.redis.keys("*:tombstone:past*")) == 450


async def test_nothing_of_the_person_is_left_to_be_flushed(bench: Bench) -> None:
    await open_session(bench, "one")
    await open_session(bench, "two")
    await finish(bench, "two")
    await open_session(bench, "bens", "ben")
    await bench.store.forget(POOL, PERSON)
    taken = await StoreDirtySessions(bench.store).take(POOL, 10)
    assert [session_id_of(line) for line in taken.lines] == ["bens"]
    assert await bench.redis.hkeys("presence:{main}:rows:1") == [b"bens"]


async def test_without_a_history_the_person_is_forgotten_all_the_same(bench: Bench) -> None:
    await bench.redis.hset(f"presence:{{{POOL}}}:config", "history", 0)
    await open_session(bench, "one")
    await open_session(bench, "two")
    await finish(bench, "two")
    assert (await bench.store.forget(POOL, PERSON)).erased == ["one"]
    assert await traces(bench) == []
