"""What a Postgres does to those who write to it on a bad day."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from server.embedded import EmbeddedPostgres

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 5432
# What the server says when a transaction is committed.
COMMITTED = b"COMMIT\x00"
# Refuses, or delays, each write while the table `trouble` says so.
TROUBLE = """
create table if not exists trouble (refuses boolean not null default false, takes_s float8 not null default 0);
create or replace function be_troubled() returns trigger language plpgsql as $$
declare
  now_so record;
begin
  select * into now_so from trouble limit 1;
  if now_so.refuses then
    raise exception 'this trigger takes nothing';
  elsif now_so.takes_s > 0 then
    perform pg_sleep(now_so.takes_s);
  end if;
  return new;
end $$;
create or replace trigger troubled before insert or update on presence for each row execute function be_troubled();
"""


@contextmanager
def frozen(postgres: EmbeddedPostgres) -> Iterator[None]:
    """A Postgres that takes connections and answers nothing."""
    parent = psutil.Process(postgres.pid)
    pids = [postgres.pid, *(child.pid for child in parent.children())]
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


@asynccontextmanager
async def troubled(database_url: str, *, refuses: bool = False, takes_s: float = 0) -> AsyncIterator[None]:
    """A trigger that refuses each row, or takes so long for it."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(TROUBLE)
        await connection.execute("insert into trouble values ($1, $2)", refuses, takes_s)
        yield
        await connection.execute("delete from trouble")
    finally:
        await connection.close()


@asynccontextmanager
async def read_only(database_url: str) -> AsyncIterator[None]:
    """A database that is read-only by default, as Supabase makes one whose disk is full; also for who is connected."""
    await _say_read_only(database_url, "on")
    try:
        yield
    finally:
        await _say_read_only(database_url, "off")


async def _say_read_only(database_url: str, value: str) -> None:
    connection = await asyncpg.connect(database_url, server_settings={"default_transaction_read_only": "off"})
    name = urlsplit(database_url).path.lstrip("/")
    await connection.execute(f'alter database "{name}" set default_transaction_read_only = {value}')
    await _break_off_others(connection)
    await connection.close()


async def break_off(database_url: str) -> None:
    """Break off every connection to the database."""
    connection = await asyncpg.connect(database_url)
    await _break_off_others(connection)
    await connection.close()


async def _break_off_others(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Wire:
    """A way to Postgres that can be cut at the moment that hurts: after a commit, before its answer arrives."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.port = port
        self.pass_commits = 0
        self.cut_at_commits = 0
        self.cuts = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either end closes it or it is cut."""
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._forth(reader, far_writer)),
            asyncio.create_task(self._back(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, far_writer):
                end.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if COMMITTED in data and self._is_to_be_cut():
                    return
                writer.write(data)
                await writer.drain()

    def _is_to_be_cut(self) -> bool:
        if self.pass_commits or not self.cut_at_commits:
            self.pass_commits = max(0, self.pass_commits - 1)
            return False
        self.cut_at_commits -= 1
        self.cuts += 1
        return True


@asynccontextmanager
async def wire_to(database_url: str) -> AsyncIterator[Wire]:
    """A Wire to this database; its `url` is the address to use."""
    target = urlsplit(database_url)
    wire = Wire(target.port or DEFAULT_PORT)
    server = await asyncio.start_server(wire.carry, LOOPBACK, 0)
    host = server.sockets[0].getsockname()
    user = target.netloc.rpartition("@")[0]
    wire.url = urlunsplit(target._replace(netloc=f"{user}{'@' if user else ''}{LOOPBACK}:{host[1]}"))
    async with server:
        yield wire
        server.close()
