"""The WebSocket protocol's messages as JSON Schema, made of the types that validate and encode them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, get_args

import msgspec

from server.domain.interview import Interview
from server.domain.messages import SUBPROTOCOL, FromBrowser, ToBrowser, type_of
from server.domain.pool import Capacity
from server.http import fixed
from server.http.auth import Access
from server.http.fixed import Fixed
from server.http.routing import Answer, Call, Operation, operation
from server.http.schemas import Json, Schemas

MEDIA_TYPE = "application/schema+json"
_HEADERS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, no-cache"}


@operation("GET", "/protocol.json", Access.ANYONE, answers={200: bytes, 304: None}, media_type=MEDIA_TYPE)
async def get_protocol(call: Call[None, None]) -> Answer:
    """Get the messages of the WebSocket protocol, as JSON Schema (2020-12)."""
    return fixed.answer(call, _protocol(), _HEADERS)


OPERATIONS: tuple[Operation, ...] = (get_protocol,)


def document() -> Json:
    """The schema of any message; `$defs` has each, and the two directions as `FromBrowser` and `ToBrowser`."""
    sent, received = get_args(FromBrowser), get_args(ToBrowser)
    schemas = Schemas((*sent, *received), "#/$defs/{name}")
    messages = {_name(kind): _message(kind, schemas) for kind in (*sent, *received)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of {SUBPROTOCOL}",
        "description": "Each is one text frame. Unknown fields are ignored.",
        "anyOf": [_ref("FromBrowser"), _ref("ToBrowser")],
        "$defs": {
            "FromBrowser": {"anyOf": [_ref(_name(kind)) for kind in sent]},
            "ToBrowser": {"anyOf": [_ref(_name(kind)) for kind in received]},
            **messages,
            **{name: schema for name, schema in schemas.components.items() if name not in messages},
        },
    }


def messages(union: Any) -> Iterable[tuple[str, Json]]:  # noqa: ANN401 - one of the two unions
    """Type and schema of each message of a direction."""
    of = document()["$defs"]
    return [(type_of(kind), of[_name(kind)]) for kind in get_args(union)]


@cache
def _protocol() -> Fixed:
    return Fixed.of(msgspec.json.encode(document()))


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _name(kind: type) -> str:
    """The interview and capacity objects are messages too, with a `type` before their other fields."""
    return f"{kind.__name__}Message" if kind in (Interview, Capacity) else kind.__name__


def _message(kind: type, schemas: Schemas) -> Json:
    schema = dict(schemas.components[kind.__name__])
    if kind in (Interview, Capacity):
        schema["title"] = _name(kind)
        schema["properties"] = {"type": {"enum": [type_of(kind)]}, **schema["properties"]}
        schema["required"] = ["type", *schema["required"]]
    return schema
