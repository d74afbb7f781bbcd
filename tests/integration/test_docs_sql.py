"""The pages' SQL runs as pasted, on a database like a Supabase project, and the commands say what the pages show."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from persistence.connect import Mode, connect_once, understand
from persistence.migrations import printable
from server.doctor.finding import explained
from server.embedded import EmbeddedPostgres
from tests.commands import presence
from tests.conftest import TEST_API_KEY, TEST_SECRET, StartPostgres
from tests.documentation import PAGES, ROOT, sections, shown, sql_of
from tests.supabase import Project, project_on

SUPABASE_MD = ROOT / "docs/supabase.md"
CHECKS = 21
FOLDERS = ("docs", "examples", "presence_tracker", "client_js")
STATEMENT = re.compile(
    r"\b(?:select\b.+\bfrom|insert into|update \w+ set|delete from|alter (?:table|role)|create (?:table|view))\b",
    re.IGNORECASE,
)
PASSWORD = "PASSWORD"  # as on the page
UPDATE = "run UPDATE_DOCS=1 pytest tests/integration/test_docs_sql.py"
# The extension is no part of Postgres: this runs what it is given at once, instead of at night.
CRON = """
create schema cron;
create table cron.job (name text primary key, schedule text, command text);
create function cron.schedule(name text, schedule text, command text) returns bigint language plpgsql as $$
begin
  execute command;
  insert into cron.job values (name, schedule, command);
  return 1;
end $$;
create function cron.unschedule(job text) returns boolean language sql as
  'with gone as (delete from cron.job where name = $1 returning 1) select count(*) = 1 from gone';
"""


@pytest.fixture(scope="module")
def supabase(
    start_postgres: StartPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """A server of its own: roles belong to all of a server."""
    with start_postgres(tmp_path_factory.mktemp("supabase")) as server:
        yield server


@pytest.fixture
async def empty(supabase: EmbeddedPostgres) -> AsyncIterator[Project]:
    """A new project."""
    async with project_on(supabase, old=False) as made:
        yield made


@pytest.fixture
async def old(supabase: EmbeddedPostgres) -> AsyncIterator[Project]:
    """A project with the old tracker's table."""
    async with project_on(supabase, old=True) as made:
        yield made


async def command(url: str, *arguments: str) -> str:
    """What a command prints; the owner of a project is called postgres."""
    keys = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
    done = await asyncio.to_thread(presence, *arguments, DATABASE_URL=url, **keys)
    return done.stdout.replace("owner, past", "postgres, past")


async def doctor(url: str) -> str:
    """What it says of the tables."""
    lines = (await command(url, "doctor")).splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "postgres schema" in line)
    return "".join(line for line in lines[first:] if line[8:].startswith("postgres"))


async def test_an_empty_project_goes_the_way_that_the_page_shows(empty: Project) -> None:
    assert shown(SUPABASE_MD, "doctor: empty", await doctor(empty.url("owner"))), UPDATE
    pasted = (ROOT / "persistence/sql/supabase_presence_schema.sql").read_text(encoding="utf-8")
    assert pasted == printable()
    await empty.tell(pasted)
    assert shown(SUPABASE_MD, "doctor: migrated", await doctor(empty.url("owner"))), UPDATE
    (login,) = [each for each in sql_of(SUPABASE_MD) if "LOGIN PASSWORD" in each]
    await empty.tell(login)
    found = await doctor(empty.url("presence_server", PASSWORD))
    assert shown(SUPABASE_MD, "doctor: server", found), UPDATE
    assert all(line.startswith("ok ") for line in found.splitlines())


async def test_an_old_project_goes_the_way_that_the_page_shows(old: Project) -> None:
    assert shown(SUPABASE_MD, "doctor: old", await doctor(old.url("owner"))), UPDATE
    tried = await command(old.url("owner"), "migrate", "--dry-run")
    # Some forty lines of one kind.
    brief = re.sub(r"(?:^- revokes .*\n)+", "- revokes …\n", tried, flags=re.MULTILINE)
    assert shown(SUPABASE_MD, "dry-run", brief), UPDATE
    assert (await command(old.url("owner"), "migrate")).startswith("Applied")
    assert f"doctor: migrated -->\n```text\n{await doctor(old.url('owner'))}```" in SUPABASE_MD.read_text(), (
        UPDATE
    )


@pytest.mark.parametrize("page", [page for page in PAGES if sql_of(page)], ids=lambda page: page.name)
async def test_every_statement_of_a_page_runs_as_pasted(old: Project, page: Path) -> None:
    await old.tell(printable())
    await old.tell(CRON)
    owner = await connect_once(old.url("owner"))
    for block in sql_of(page):
        await owner.execute(block)
    await owner.close()


def test_the_pages_with_sql_are_the_ones_that_people_paste_from() -> None:
    assert {page.name for page in PAGES if sql_of(page)} >= {"README.md", "history.md", "supabase.md"}


def test_no_sql_stands_where_these_tests_do_not_look() -> None:
    """In another page, in a list, or among other commands."""
    pages = [each for folder in FOLDERS for each in sorted((ROOT / folder).glob("**/*.md"))]
    assert set(PAGES) <= {*pages, ROOT / "README.md"}
    for page in (*pages, ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        for block in sql_of(page) if page in PAGES else ():
            text = text.replace(block, "")
        assert STATEMENT.findall(text) == [], page.name


def test_each_connection_string_is_of_the_kind_that_the_page_says() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| `(postgresql://[^`]+)`", SUPABASE_MD.read_text(), re.MULTILINE)
    assert {Mode(mode) for mode, _ in rows} == set(Mode)
    for mode, url in rows:
        assert understand(url).mode == mode


def test_every_check_of_the_doctor_is_explained_where_it_leads_to() -> None:
    files = [*(ROOT / "server/doctor").glob("*.py"), ROOT / "server/cli/doctor.py"]
    text = "\n".join(each.read_text(encoding="utf-8") for each in files)
    names = set(re.findall(r'(?:ok|skipped|careful|failed|judged|_none_of)\(\s*"([a-z ]+)"', text))
    assert {"settings", "redis clock", "postgres broadcast", "server websocket"} <= names
    assert len(names) >= CHECKS
    for name in names:
        page, _, part = explained(name).partition("#")
        assert part in sections(ROOT / page), name


def test_every_link_between_pages_leads_to_a_page_and_a_section() -> None:
    for page in PAGES:
        for target, part in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page.name}: {target}"
            assert not part or part in sections(there), f"{page.name}: {target}#{part}"
