"""`presence migrate`: up to date, again without harm, and in words when it can't be."""

from __future__ import annotations

from persistence.migrations import printable
from tests.commands import complaints, presence_here


def test_without_a_database_it_says_so_and_succeeds() -> None:
    done = presence_here("migrate")
    assert done.returncode == 0
    assert "DATABASE_URL is not set" in done.stdout


def test_it_brings_a_new_database_up_to_date_once(empty_database_url: str) -> None:
    first = presence_here("migrate", DATABASE_URL=empty_database_url)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Applied")
    again = presence_here("migrate", DATABASE_URL=empty_database_url)
    assert again.stdout == "The database is up to date.\n"


def test_a_dry_run_says_what_it_would_do_and_does_none_of_it(empty_database_url: str) -> None:
    tried = presence_here("migrate", "--dry-run", DATABASE_URL=empty_database_url)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith("Would apply 0001_older_table, 0002_presence")
    assert tried.stdout.endswith("nothing was changed.\n")
    done = presence_here("migrate", DATABASE_URL=empty_database_url)
    assert done.stdout.startswith("Applied 0001_older_table, 0002_presence")


def test_it_prints_the_sql_for_the_schema_that_is_set() -> None:
    assert presence_here("migrate", "--print", PRESENCE_SCHEMA="history").stdout == printable("history")


def test_a_database_that_is_away_is_one_sentence_without_the_password() -> None:
    done = presence_here("migrate", DATABASE_URL="postgresql://someone:hunter2@127.0.0.1:1/nowhere")
    (line,) = complaints(done, exit_code=1)
    assert "database" in line
    assert "hunter2" not in line


def test_a_wrong_url_is_one_sentence() -> None:
    (line,) = complaints(presence_here("migrate", DATABASE_URL="mysql://db"), exit_code=2)
    assert line.startswith("DATABASE_URL must")
