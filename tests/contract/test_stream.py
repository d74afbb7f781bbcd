"""What lies behind a place in the stream: page by page, and whether it is whole."""

from __future__ import annotations

import pytest

from server.live import stream
from server.live.stream import BEGINNING, Backlog, LostError, StreamId, newest
from tests.contract.conftest import POOL, Bench

EVENTS = f"presence:{{{POOL}}}:events"


async def users(backlog: Backlog) -> list[str | None]:
    """Whose events come, to the end."""
    found: list[str | None] = []
    while True:
        events, is_end = await backlog.page()
        found += [event.user_id for event in events]
        if is_end:
            return found


async def opened(bench: Bench, *names: str) -> list[StreamId]:
    """Open a session for each; where its event stands."""
    places = []
    for name in names:
        await bench.open(name)
        places.append((await newest(bench.store, POOL))[0])
    return places


async def test_pages_follow_one_another_to_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "EVENTS_PER_PAGE", 2)
    places = await opened(bench, "a", "b", "c", "d", "e", "f")
    backlog = Backlog(bench.store, POOL, places[0])
    assert await users(backlog) == ["b", "c", "d", "e", "f"]
    assert backlog.position == places[-1]
    await opened(bench, "g")
    assert await users(backlog) == ["g"]


async def test_from_the_beginning_comes_all_that_there_is(bench: Bench) -> None:
    await opened(bench, "a", "b", "c")
    await bench.redis.xtrim(EVENTS, maxlen=2, approximate=False)
    assert await users(Backlog(bench.store, POOL, BEGINNING)) == ["b", "c"]


async def test_what_was_trimmed_while_it_was_read_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "EVENTS_PER_PAGE", 2)
    (first, *_) = await opened(bench, "a", "b", "c", "d", "e")
    backlog = Backlog(bench.store, POOL, first)
    assert [event.user_id for event in (await backlog.page())[0]] == ["b", "c"]
    await bench.redis.xtrim(EVENTS, maxlen=1, approximate=False)
    with pytest.raises(LostError, match="trimmed"):
        await backlog.page()


async def test_what_was_deleted_on_purpose_is_no_loss(bench: Bench) -> None:
    places = await opened(bench, "a", "b", "c", "d")
    await bench.redis.xdel(EVENTS, str(places[1]), str(places[2]))
    assert await users(Backlog(bench.store, POOL, places[0])) == ["d"]
    assert await users(Backlog(bench.store, POOL, places[1])) == ["d"]


async def test_entries_of_others_are_passed_over(bench: Bench) -> None:
    (first,) = await opened(bench, "a")
    await bench.redis.xadd(EVENTS, {"note": "an operator was here"})
    await opened(bench, "b")
    assert await users(Backlog(bench.store, POOL, first)) == ["b"]
    await bench.redis.xadd(EVENTS, {"note": "and again"})
    place, mark = await newest(bench.store, POOL)
    await opened(bench, "c")
    assert await users(Backlog(bench.store, POOL, place, mark)) == ["c"]


async def test_another_epoch_is_a_loss_before_or_behind_it(bench: Bench) -> None:
    (first, second) = await opened(bench, "a", "b")
    backlog = Backlog(bench.store, POOL, first)
    assert await users(backlog) == ["b"]
    await bench.redis.xadd(EVENTS, {"type": "recovery_started", "seq": 1, "epoch": "another", "at": 1})
    with pytest.raises(LostError, match="new_epoch"):
        await backlog.page()
    with pytest.raises(LostError, match="new_epoch"):
        await Backlog(bench.store, POOL, second).page()


async def test_a_place_that_redis_does_not_know_yet_is_one_of_a_lost_future(bench: Bench) -> None:
    await opened(bench, "a")
    with pytest.raises(LostError, match="restored"):
        await Backlog(bench.store, POOL, StreamId(2**63, 0)).page()


async def test_a_stream_that_is_gone_was_trimmed(bench: Bench) -> None:
    (first,) = await opened(bench, "a")
    await bench.redis.delete(EVENTS)
    with pytest.raises(LostError, match="trimmed"):
        await Backlog(bench.store, POOL, first).page()
    assert (await newest(bench.store, POOL)) == (BEGINNING, None)


@pytest.mark.parametrize(
    ("text", "place"),
    [("5", (5, 0)), ("5-7", (5, 7)), ("0-0", (0, 0)), ("18446744073709551615-0", (2**64 - 1, 0))],
)
def test_an_id_is_read_as_redis_writes_it(text: str, place: tuple[int, int]) -> None:
    assert StreamId.parse(text) == place


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "a", "1-2-3", "18446744073709551616", "\uff11"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the id of an event"):
        StreamId.parse(text)
