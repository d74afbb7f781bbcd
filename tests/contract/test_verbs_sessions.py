"""Sessions and presence: open, connect, renew, beat, update, drop, look, tick."""

from __future__ import annotations

import pytest

from server.domain.errors import (
    BadTokenError,
    SessionEndedError,
    SessionIdTakenError,
    StaleConnectionError,
    SupersededAttemptError,
    UnknownPoolError,
    UnknownSessionError,
)
from server.domain.session import ConnectionKind, EndReason, Status
from server.live.verbs import Beat, Look, Open, Renewal, Update
from tests.contract.conftest import POOL, START_MS, Bench

ALIVE = "presence:{main}:alive:s-anna"


async def test_a_new_session_is_present_for_the_online_window(bench: Bench) -> None:
    opened = await bench.open("anna", language_code="de", current_page="home", metadata='{"a":1}')
    assert not opened.resumed
    assert opened.record.started_at == opened.record.last_seen == START_MS
    assert (opened.record.language_code, opened.record.current_page) == ("de", "home")
    assert 59_000 < await bench.redis.pttl(ALIVE) <= 60_000
    await bench.pass_time(59)
    assert (await bench.look("anna")).online
    await bench.pass_time(1)
    assert not (await bench.look("anna")).online
    assert (await bench.event_types())[-2:] == ["session_started", "offline"]


async def test_a_user_who_opens_again_gets_the_session_back(bench: Bench) -> None:
    first = await bench.store.open(POOL, Open(session_id="one", user_id="anna"))
    await bench.pass_time(600)
    again = await bench.store.open(POOL, Open(session_id="two", user_id="anna"))
    assert again.resumed
    assert again.session_id == first.session_id == "one"
    assert (await bench.store.look(POOL, Look(session_id="one"))).online


async def test_a_session_away_for_longer_than_resume_s_is_not_resumed(bench: Bench) -> None:
    await bench.store.open(POOL, Open(session_id="one", user_id="anna"))
    await bench.pass_time(60 + 901)
    again = await bench.store.open(POOL, Open(session_id="two", user_id="anna"))
    assert not again.resumed
    assert again.session_id == "two"


async def test_a_session_with_a_websocket_is_not_resumed(bench: Bench) -> None:
    await bench.store.open(POOL, Open(session_id="s-anna", user_id="anna"))
    connected = await bench.hello("anna")
    again = await bench.store.open(POOL, Open(session_id="two", user_id="anna"))
    assert again.session_id == "two"
    await bench.drop(connected)
    assert (await bench.store.open(POOL, Open(session_id="three", user_id="anna"))).session_id == "two"


async def test_resume_s_zero_never_resumes(bench: Bench) -> None:
    await bench.configure(resume_s=0)
    await bench.store.open(POOL, Open(session_id="one", user_id="anna"))
    assert (await bench.store.open(POOL, Open(session_id="two", user_id="anna"))).session_id == "two"


async def test_a_given_id_of_another_user_is_refused_and_of_an_ended_session_starts_it_anew(
    bench: Bench,
) -> None:
    await bench.open("anna", given=True)
    with pytest.raises(SessionIdTakenError):
        await bench.store.open(POOL, Open(session_id="s-anna", user_id="ben", given=True))
    await bench.claim("anna")
    await bench.finish("anna")
    await bench.pass_time(2)
    again = await bench.open("anna", given=True)
    assert not again.resumed
    assert again.record.status is Status.ACTIVE
    assert again.record.completed_at is None
    assert again.record.interview_started_at is None
    assert again.record.started_at == START_MS + 2000


async def test_a_websocket_shortens_the_deadline_to_its_ttl(bench: Bench) -> None:
    connected = await bench.connect("anna")
    assert (await bench.redis.get(ALIVE)).decode() == connected.connection_id
    assert 14_000 < await bench.redis.pttl(ALIVE) <= 15_000
    await bench.pass_time(14)
    assert (await bench.look("anna")).online
    await bench.pass_time(1)
    assert not (await bench.look("anna")).online


async def test_api_calls_do_not_keep_a_session_alive_whose_browser_was_seen(bench: Bench) -> None:
    await bench.connect("anna")
    await bench.pass_time(10)
    await bench.look("anna", sign_of_life=True)
    await bench.claim("anna", sign_of_life=True)
    await bench.pass_time(5)
    assert not (await bench.look("anna")).online


async def test_api_calls_keep_a_session_alive_until_its_browser_was_seen(bench: Bench) -> None:
    await bench.open("anna")
    for _ in range(3):
        await bench.pass_time(50)
        await bench.look("anna", sign_of_life=True)
    assert (await bench.look("anna")).online


async def test_renewal_keeps_a_connection_present_without_end(bench: Bench) -> None:
    connected = await bench.connect("anna")
    await bench.pass_time(120, renewing=[connected])
    assert (await bench.look("anna")).online


async def test_renewal_tells_what_became_of_a_connection(bench: Bench) -> None:
    old = await bench.connect("anna", tab="t1", attempt=1)
    new = await bench.hello("anna", tab="t1", attempt=2)
    gone = await bench.connect("ben")
    ended = await bench.connect("cleo")
    await bench.finish("cleo")
    await bench.pass_time(16, renewing=[new])
    held = [
        ("s-anna", old.connection_id),
        ("s-anna", new.connection_id),
        ("s-ben", gone.connection_id),
        ("s-cleo", ended.connection_id),
        ("s-nobody", "1"),
    ]
    assert await bench.store.renew(POOL, held) == [
        Renewal.NO_LONGER_YOURS,
        Renewal.RENEWED,
        Renewal.REGISTER_AGAIN,
        Renewal.NO_LONGER_YOURS,
        Renewal.REGISTER_AGAIN,
    ]


async def test_renewal_restores_a_ttl_key_that_vanished(bench: Bench) -> None:
    connected = await bench.connect("anna")
    await bench.redis.delete(ALIVE)
    assert await bench.store.renew(POOL, [("s-anna", connected.connection_id)]) == [Renewal.RENEWED]
    assert (await bench.redis.get(ALIVE)).decode() == connected.connection_id


async def test_a_lost_connection_leaves_the_session_online_for_its_grace(bench: Bench) -> None:
    connected = await bench.connect("anna")
    assert await bench.drop(connected)
    await bench.pass_time(9)
    assert (await bench.look("anna")).online
    await bench.pass_time(1)
    assert not (await bench.look("anna")).online
    assert (await bench.event_types())[-2:] == ["disconnected", "offline"]


async def test_a_lost_connection_cannot_be_renewed(bench: Bench) -> None:
    connected = await bench.connect("anna")
    await bench.drop(connected)
    held = [("s-anna", connected.connection_id)]
    assert await bench.store.renew(POOL, held) == [Renewal.REGISTER_AGAIN]
    await bench.pass_time(10)
    assert not (await bench.look("anna")).online


async def test_a_late_close_of_a_replaced_connection_changes_nothing(bench: Bench) -> None:
    old = await bench.connect("anna", tab="t1", attempt=1)
    await bench.hello("anna", tab="t1", attempt=2)
    before = await bench.look("anna"), await bench.events()
    assert not await bench.drop(old)
    assert (await bench.look("anna"), await bench.events()) == before


async def test_a_delayed_hello_of_the_same_tab_changes_nothing(bench: Bench) -> None:
    newer = await bench.connect("anna", tab="t1", attempt=2)
    with pytest.raises(SupersededAttemptError):
        await bench.hello("anna", tab="t1", attempt=1)
    assert (await bench.redis.get(ALIVE)).decode() == newer.connection_id


async def test_another_tab_takes_the_session_over(bench: Bench) -> None:
    await bench.connect("anna", tab="t1", attempt=7)
    second = await bench.hello("anna", tab="t2", attempt=1)
    assert second.resumed
    assert second.record.tab == "t2"
    connected = [event for event in await bench.events() if event["type"] == "connected"]
    assert [(event["tab"], event["cause"]) for event in connected] == [("t1", "new"), ("t2", "replaced")]


async def test_connection_ids_rise(bench: Bench) -> None:
    ids = [int((await bench.connect(name)).connection_id) for name in ("a", "b", "c")]
    assert ids == sorted(set(ids))


async def test_connecting_to_unknown_or_ended_sessions_is_refused(bench: Bench) -> None:
    with pytest.raises(UnknownSessionError):
        await bench.hello("nobody")
    await bench.open("anna")
    await bench.finish("anna", EndReason.KICKED)
    with pytest.raises(SessionEndedError) as caught:
        await bench.hello("anna")
    assert caught.value.end_reason == "kicked"


async def test_an_expired_token_reconnects_within_resume_s_only(bench: Bench) -> None:
    connected = await bench.connect("anna")
    await bench.drop(connected)
    await bench.pass_time(900)
    again = await bench.hello("anna", token_expired=True)
    await bench.drop(again)
    await bench.pass_time(901)
    with pytest.raises(BadTokenError):
        await bench.hello("anna", token_expired=True)


async def test_http_heartbeats_keep_a_session_for_the_window_and_hidden_pages_longer(bench: Bench) -> None:
    connected = await bench.connect("anna", kind=ConnectionKind.HTTP, visible=True)
    await bench.pass_time(59)
    beat = Beat(session_id="s-anna", connection_id=connected.connection_id, visible=False, page="learning")
    assert (await bench.store.beat(POOL, beat)).record.current_page == "learning"
    await bench.pass_time(149)
    assert (await bench.look("anna")).online
    await bench.pass_time(1)
    assert not (await bench.look("anna")).online


async def test_a_heartbeat_of_an_old_connection_changes_nothing(bench: Bench) -> None:
    old = await bench.connect("anna", kind=ConnectionKind.HTTP)
    await bench.hello("anna", kind=ConnectionKind.HTTP, tab="other")
    before = await bench.look("anna")
    await bench.pass_time(1)
    with pytest.raises(StaleConnectionError):
        await bench.store.beat(POOL, Beat(session_id="s-anna", connection_id=old.connection_id, page="x"))
    assert await bench.look("anna") == before


async def test_update_changes_page_and_metadata_and_counts_versions(bench: Bench) -> None:
    opened = await bench.open("anna")
    seen = await bench.store.update(POOL, Update(session_id="s-anna", page="learning", metadata='{"x":2}'))
    assert (seen.record.current_page, seen.record.metadata) == ("learning", '{"x":2}')
    assert seen.record.version > opened.record.version
    again = await bench.store.update(POOL, Update(session_id="s-anna", page="learning"))
    assert again.record.version == seen.record.version


async def test_a_session_offline_for_long_is_abandoned(bench: Bench) -> None:
    await bench.configure(abandon_after_s=100)
    await bench.open("anna")
    await bench.pass_time(159)
    assert (await bench.look("anna")).record.status is Status.ACTIVE
    await bench.pass_time(1)
    record = (await bench.look("anna")).record
    assert (record.status, record.end_reason) == (Status.ABANDONED, EndReason.ABANDONED)


async def test_cleanup_abandons_only_those_away_for_longer(bench: Bench) -> None:
    await bench.open("anna")
    await bench.pass_time(100)
    here = await bench.connect("ben")
    await bench.pass_time(60, renewing=[here])
    assert await bench.store.cleanup(POOL, 50) == 1
    assert await bench.store.cleanup(POOL, 50) == 0
    assert (await bench.look("anna")).record.end_reason is EndReason.CLEANUP
    assert (await bench.look("ben")).online


async def test_a_pool_that_was_never_created_is_unknown(bench: Bench) -> None:
    with pytest.raises(UnknownPoolError):
        await bench.store.open("other", Open(session_id="x", user_id="anna"))


@pytest.mark.parametrize("jump_s", [-3600, 3600, 86_400 * 30])
async def test_a_clock_jump_expires_nobody_who_renews(bench: Bench, jump_s: int) -> None:
    connected = await bench.connect("anna")
    await bench.pass_time(7, renewing=[connected])
    await bench.set_clock(bench.wall_ms + jump_s * 1000)
    await bench.store.tick(POOL)
    await bench.pass_time(3)
    assert await bench.store.renew(POOL, [("s-anna", connected.connection_id)]) == [Renewal.RENEWED]
    await bench.pass_time(30, renewing=[connected])
    assert (await bench.look("anna")).online
    assert "offline" not in await bench.event_types()


async def test_events_are_numbered_without_gaps(bench: Bench) -> None:
    connected = await bench.connect("anna")
    await bench.claim("anna")
    await bench.drop(connected)
    await bench.pass_time(70)
    assert [int(event["seq"]) for event in await bench.events()] == list(
        range(1, len(await bench.events()) + 1)
    )
    assert len({event["epoch"] for event in await bench.events()}) == 1
