"""docs/protocol.md shows the messages and close codes as the server's types have them; UPDATE_DOCS=1 makes it so."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import msgspec

from server.domain.messages import MEANINGS, Close, FromBrowser, ToBrowser
from server.http.protocol import document, messages
from tests.documentation import ROOT, generated

PAGE = ROOT / "docs/protocol.md"
UPDATE = "run UPDATE_DOCS=1 pytest tests/unit/test_protocol_docs.py"
Json = dict[str, Any]


def block(schema: Json) -> str:
    """A schema as people read it: one line a keyword, and one a property."""
    lines = [
        _properties(value) if key == "properties" else f"  {json.dumps(key)}: {json.dumps(value)}"
        for key, value in schema.items()
        if key not in ("title", "description")
    ]
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```\n"


def _properties(properties: Json) -> str:
    lines = [f"    {json.dumps(name)}: {json.dumps(schema)}" for name, schema in properties.items()]
    return '  "properties": {\n' + ",\n".join(lines) + "\n  }"


def sections(named: list[tuple[str, Json]]) -> str:
    """Each schema under its name, with what is said of it."""
    return "\n".join(
        f"### `{name}`\n\n{schema.get('description', '')}\n\n{block(schema)}" for name, schema in named
    )


def test_the_page_shows_every_message_of_the_browser() -> None:
    assert generated(PAGE, "from-browser", sections(list(messages(FromBrowser)))), UPDATE


def test_the_page_shows_every_message_of_the_server() -> None:
    assert generated(PAGE, "to-browser", sections(list(messages(ToBrowser)))), UPDATE


def test_the_page_shows_what_messages_refer_to() -> None:
    of = document()["$defs"]
    shown = {"FromBrowser", "ToBrowser", "Interview", "Capacity"}
    shown |= {schema["title"] for _, schema in messages(FromBrowser | ToBrowser)}
    others = [(name, schema) for name, schema in of.items() if name not in shown]
    assert generated(PAGE, "definitions", sections(others)), UPDATE


def test_the_page_shows_every_close_code() -> None:
    assert set(MEANINGS) == set(Close)
    rows = [
        f"| {code.value} | {'yes' if code.comes_back else 'no'} | {MEANINGS[code]} |\n"
        for code in sorted(Close)
    ]
    table = "| code | come back | means |\n|---|---|---|\n" + "".join(rows)
    assert generated(PAGE, "close-codes", table), UPDATE


def test_the_schema_takes_what_the_types_take() -> None:
    validator = jsonschema_rs.validator_for(document())
    for text in ('{"type": "hello", "token": "t"}', '{"type": "enter", "unknown": 1}'):
        msgspec.json.decode(text, type=FromBrowser)
        assert validator.is_valid(json.loads(text))
    for message in ({"type": "hello"}, {"type": "heartbeat", "seq": -1}, {"type": "dance"}):
        assert not validator.is_valid(message)
