"""`presence doctor`: look at everything that a server stands on, one line a check."""

from __future__ import annotations

import asyncio
import os

import msgspec
import typer

from server.cli.errors import CommandError
from server.cli.listening import choose
from server.cli.remote import print_json
from server.cli.serve import NO_HISTORY, worker_count
from server.doctor.finding import Finding, Level, careful, failed, ok, skipped
from server.doctor.postgres import check_postgres
from server.doctor.reach import check_server
from server.doctor.redis import check_redis
from server.settings import ProductionSettings, Settings, SettingsError

NO_URL = "neither PRESENCE_URL nor PRESENCE_PUBLIC_URL says where a server runs"


def examine(*, as_json: bool) -> None:
    """Check, and show what was found. CommandError if anything failed."""
    findings = [*check_settings(), *asyncio.run(_check_the_rest())]
    if as_json:
        print_json({"checks": msgspec.to_builtins(findings)})
    else:
        for finding in findings:
            typer.echo(finding.line())
    bad = sum(finding.level is Level.FAILED for finding in findings)
    if bad:
        raise CommandError(f"{bad} check{'' if bad == 1 else 's'} failed")


def check_settings() -> list[Finding]:
    """What `presence serve` would refuse."""
    try:
        choose(ProductionSettings.read())
        worker_count()
    except SettingsError as error:
        return [_bad_setting(problem) for problem in error.problems]
    except CommandError as error:
        return [_bad_setting(problem) for problem in error.sentences]
    return [ok("settings", "`presence serve` takes them")]


def _bad_setting(problem: str) -> Finding:
    return failed("settings", problem, "set it in the environment")


async def _check_the_rest() -> list[Finding]:
    try:
        settings = Settings.read()
    except SettingsError:
        what = "Redis, Postgres and the server, until the settings can be read"
        return [skipped("the rest", what)]
    return [*await _redis(settings), *await _postgres(settings), *await _server(settings)]


async def _redis(settings: Settings) -> list[Finding]:
    if not os.environ.get("REDIS_URL"):
        return [skipped("redis", "REDIS_URL is not set")]
    return await check_redis(settings.redis_url)


async def _postgres(settings: Settings) -> list[Finding]:
    if settings.database_url is None:
        return [careful("postgres", NO_HISTORY, "set DATABASE_URL")]
    url = settings.database_url.get_secret_value()
    return await check_postgres(url, settings.schema_, settings.database_ca)


async def _server(settings: Settings) -> list[Finding]:
    url = os.environ.get("PRESENCE_URL") or settings.public_url
    if url is None:
        return [skipped("server", NO_URL)]
    key = settings.api_key[0].get_secret_value() if settings.api_key else None
    return await check_server(url, key)
