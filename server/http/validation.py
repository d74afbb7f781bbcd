"""What comes in from outside, validated by types: path, query and body; and what is wrong with it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request

from server.domain.session import PATTERNS_IN_WORDS, Id
from server.http.problems import InvalidError, TooLargeError, UnparsableError

BODY_MAX_BYTES = 64 * 1024
_FLOAT_FOR_INT = "Expected `int"
_UNKNOWN_CHOICE = "Invalid enum value"
_NO_NUL = r"^[^\x00]*$"

# What a path may name. Rows of the old system may hold any user id, also one that no session could have today.
PATH_TYPES: Mapping[str, Any] = {
    "session_id": Annotated[Id, msgspec.Meta(description="The session.")],
    "pool": Annotated[Id, msgspec.Meta(description="The pool.")],
    "user_id": Annotated[
        str,
        msgspec.Meta(
            min_length=1, max_length=1024, pattern=_NO_NUL, description="The person, also one of long ago."
        ),
    ],
    "name": Annotated[str, msgspec.Meta(description="The module.")],
}
_IN_WORDS = PATTERNS_IN_WORDS | {_NO_NUL: "text without U+0000"}


class _Text(Convertor[str]):
    """The rest of a path, whatever is in it. Starlette's own `path` stops at the end of a line."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _Text())


def check_path(request: Request) -> None:
    """InvalidError unless everything that the path names could be what it is meant for."""
    for name, value in request.path_params.items():
        try:
            msgspec.convert(value, PATH_TYPES[name])
        except msgspec.ValidationError as error:
            raise InvalidError(f"{name} in the path: {in_words(error, str)}.") from error


def query_of(request: Request, kind: Any) -> Any:  # noqa: ANN401 - the type is the handler's
    """The query as a `kind`. InvalidError if it is none, or names something twice."""
    given = request.query_params
    twice = sorted({name for name, _ in given.multi_items() if len(given.getlist(name)) > 1})
    if twice:
        raise InvalidError(f"In the query: more than one `{twice[0]}`.")
    try:
        query = msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(f"In the query: {in_words(error, kind)}.") from error
    fields = [field for field in msgspec.structs.fields(kind) if field.encode_name in given]
    # msgspec takes the word for it.
    null = [field.encode_name for field in fields if getattr(query, field.name) is None]
    if null:
        raise InvalidError(f"In the query: `{null[0]}` can't be null, but it may be left out.")
    return query


async def read_body(request: Request) -> bytes:
    """The body; TooLargeError as soon as it is longer than it may be."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                raise TooLargeError(f"The body must be at most {BODY_MAX_BYTES} bytes long.")
    except ClientDisconnect as error:
        raise UnparsableError("The client left before the body was complete.") from error
    return bytes(body)


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:  # noqa: ANN401 - the type is the handler's
    """An empty body means `{}`. Text that is no UTF-8 and absurd nesting come as errors of their own."""
    try:
        return _decoded(decoder, body or b"{}")
    except msgspec.ValidationError as error:
        raise InvalidError(f"In the body: {in_words(error, decoder.type)}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnparsableError(f"The body is not JSON: {error}.") from error


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:  # noqa: ANN401 - the type is the handler's
    """What `decoder` reads, also when a whole number was written as a float: some languages write 3 as `3.0`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if not str(error).startswith(_FLOAT_FOR_INT):
            raise
        return msgspec.convert(_whole(msgspec.json.decode(body)), decoder.type)


def _whole(value: Any) -> Any:  # noqa: ANN401 - anything from JSON
    """The object of a body with whole numbers for the floats that are whole."""
    if not isinstance(value, dict):
        return value
    return {
        name: int(each) if isinstance(each, float) and each.is_integer() else each
        for name, each in value.items()
    }


def in_words(error: msgspec.ValidationError, kind: Any) -> str:  # noqa: ANN401 - the type is the handler's
    """What msgspec says of a value that is no `kind`: without regular expressions, and with the choices there are."""
    said = str(error)
    for pattern, words in _IN_WORDS.items():
        said = said.replace(f"`str` matching regex {pattern!r}", words)
    if said.startswith(_UNKNOWN_CHOICE):
        name = said.partition("$.")[2].rstrip("`")
        said += f": it may be {', '.join(_choices_of(kind, name)) or 'none of those'}"
    return said


@cache
def _choices_of(kind: Any, name: str) -> tuple[str, ...]:  # noqa: ANN401 - the type is the handler's
    """What the field `name` of a struct may be."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return tuple(_choices(fields.get(name)))


def _choices(kind: Any) -> Iterator[str]:  # noqa: ANN401 - any annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        yield from (str(each.value) for each in kind)
    elif get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    else:
        for each in get_args(kind):
            yield from _choices(each)
