"""The SQL of this package: statements and migrations from `.sql` files, with the schema's name put in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SQL = files("persistence") / "sql"


@dataclass(slots=True, frozen=True)
class Migration:
    """One step of the schema: its name, which orders it, and its SQL."""

    name: str
    sql: str


def in_schema(text: str, schema: str) -> str:
    """`text` with the schema's name where psql would put a variable: :"schema" (name) and :'schema' (string).

    Nothing else is taken for a schema's name than what `PRESENCE_SCHEMA` allows.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"not a schema name: {schema!r} (a-z, 0-9 and _, 63 at most, no digit first)")
    # `public` needs no quotes, and the printed file is read by people.
    name = schema if schema == "public" else f'"{schema}"'
    return text.replace(':"schema"', name).replace(":'schema'", f"'{schema}'")


@cache
def statements(schema: str, file: str = "queries.sql") -> dict[str, str]:
    """The statements of `file` by name."""
    _, *parts = _NAME.split((_SQL / file).read_text(encoding="utf-8"))
    return {name: in_schema(sql.strip(), schema) for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def bookkeeping(schema: str) -> str:
    """The SQL that makes the schema and the table of applied migrations, where missing."""
    return _read(_SQL / "bookkeeping.sql", schema)


def lockdown(schema: str) -> str:
    """The SQL that runs behind the migrations each time: who may do what."""
    return _read(_SQL / "lockdown.sql", schema)


def migrations(schema: str) -> list[Migration]:
    """All migrations in the order in which they apply."""
    folder = _SQL / "migrations"
    steps = [step for step in folder.iterdir() if step.name.endswith(".sql")]
    return [
        Migration(step.name.removesuffix(".sql"), _read(step, schema))
        for step in sorted(steps, key=lambda step: step.name)
    ]


def _read(file: Traversable, schema: str) -> str:
    return in_schema(file.read_text(encoding="utf-8"), schema)
