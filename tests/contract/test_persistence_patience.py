"""What is asked of the history gets so long and no longer: a Postgres that hangs holds up nobody who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import asyncpg
import pytest

from persistence.analytics import Analytics
from persistence.connect import connect
from persistence.errors import POSTGRES_AWAY
from persistence.forgetting import Erased, Forgetting
from persistence.migrations import migrate
from persistence.patience import transaction
from persistence.plan.history import Arrivals
from persistence.retention import Retention
from server.embedded import EmbeddedPostgres
from tests.contract.persistence_scale import questions
from tests.postgres_faults import frozen

WITHIN_S = 0.5
# Nobody is measured by it: it only ends a test that would hang for ever.
HUNG_S = 30.0
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Asking = Callable[[], Awaitable[object]]


async def nobody(past: Mapping[str, Sequence[str]]) -> Erased:
    return Erased([session_id for found in past.values() for session_id in found], 1)


def asked(pool: Pool) -> dict[str, Asking]:
    """Everything that is asked of the history beside the flush and the listings."""
    analytics = Analytics(pool, within_s=WITHIN_S)
    names = ("languages", "language_days", "durations", "peak_hours", "concurrency", "waits", "endings")
    return {
        **{name: partial(getattr(analytics, name), "main", 7) for name in names},
        "plan": lambda: Arrivals(pool, within_s=WITHIN_S).demand("main", 7),
        "retention": lambda: Retention(pool, days=1, within_s=WITHIN_S).delete_if_due(),
        "forget": lambda: Forgetting(pool, within_s=WITHIN_S).forget("anna", nobody),
    }


@pytest.fixture
async def pool(own_postgres: EmbeddedPostgres) -> AsyncIterator[Pool]:
    await migrate(own_postgres.url, "public")
    async with await connect(own_postgres.url, max_size=2) as pool:
        yield pool


async def test_nothing_is_left_out_of_what_is_asked(pool: Pool) -> None:
    unasked = questions(Analytics(pool))
    assert len(unasked) == len(asked(pool)) - len(("plan", "retention", "forget"))
    for asking in unasked.values():
        await asking


async def test_a_frozen_postgres_holds_up_nobody_and_answers_again_when_it_is_back(
    own_postgres: EmbeddedPostgres, pool: Pool
) -> None:
    """With connections that stand, and with more questions than connections."""
    asking = asked(pool)
    for ask in asking.values():
        await ask()
    with frozen(own_postgres):
        async with asyncio.timeout(HUNG_S):
            answers = await asyncio.gather(*(ask() for ask in asking.values()), return_exceptions=True)
    for name, answer in zip(asking, answers, strict=True):
        assert isinstance(answer, POSTGRES_AWAY), f"{name}: {answer!r}"
    for ask in asking.values():
        await ask()


async def test_who_is_cancelled_meanwhile_is_so_at_once(own_postgres: EmbeddedPostgres, pool: Pool) -> None:
    patient = Analytics(pool, within_s=3600)
    await patient.languages("main", 7)
    with frozen(own_postgres):
        asking = asyncio.create_task(patient.languages("main", 7))
        async with asyncio.timeout(HUNG_S):
            while pool.get_idle_size():  # noqa: ASYNC110 - the question is under way when none is left
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    assert await patient.languages("main", 7) == []


async def test_a_question_to_which_the_answer_takes_too_long_is_given_up_by_postgres_itself(
    pool: Pool,
) -> None:
    """Or the server would go on working for nobody."""
    with pytest.raises(asyncpg.QueryCanceledError):
        async with transaction(pool, WITHIN_S, readonly=True) as connection:
            await connection.fetch("select pg_sleep(60)")


async def test_a_report_may_write_nothing_and_a_plan_sees_one_moment(pool: Pool) -> None:
    async with transaction(pool, readonly=True, isolation="repeatable_read") as connection:
        assert await connection.fetchval("show transaction_read_only") == "on"
        assert await connection.fetchval("show transaction_isolation") == "repeatable read"


async def test_while_somebody_holds_the_table_nobody_is_forgotten_in_part(pool: Pool) -> None:
    await pool.execute("insert into presence (session_id, user_id) values ('s1', 'anna')")
    erased: list[object] = []

    async def erase(past: Mapping[str, Sequence[str]]) -> Erased:
        erased.append(past)
        return await nobody(past)

    forgetting = Forgetting(pool, within_s=WITHIN_S)
    async with pool.acquire() as other, other.transaction():
        await other.execute("update presence set current_page = 'x'")
        with pytest.raises(POSTGRES_AWAY):
            await forgetting.forget("anna", erase)
    assert erased == []
    assert await forgetting.forget("anna", erase) == 1


async def test_a_postgres_that_freezes_while_the_live_state_is_erased_is_told_again_by_a_repetition(
    own_postgres: EmbeddedPostgres, pool: Pool
) -> None:
    await pool.execute("insert into presence (session_id, user_id) values ('s1', 'anna')")

    async def freezing(past: Mapping[str, Sequence[str]]) -> Erased:
        freeze.__enter__()
        return await nobody(past)

    freeze = frozen(own_postgres)
    forgetting = Forgetting(pool, within_s=WITHIN_S)
    async with asyncio.timeout(HUNG_S):
        with pytest.raises(TimeoutError):
            await forgetting.forget("anna", freezing)
        freeze.__exit__(None, None, None)
        assert await forgetting.forget("anna", nobody) == 1
    assert await pool.fetchval("select count(*) from presence") == 0
