"""`presence migrate`: bring the database up to date, try it without effect, or print the SQL that would."""

from __future__ import annotations

import asyncio

import typer

from persistence import migrations
from persistence.errors import POSTGRES_AWAY, PersistenceError
from server.cli.errors import MISUSED, CommandError
from server.settings import Settings, SettingsError

UP_TO_DATE = "The database is up to date."
DRY_RUN = "A dry run: all of this was done and taken back; nothing was changed."


def bring_up_to_date(*, print_only: bool, dry_run: bool = False) -> None:
    """Migrate the database of DATABASE_URL and say what was done, or with `dry_run` what would be."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None
    if print_only:
        typer.echo(migrations.printable(settings.schema_), nl=False)
    elif settings.database_url is None:
        typer.echo("DATABASE_URL is not set: there is no database to migrate.")
    else:
        done = _migrate(settings.database_url.get_secret_value(), settings, dry_run=dry_run)
        _report(done, dry_run=dry_run)


def apply(database_url: str, settings: Settings) -> list[str]:
    """Migrate; returns the names of the steps taken. CommandError if it can't be done."""
    return _migrate(database_url, settings).applied


def _migrate(database_url: str, settings: Settings, *, dry_run: bool = False) -> migrations.Migrated:
    try:
        return asyncio.run(
            migrations.bring_up_to_date(
                database_url, settings.schema_, ca=settings.database_ca, dry_run=dry_run
            )
        )
    except PersistenceError as error:
        raise CommandError(str(error)) from None
    except POSTGRES_AWAY as error:
        raise CommandError(f"the database can't be migrated: {_reason(error)}") from None
    except ValueError as error:
        raise CommandError(f"DATABASE_URL can't be used: {_reason(error)}", exit_code=MISUSED) from None


def _report(done: migrations.Migrated, *, dry_run: bool) -> None:
    verb = "Would apply" if dry_run else "Applied"
    typer.echo(f"{verb} {', '.join(done.applied)}." if done.applied else UP_TO_DATE)
    for notice in done.notices:
        typer.echo(f"- {notice}")
    if dry_run:
        typer.echo(DRY_RUN)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
