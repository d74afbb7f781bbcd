"""The repository against a real Postgres: rows move forward only, and listings go on where they stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from persistence.connect import connect
from persistence.errors import UnwritableRowsError
from persistence.port import Refusal
from persistence.repository import Repository
from persistence.rows import PoolRow, PresenceRow
from tests.contract.persistence_model import START_MS, ended, lines, row


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await connect(database_url)
    yield pool
    await pool.close()


@pytest.fixture
def repository(pool: asyncpg.Pool[asyncpg.Record]) -> Repository:
    return Repository(pool, "public")


async def stored(repository: Repository, session_id: str = "s1") -> PresenceRow:
    found = await repository.session(session_id)
    assert found is not None
    return found


async def test_a_row_comes_back_as_it_was_written(repository: Repository) -> None:
    full = ended(
        language_code="de",
        current_page="learning",
        interview_started_at_ms=START_MS + 1,
        interview_ended_at_ms=START_MS + 59_999,
        waited_s=1.25,
        metadata='{"round": 2}',
    )
    assert await repository.write(lines([full])) == []
    assert await stored(repository) == full


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("page", ["", "NULL", "{,}", '"\\', "ä न 😀", " x\ny "])
async def test_a_text_comes_back_whatever_stands_in_it(
    repository: Repository, page: str, number: int
) -> None:
    rows = [
        row(f"s{each}", current_page=page if each == 0 else None, metadata="{}") for each in range(number)
    ]
    await repository.write(lines(rows))
    assert [await repository.session(each.session_id) for each in rows] == rows


async def test_what_separates_values_is_replaced_in_them(repository: Repository) -> None:
    """Nothing that came through the server has control characters."""
    await repository.write(lines([row(current_page="a\x1fb\x1ec"), row("s2", current_page="\x1e")]))
    assert (await stored(repository)).current_page == "a\ufffdb\ufffdc"
    assert (await stored(repository, "s2")).current_page == "\ufffd"


async def test_a_session_that_nobody_wrote_is_not_found(repository: Repository) -> None:
    assert await repository.session("nobody") is None


async def test_writing_nothing_does_nothing(repository: Repository) -> None:
    assert await repository.write(lines([])) == []


async def test_a_higher_version_replaces_a_lower_one(repository: Repository) -> None:
    await repository.write(lines([row(version=1)]))
    await repository.write(lines([row(version=2, current_page="learning")]))
    assert (await stored(repository)).current_page == "learning"


async def test_a_lower_version_changes_nothing_and_is_told_by_whom_it_was_refused(
    repository: Repository,
) -> None:
    await repository.write(lines([row(version=5, current_page="new")]))
    (refusal,) = await repository.write(
        lines([row(version=4, current_page="old", last_seen_ms=START_MS + 9)])
    )
    assert refusal == Refusal("s1", 4, START_MS + 9, refused_by=5)
    assert (await stored(repository)).current_page == "new"


async def test_of_one_version_the_newer_last_seen_counts(repository: Repository) -> None:
    await repository.write(lines([row(last_seen_ms=START_MS + 10)]))
    (older,) = await repository.write(lines([row(last_seen_ms=START_MS + 9)]))
    assert await repository.write(lines([row(last_seen_ms=START_MS + 11)])) == []
    assert older == Refusal("s1", 1, START_MS + 9, refused_by=1)
    assert (await stored(repository)).last_seen_ms == START_MS + 11


async def test_the_same_row_again_counts_as_written(repository: Repository) -> None:
    for _ in range(2):
        assert await repository.write(lines([row()])) == []


@pytest.mark.parametrize("status", ["active", "abandoned"])
async def test_completed_is_final_for_the_same_stay(repository: Repository, status: str) -> None:
    await repository.write(lines([ended()]))
    (refusal,) = await repository.write(lines([row(status=status, version=99)]))
    assert refusal == Refusal("s1", 99, START_MS, refused_by=None, final=True)
    assert (await stored(repository)).status == "completed"


async def test_an_older_row_of_a_completed_stay_is_told_both_reasons(repository: Repository) -> None:
    await repository.write(lines([ended(version=9)]))
    (refusal,) = await repository.write(lines([row(version=3)]))
    assert (refusal.refused_by, refusal.final) == (9, True)


async def test_an_earlier_stay_can_not_undo_the_completion_of_a_later_one(repository: Repository) -> None:
    await repository.write(lines([ended(started_at_ms=START_MS)]))
    (refusal,) = await repository.write(lines([row(version=99, started_at_ms=START_MS - 1)]))
    assert refusal.final
    assert (await stored(repository)).status == "completed"


async def test_a_completed_row_may_still_be_completed_further(repository: Repository) -> None:
    await repository.write(lines([ended(version=9)]))
    await repository.write(lines([ended(version=10, waited_s=4.0)]))
    assert (await stored(repository)).waited_s == 4.0


async def test_the_same_id_started_again_later_replaces_a_completed_row(repository: Repository) -> None:
    await repository.write(lines([ended(version=9)]))
    again = row(version=10, started_at_ms=START_MS + 90_000, last_seen_ms=START_MS + 90_000)
    await repository.write(lines([again]))
    assert await stored(repository) == again._replace(metadata="{}")


async def test_an_abandoned_session_may_come_back(repository: Repository) -> None:
    await repository.write(lines([ended(status="abandoned", version=9)]))
    await repository.write(lines([row(version=10)]))
    assert (await stored(repository)).status == "active"


async def test_of_one_batch_those_that_were_refused_are_told_and_why(repository: Repository) -> None:
    await repository.write(lines([row("old", version=5), ended("done", version=5)]))
    refused = await repository.write(lines([row("old", version=4), row("new"), row("done", version=6)]))
    assert [(o.session_id, o.refused_by, o.final) for o in refused] == [
        ("old", 5, False),
        ("done", None, True),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        row("bad", current_page="nul \x00"),
        row("bad", user_id="lone surrogate \ud800"),
        row("bad", metadata='{"a": "\\u0000"}'),
        row("bad", metadata="not json"),
        row("bad", status="asleep"),
        row("bad", version=2**63),
        row("bad", user_id="".join(chr(random.Random(i).randint(33, 9000)) for i in range(9000))),
    ],
    ids=["nul", "surrogate", "nul-in-json", "no-json", "status", "too-big", "too-long-for-the-index"],
)
async def test_an_unwritable_row_is_named_as_such_and_nothing_of_its_batch_is_written(
    repository: Repository, bad: PresenceRow
) -> None:
    with pytest.raises(UnwritableRowsError):
        await repository.write(lines([row("a"), bad, row("z")]))
    assert await repository.sessions("main") == []


async def test_writers_of_the_same_rows_in_any_order_never_deadlock(repository: Repository) -> None:
    ids = [f"s{number}" for number in range(300)]

    async def writer(seed: int) -> None:
        shuffled = random.Random(seed)
        for version in range(1, 9):
            shuffled.shuffle(ids)
            await repository.write(lines([row(each, version=version * 10 + seed) for each in list(ids)]))

    await asyncio.gather(*(writer(seed) for seed in range(4)))
    versions = {each.version for each in await repository.sessions("main", limit=300)}
    assert versions == {83}


async def test_a_listing_goes_on_where_it_stopped_even_among_equal_start_times(
    repository: Repository,
) -> None:
    await repository.write(lines([row(f"s{n}", started_at_ms=START_MS + n // 3) for n in range(10)]))
    seen: list[PresenceRow] = []
    before: tuple[int, str] | None = None
    while page := await repository.sessions("main", before=before, limit=4):
        seen += page
        before = (page[-1].started_at_ms, page[-1].session_id)
    assert [each.session_id for each in seen] == [f"s{n}" for n in range(9, -1, -1)]


async def test_ids_are_ordered_bytewise(repository: Repository) -> None:
    await repository.write(lines([row(each) for each in ("a", "B", "_", "0", "Z", "b")]))
    listed = [each.session_id for each in await repository.sessions("main")]
    assert listed == sorted(listed, reverse=True)


async def test_a_listing_is_filtered_by_each_of_its_filters(repository: Repository) -> None:
    await repository.write(
        lines(
            [
                row("a"),
                row("b", language_code="de"),
                row("c", user_id="ben"),
                ended("d"),
                row("e", pool="other"),
            ]
        )
    )

    def ids(listed: list[PresenceRow]) -> list[str]:
        return [each.session_id for each in listed]

    assert ids(await repository.sessions("main")) == ["d", "c", "b", "a"]
    assert ids(await repository.sessions("main", status="completed")) == ["d"]
    assert ids(await repository.sessions("main", language_code="de")) == ["b"]
    assert ids(await repository.sessions("main", user_id="ben")) == ["c"]
    assert ids(await repository.sessions("other", status="active")) == ["e"]


async def test_a_page_of_a_long_history_is_read_from_the_index(
    repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    await repository.write(lines([row(f"s{n}", started_at_ms=START_MS + n) for n in range(5000)]))
    await pool.execute("analyze presence")
    query = repository._sql["sessions"]
    for number, value in enumerate(
        ("'main'", "null", "null", "null", str(START_MS + 2500), "'s2500'", "50"), 1
    ):
        query = query.replace(f"${number}", value)
    plan = "\n".join(line[0] for line in await pool.fetch("explain " + query))
    assert "idx_presence_newest" in plan
    assert "Seq Scan" not in plan


async def test_writing_last_seen_touches_no_index(
    repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    await repository.write(lines([row(f"s{n}") for n in range(20)]))
    for turn in range(1, 4):
        await repository.write(lines([row(f"s{n}", last_seen_ms=START_MS + turn) for n in range(20)]))
    await pool.execute("select pg_stat_force_next_flush()")
    counts = await pool.fetch(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'presence'"
    )
    assert [tuple(each) for each in counts] == [(60, 60)]


async def test_pools_are_kept_as_last_flushed(
    repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    await repository.write_pools([PoolRow("main", 3, "open"), PoolRow("b", 1, "open")])
    await repository.write_pools([PoolRow("main", 7, "paused")])
    rows = await pool.fetch('select pool, "limit", mode from presence_pools order by pool')
    assert [tuple(each) for each in rows] == [("b", 1, "open"), ("main", 7, "paused")]


async def test_stale_sessions_are_found_in_batches_and_abandoned_if_still_stale(
    repository: Repository,
) -> None:
    await repository.write(lines([row(f"s{n}", is_in_interview=True) for n in range(5)]))
    await repository.write(lines([ended("done"), row("fresh", last_seen_ms=2 * START_MS)]))
    assert await repository.stale(3600, limit=3) == [("s0", "main"), ("s1", "main"), ("s2", "main")]
    assert await repository.stale(3600, after="s2", limit=3) == [("s3", "main"), ("s4", "main")]
    assert sorted(await repository.abandon(["s1", "done", "fresh", "nobody"], 3600)) == ["s1"]
    gone = await stored(repository, "s1")
    assert (gone.status, gone.end_reason, gone.is_in_interview) == ("abandoned", "abandoned", False)
    assert gone.interview_ended_at_ms == START_MS


async def test_all_works_without_prepared_statements_as_a_transaction_pooler_wants_it(
    database_url: str,
) -> None:
    pool = await connect(database_url + "?pgbouncer=true")
    repository = Repository(pool, "public")
    await repository.write(lines([row(), ended("done")]))
    assert len(await repository.sessions("main")) == 2
    assert await pool.fetchval("select count(*) from pg_prepared_statements where name <> ''") == 0
    await pool.close()


async def test_the_connections_name_themselves(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    assert await pool.fetchval("show application_name") == "interview-presence"
