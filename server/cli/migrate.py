"""`presence migrate`: bring the database up to date, or print the SQL that would."""

from __future__ import annotations

import asyncio

import typer

from persistence.errors import POSTGRES_AWAY, PersistenceError
from persistence.migrations import migrate, printable
from server.cli.errors import MISUSED, CommandError
from server.settings import Settings, SettingsError


def bring_up_to_date(*, print_only: bool) -> None:
    """Migrate the database of DATABASE_URL and say what was done."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None
    if print_only:
        typer.echo(printable(settings.schema_), nl=False)
    elif settings.database_url is None:
        typer.echo("DATABASE_URL is not set: there is no database to migrate.")
    else:
        applied = apply(settings.database_url.get_secret_value(), settings)
        typer.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


def apply(database_url: str, settings: Settings) -> list[str]:
    """Migrate; returns the names of the steps taken. CommandError if it can't be done."""
    try:
        return asyncio.run(migrate(database_url, settings.schema_, ca=settings.database_ca))
    except PersistenceError as error:
        raise CommandError(str(error)) from None
    except POSTGRES_AWAY as error:
        raise CommandError(f"the database can't be migrated: {_reason(error)}") from None
    except ValueError as error:
        raise CommandError(f"DATABASE_URL can't be used: {_reason(error)}", exit_code=MISUSED) from None


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
