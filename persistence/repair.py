"""Make a row writable that Postgres refused: text may hold what neither `text` nor `jsonb` can."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from persistence.lines import REPLACEMENT
from persistence.rows import PresenceRow

# An escaped NUL in JSON, but not the six characters after an escaped backslash.
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def repairs(row: PresenceRow) -> Iterator[PresenceRow]:
    """Ever plainer versions of the row, to try in turn: without what no text can hold; without metadata."""
    clean = row._replace(
        user_id=_clean(row.user_id),
        language_code=row.language_code and _clean(row.language_code),
        current_page=row.current_page and _clean(row.current_page),
        metadata=row.metadata and _clean_json(row.metadata),
    )
    yield clean
    if clean.metadata is not None:
        yield clean._replace(metadata=None)


def _clean(text: str) -> str:
    """Without NUL and lone surrogates."""
    return text.replace("\x00", REPLACEMENT).encode(errors="replace").decode()


def _clean_json(text: str) -> str | None:
    try:
        plain = json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return _ESCAPED_NUL.sub(rf"\g<1>{REPLACEMENT}", _clean(plain))
