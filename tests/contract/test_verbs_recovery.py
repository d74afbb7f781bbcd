"""The recovery window: Redis comes back empty, old, or as another server, and nobody loses what they had."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from persistence.lines import row_of
from persistence.port import Refusal, Written
from server.domain.errors import SessionEndedError, StaleConnectionError, UnknownSessionError
from server.domain.interview import Admission, InterviewState, Reason
from server.domain.pool import Mode, PoolChanges, PoolConfig
from server.domain.session import Status
from server.live.dirty import StoreDirtySessions
from server.live.store import Store
from server.live.verbs import Connect, Connected, Known, Open, Renewal
from tests.contract.conftest import POOL, START_MS, TEST_CLOCK, Bench, make_bench

GRANTED, OFFERED, WAITING, NONE = (
    InterviewState.GRANTED,
    InterviewState.OFFERED,
    InterviewState.WAITING,
    InterviewState.NONE,
)
RECOVERY_S = 5
CONFIG = f"presence:{{{POOL}}}:config"


@pytest.fixture
async def bench(each_redis_url: str) -> AsyncIterator[Bench]:
    """A pool with one place whose first recovery window is over."""
    made = await make_bench(each_redis_url, recovery_s=RECOVERY_S, limit=1)
    await made.pass_time(RECOVERY_S)
    yield made
    await made.redis.aclose()


async def enter(bench: Bench, *names: str) -> list[Connected]:
    connected = []
    for name in names:
        connected.append(await bench.connect(name))
        await bench.claim(name)
    return connected


async def remembered(bench: Bench, name: str) -> Known:
    """What the session's node knows of it, or a token issued now."""
    seen = await bench.look(name)
    standing = seen.admission
    return Known(
        user_id=seen.record.user_id,
        started_at=seen.record.started_at,
        fence=standing.fence,
        holds=standing.state is GRANTED,
        ticket=standing.ticket,
    )


async def register(bench: Bench, connected: Connected, known: Known) -> Connected:
    """What a node does for each connection that it holds when it sees that Redis lost its memory."""
    item = Connect(
        session_id=connected.record.session_id,
        node="n1",
        connection_id=connected.connection_id,
        known=known,
    )
    return await bench.store.connect(POOL, item)


async def wipe(bench: Bench) -> None:
    await bench.redis.flushall()
    await bench.set_clock(bench.wall_ms + 1000)
    await bench.configure()


async def copy_of(bench: Bench) -> dict[bytes, bytes]:
    return {key: await bench.redis.dump(key) for key in await bench.redis.keys("presence:*")}


async def restore(bench: Bench, copy: dict[bytes, bytes]) -> None:
    """Redis starts again from an old copy: as another process, so with another run id than the copy names."""
    await bench.redis.flushall()
    for key, value in copy.items():
        await bench.redis.restore(key, 0, value)
    await bench.redis.hset(CONFIG, "run_id", "another")
    await bench.set_clock(bench.wall_ms + 1000)


async def state(bench: Bench, name: str) -> InterviewState:
    return (await bench.look(name)).admission.state


async def standing(bench: Bench, name: str) -> Admission:
    return (await bench.look(name)).admission


async def line(bench: Bench) -> list[str]:
    return (await bench.store.snapshot(POOL)).line


async def test_in_a_new_pools_window_claims_only_join_until_it_closes(each_redis_url: str) -> None:
    bench = await make_bench(each_redis_url, recovery_s=RECOVERY_S)
    a = await bench.connect("a")
    assert (await bench.claim("a")).state is WAITING
    assert (await bench.claim("a", wait=False)).state is WAITING
    pool = await bench.store.state(POOL)
    assert (pool.recovering, pool.available) == (True, 0)
    await bench.pass_time(RECOVERY_S - 1, renewing=[a])
    assert await state(bench, "a") is WAITING
    await bench.pass_time(1)
    assert await state(bench, "a") is GRANTED
    types = await bench.event_types()
    assert types[0] == "recovery_started"
    assert types.count("recovery_ended") == 1
    await bench.redis.aclose()


async def test_after_a_wipe_permit_fence_and_the_lines_order_come_back(bench: Bench) -> None:
    a, b, c = await enter(bench, "a", "b", "c")
    known = {name: await remembered(bench, name) for name in ("a", "b", "c")}
    epoch = (await bench.store.state(POOL)).epoch
    await wipe(bench)
    assert (await bench.store.state(POOL)).epoch != epoch
    assert (await bench.connect("new")).admission.state is NONE
    await bench.claim("new")
    for connected, name in ((c, "c"), (a, "a"), (b, "b")):
        back = await register(bench, connected, known[name])
        assert back.connection_id == connected.connection_id
        assert back.record.started_at == known[name].started_at
    assert (await standing(bench, "a")).fence == known["a"].fence
    assert await line(bench) == ["s-b", "s-c", "s-new"]
    await bench.pass_time(RECOVERY_S, renewing=[a, b, c])
    assert await state(bench, "a") is GRANTED
    assert await line(bench) == ["s-b", "s-c", "s-new"]
    assert (await bench.store.state(POOL)).active == 1


async def test_registering_again_may_be_repeated(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    known = {name: await remembered(bench, name) for name in ("a", "b")}
    await wipe(bench)
    first = [(await register(bench, each, known[name])).admission for each, name in ((a, "a"), (b, "b"))]
    again = [(await register(bench, each, known[name])).admission for each, name in ((a, "a"), (b, "b"))]
    assert first == again
    granted = [event for event in await bench.events() if event["type"] == "granted"]
    assert [event["cause"] for event in granted] == ["recovered"]


async def test_fences_and_tickets_rise_above_all_that_were_known(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    far = START_MS + 999_999
    known_a = Known(user_id="a", started_at=START_MS, fence=far, holds=True)
    known_b = Known(user_id="b", started_at=START_MS, ticket=far)
    await wipe(bench)
    await register(bench, a, known_a)
    await register(bench, b, known_b)
    await bench.connect("c")
    assert ((await bench.claim("c")).ticket or 0) > far
    await bench.pass_time(RECOVERY_S, renewing=[a, b])
    await bench.release("a")
    assert ((await standing(bench, "b")).fence or 0) > far


async def test_nothing_expires_in_the_window(bench: Bench) -> None:
    await bench.configure(recovery_s=100, offer_s=90)
    _, b, c = await enter(bench, "a", "b", "c")
    await bench.release("a")
    await bench.drop(c)
    await bench.redis.hset(CONFIG, "run_id", "another")
    await bench.pass_time(99)
    assert [await state(bench, name) for name in ("b", "c")] == [OFFERED, WAITING]
    assert await bench.store.cleanup(POOL, 0) == 0
    assert "offline" not in await bench.event_types()
    assert "offer_missed" not in await bench.event_types()
    assert await bench.store.renew(POOL, [("s-b", b.connection_id)]) == [Renewal.RENEWED]
    await bench.pass_time(2)
    assert await state(bench, "b") is WAITING


async def test_another_server_opens_the_window_and_the_old_state_goes_on(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    before = await bench.store.snapshot(POOL)
    await bench.redis.hset(CONFIG, "run_id", "another")
    await bench.store.tick(POOL)
    after = await bench.store.snapshot(POOL)
    assert after.state.recovering
    assert after.state.epoch != before.state.epoch
    assert after.state.seq == 1
    assert (after.holders, after.line) == (before.holders, before.line)
    await bench.release("a")
    assert await state(bench, "b") is WAITING
    await bench.pass_time(RECOVERY_S, renewing=[a, b])
    assert await state(bench, "b") is GRANTED


async def test_the_higher_fence_wins_over_an_old_copy(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    copy = await copy_of(bench)
    await bench.release("a")
    known = {name: await remembered(bench, name) for name in ("a", "b")}
    assert known["b"].holds
    await restore(bench, copy)
    assert (await standing(bench, "a")).state is GRANTED
    known_a = Known(user_id="a", started_at=START_MS, fence=known["b"].fence and known["b"].fence - 1)
    await register(bench, b, known["b"])
    await register(bench, a, known_a)
    assert (await standing(bench, "a")).state is NONE
    assert (await standing(bench, "b")).fence == known["b"].fence
    await bench.pass_time(RECOVERY_S, renewing=[a, b])
    assert (await bench.store.snapshot(POOL)).holders.keys() == {"s-b"}


async def test_an_older_fence_takes_nothing_from_redis(bench: Bench) -> None:
    (a,) = await enter(bench, "a")
    old = await remembered(bench, "a")
    await bench.release("a")
    newer = await bench.claim("a")
    await bench.redis.hset(CONFIG, "run_id", "another")
    assert (await register(bench, a, old)).admission == newer
    gone = Known(user_id="a", started_at=START_MS, fence=old.fence)
    assert (await register(bench, a, gone)).admission == newer


async def test_a_permit_that_was_given_back_is_not_revived_by_its_token(bench: Bench) -> None:
    await enter(bench, "a", "b")
    old = await remembered(bench, "a")
    await bench.release("a")
    await bench.redis.hset(CONFIG, "run_id", "another")
    assert (await bench.hello("a", known=old)).admission.reason is Reason.RELEASED
    assert (await bench.store.snapshot(POOL)).holders.keys() == {"s-b"}


async def test_a_reclaimed_permit_of_an_old_copy_becomes_the_place_that_the_node_knows(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    fence = (await standing(bench, "a")).fence
    copy = await copy_of(bench)
    await bench.release("a")
    await bench.claim("a")
    known_b = await remembered(bench, "b")
    known_a = Known(user_id="a", started_at=START_MS, fence=fence, ticket=(await standing(bench, "a")).ticket)
    await restore(bench, copy)
    await register(bench, a, known_a)
    await register(bench, b, known_b)
    assert await line(bench) == ["s-a"]
    assert (await bench.store.snapshot(POOL)).holders.keys() == {"s-b"}


async def test_a_place_in_line_that_was_given_up_for_a_later_one_is_the_later_one(bench: Bench) -> None:
    _, b, c = await enter(bench, "a", "b", "c")
    copy = await copy_of(bench)
    await bench.release("b")
    await bench.claim("b")
    known = {name: await remembered(bench, name) for name in ("b", "c")}
    await restore(bench, copy)
    await register(bench, b, known["b"])
    await register(bench, c, known["c"])
    assert await line(bench) == ["s-c", "s-b"]


@pytest.mark.parametrize("offer_s", [0, 90])
async def test_who_left_the_line_is_not_put_back_into_it_by_an_old_copy(bench: Bench, offer_s: int) -> None:
    await bench.configure(offer_s=offer_s)
    a, b, c = await enter(bench, "a", "b", "c")
    known = {"c": await remembered(bench, "c")}
    if offer_s:
        await bench.release("a")
        assert await state(bench, "b") is OFFERED
    copy = await copy_of(bench)
    await bench.release("b")
    for name in ("a", "b"):
        known[name] = await remembered(bench, name)
    await restore(bench, copy)
    for connected, name in ((a, "a"), (b, "b"), (c, "c")):
        await register(bench, connected, known[name])
    left = await standing(bench, "b")
    assert (left.state, left.reason) == (NONE, Reason.RELEASED)
    assert await line(bench) == ["s-c"]
    (told,) = [event for event in await bench.events() if event["type"] == "left_line"][-1:]
    assert (told["session_id"], told["cause"]) == ("s-b", "recovered")


async def test_who_joins_in_the_window_stays_in_the_line_though_the_node_has_not_heard_of_it(
    bench: Bench,
) -> None:
    await enter(bench, "a")
    b = await bench.connect("b")
    unheard = await remembered(bench, "b")
    await bench.redis.hset(CONFIG, "run_id", "another")
    await bench.claim("b")
    ticket = (await standing(bench, "b")).ticket
    assert (await register(bench, b, unheard)).admission.ticket == ticket
    await bench.set_clock(bench.wall_ms + 1)
    await bench.redis.hset(CONFIG, "run_id", "yet another")
    assert (await register(bench, b, unheard)).admission.state is NONE, "it joined in another window"


async def test_a_place_taken_over_in_the_window_stays_though_the_node_has_not_heard_of_it(
    bench: Bench,
) -> None:
    _, old = await enter(bench, "a", "b")
    opened = await bench.store.open(POOL, Open(session_id="s-b2", user_id="b", given=True))
    newer = await bench.store.connect(POOL, Connect(session_id=opened.session_id, node="n1"))
    unheard = await remembered(bench, "b2")
    await bench.redis.hset(CONFIG, "run_id", "another")
    await register(bench, old, await remembered(bench, "b"))
    assert (await bench.claim("b2", takeover=True)).state is WAITING
    assert (await register(bench, newer, unheard)).admission.state is WAITING
    assert await line(bench) == ["s-b2"]


@pytest.mark.parametrize("limit", [pytest.param(1, id="a place in line"), pytest.param(2, id="a permit")])
async def test_what_moved_to_the_persons_other_session_since_the_copy_is_not_doubled(
    bench: Bench, limit: int
) -> None:
    await bench.configure(limit=limit)
    await enter(bench, "a", "b")
    before = await remembered(bench, "b")
    await bench.store.open(POOL, Open(session_id="s-b2", user_id="b", given=True))
    newer = await bench.store.connect(POOL, Connect(session_id="s-b2", node="n1"))
    copy = await copy_of(bench)
    await bench.claim("b2", takeover=True)
    known = await remembered(bench, "b2")
    await restore(bench, copy)
    moved = await register(bench, newer, known)
    assert (moved.admission.ticket, moved.admission.fence) == (known.ticket, known.fence)
    assert await standing(bench, "b") == Admission(state=NONE, reason=Reason.TAKEN_OVER)
    assert (await bench.hello("b", known=before)).admission.state is NONE, "an old token"


@pytest.mark.parametrize("first", ["permit", "place"])
async def test_the_place_that_led_to_a_persons_permit_elsewhere_comes_not_back_beside_it(
    bench: Bench, first: str
) -> None:
    await enter(bench, "holder")
    await bench.open("b")
    await bench.claim("b")
    place = await remembered(bench, "b")
    await bench.store.open(POOL, Open(session_id="s-b2", user_id="b", given=True))
    newer = await bench.hello("b2")
    await bench.claim("b2", takeover=True)
    await bench.finish("holder")
    await bench.claim("b2")
    permit = await remembered(bench, "b2")
    assert permit.holds
    await wipe(bench)
    if first == "permit":
        await register(bench, newer, permit)
    await bench.hello("b", known=place)
    if first == "place":
        await register(bench, newer, permit)
    assert [(await bench.look(name)).admission.state for name in ("b2", "b")] == [GRANTED, NONE]
    await bench.configure(limit=2)
    await bench.pass_time(RECOVERY_S, renewing=[newer])
    assert (await bench.claim("b")).reason is Reason.ELSEWHERE


async def test_a_session_whose_record_alone_was_lost_leaves_nothing_of_its_old_standing(bench: Bench) -> None:
    (holder,) = await enter(bench, "a")
    known = await remembered(bench, "a")
    await bench.drop(holder)
    await bench.redis.delete(f"presence:{{{POOL}}}:session:s-a")
    back = await bench.hello("a", known=known)
    assert (await bench.claim("a")).state is GRANTED
    (waiter,) = await enter(bench, "b")
    await bench.pass_time(90, renewing=[back, waiter])
    assert (await bench.look("a")).admission.state is GRANTED
    assert (await bench.look("b")).admission.state is WAITING


async def test_a_page_whose_token_knows_of_no_place_does_not_lose_the_one_it_has(bench: Bench) -> None:
    await enter(bench, "a", "b")
    await bench.redis.hset(CONFIG, "run_id", "another")
    unheard = Known(user_id="b", started_at=START_MS)
    assert (await bench.hello("b", known=unheard)).admission.state is WAITING


async def test_a_clock_set_back_after_an_old_copy_came_back_leads_to_no_old_fence(bench: Bench) -> None:
    await enter(bench, "a")
    copy = await copy_of(bench)
    await bench.pass_time(1)
    await bench.release("a")
    newest = await bench.claim("a")
    await restore(bench, copy)
    await bench.store.tick(POOL)
    await bench.set_clock(START_MS - 3_600_000)
    await bench.pass_time(RECOVERY_S + 1)
    await bench.release("a")
    assert ((await bench.claim("a")).fence or 0) > (newest.fence or 0)


async def test_the_newest_connection_wins(bench: Bench) -> None:
    old = await bench.connect("a")
    newer = await bench.hello("a")
    known = await remembered(bench, "a")
    await wipe(bench)
    await register(bench, newer, known)
    with pytest.raises(StaleConnectionError):
        await register(bench, old, known)
    await wipe(bench)
    await register(bench, old, known)
    assert (await register(bench, newer, known)).connection_id == newer.connection_id
    assert ((await bench.hello("a")).connection_id) > newer.connection_id


async def test_a_page_that_speaks_up_in_the_window_adopts_itself_again(bench: Bench) -> None:
    await enter(bench, "a", "b")
    known = {name: await remembered(bench, name) for name in ("a", "b")}
    await wipe(bench)
    assert (await bench.hello("b", known=known["b"])).admission.ticket == known["b"].ticket
    assert (await bench.hello("a", known=known["a"])).admission.fence == known["a"].fence


async def test_who_speaks_up_after_the_window_only_gets_the_front_of_the_line(bench: Bench) -> None:
    await enter(bench, "a")
    known = await remembered(bench, "a")
    await wipe(bench)
    new, waiter = await enter(bench, "new", "waiter")
    await bench.pass_time(RECOVERY_S, renewing=[new, waiter])
    assert await state(bench, "new") is GRANTED
    late = await bench.hello("a", known=known)
    assert late.admission.state is NONE
    assert (await bench.claim("a")).position == 1
    assert await line(bench) == ["s-a", "s-waiter"]


async def test_a_session_that_nobody_knows_stays_unknown(bench: Bench) -> None:
    await enter(bench, "a")
    await wipe(bench)
    with pytest.raises(UnknownSessionError):
        await bench.hello("a")


async def test_an_operators_limit_comes_back_from_a_nodes_memory(bench: Bench) -> None:
    await bench.configure(limit=7, mode=Mode.PAUSED)
    await wipe(bench)
    config = await bench.store.config(POOL)
    assert (config.limit, config.mode) == (7, Mode.PAUSED)


async def test_what_an_app_declared_comes_back_from_a_nodes_memory(bench: Bench) -> None:
    await bench.configure(declared_limit=7)
    await bench.configure(limit=4)
    await wipe(bench)
    assert (await bench.configure(declared_limit=7)).limit == 4
    assert (await bench.configure(declared_limit=5)).limit == 5


async def test_the_newest_memory_of_any_node_wins(bench: Bench) -> None:
    other = Store(
        bench.redis,
        node="n2",
        defaults=PoolConfig(limit=1, offer_s=0, recovery_s=RECOVERY_S),
        timings=bench.store._timings,
        clock=TEST_CLOCK,
    )
    await bench.configure(limit=7)
    await other.config(POOL)
    await bench.set_clock(bench.wall_ms + 1000)
    await bench.configure(limit=8)
    await bench.redis.flushall()
    await bench.set_clock(bench.wall_ms + 1000)
    for store in (other, bench.store):
        await store.configure(POOL, PoolChanges(), actor="node")
    assert (await other.config(POOL)).limit == 8


async def test_a_limit_set_since_is_not_undone_by_an_older_memory(bench: Bench) -> None:
    await bench.configure(limit=7)
    await wipe(bench)
    await bench.configure(limit=2)
    assert (await bench.configure()).limit == 2


async def test_the_limit_holds_while_a_recovered_pool_has_too_many(bench: Bench) -> None:
    a, b = await enter(bench, "a", "b")
    known = await remembered(bench, "a")
    await wipe(bench)
    await register(bench, a, known)
    second = Known(user_id="b", started_at=START_MS, fence=(known.fence or 0) + 1, holds=True)
    await register(bench, b, second)
    c = (await enter(bench, "c"))[0]
    await bench.pass_time(RECOVERY_S, renewing=[a, b, c])
    assert [await state(bench, name) for name in ("a", "b", "c")] == [GRANTED, GRANTED, WAITING]
    await bench.release("a")
    assert await state(bench, "c") is WAITING
    await bench.release("b")
    assert await state(bench, "c") is GRANTED


async def test_a_stay_that_the_table_knows_as_completed_ends_here_too(bench: Bench) -> None:
    """An old copy has the session as running; the row that Postgres refuses as final says otherwise."""
    a, b = await enter(bench, "a", "b")
    known_b = await remembered(bench, "b")
    copy = await copy_of(bench)
    await bench.finish("a")
    await restore(bench, copy)
    await bench.store.tick(POOL)
    await register(bench, b, known_b)
    await bench.pass_time(RECOVERY_S, renewing=[a, b])
    assert await state(bench, "a") is GRANTED
    dirty = StoreDirtySessions(bench.store)
    taken = await dirty.take(POOL, 10)
    (row,) = [row for row in map(row_of, taken.lines) if row.session_id == "s-a"]
    refused = Refusal(session_id="s-a", version=row.version, last_seen_ms=row.last_seen_ms, final=True)
    await dirty.ack(POOL, taken, Written([refused]))
    assert await state(bench, "b") is GRANTED
    with pytest.raises(SessionEndedError):
        await bench.look("a")
    assert (await bench.claim("a")).reason is Reason.ENDED
    assert Status.COMPLETED.value.encode() in await bench.redis.hvals(f"presence:{{{POOL}}}:tombstone:s-a")


async def test_a_tombstone_outweighs_what_a_token_remembers(bench: Bench) -> None:
    await enter(bench, "a")
    known = await remembered(bench, "a")
    await bench.finish("a")
    await bench.redis.hset(CONFIG, "run_id", "another")
    with pytest.raises(SessionEndedError):
        await bench.hello("a", known=known)
