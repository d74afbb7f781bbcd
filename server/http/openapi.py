"""The OpenAPI 3.1 document of the operations, made of the types that validate requests and encode answers."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec

from server.domain.errors import PresenceError
from server.domain.pool import PoolChanges, PoolConfig
from server.http import problems
from server.http.auth import COOKIE, CSRF_HEADER, Access
from server.http.routing import JSON, Operation
from server.http.schemas import Json, Schemas
from server.http.validation import BODY_MAX_BYTES, PATH_TYPES
from server.settings import Settings

REF_TEMPLATE = "#/components/schemas/{name}"
ABOUT = f"""Who is here, and who may be in the interview: sessions, permits, the line, and the history.

- Servers and operators send `Authorization: Bearer <API key>`; a browser sends its session token in the same place,
  and reaches its own session with it.
- `pool` names the capacity domain, `main` if it is left out. A session token carries its pool.
- Times are ISO 8601 in UTC, and what ends in `_s` is in seconds.
- Unknown fields and parameters are refused, bodies are at most {BODY_MAX_BYTES // 1024} KiB of JSON.
- Errors are problem details (RFC 9457): `code` is for programs, `detail` for people.
- What a page does over a WebSocket is described by `/protocol.json` and `docs/protocol.md`.
"""

_BY_KEY: list[Json] = [{"api_key": []}, {"dashboard_cookie": [], "dashboard_csrf": []}]
_BY_TOKEN: list[Json] = [{"session_token": []}]
SECURITY: dict[Access, list[Json]] = {
    Access.ANYONE: [],
    Access.KEY: _BY_KEY,
    Access.KEY_OR_OWN_TOKEN: _BY_KEY + _BY_TOKEN,
    Access.OWN_TOKEN: _BY_TOKEN,
    Access.OWN_TOKEN_EVEN_EXPIRED: _BY_TOKEN,
    Access.METRICS: [{"metrics_key": []}, {}],
}
SCHEMES: Json = {
    "api_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: one of `PRESENCE_API_KEY`.",
    },
    "session_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of a session, as opening the session gives it.",
    },
    "metrics_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "`PRESENCE_METRICS_KEY` or an API key, if the former is set.",
    },
    "dashboard_cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Signed in to the dashboard. Only together with the header.",
    },
    "dashboard_csrf": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "Anything, e.g. `1`: no other site's page can send it.",
    },
}
# Headers that an answer of this status has.
_HEADERS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    503: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
}


def document(operations: Sequence[Operation]) -> Json:
    """The document. The order of the operations is that of the document."""
    schemas = Schemas(_types(operations), REF_TEMPLATE)
    _explain_pools(schemas)
    used = sorted({status for each in operations for status in errors_of(each)})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interview-presence",
            "version": version("interview-presence"),
            "summary": "Live presence and a hard, fair limit on running interviews.",
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": _tags(operations),
        "paths": _paths(operations, schemas),
        "components": {
            "schemas": schemas.components,
            "responses": {_problem_name(status): _problem(status, schemas) for status in used},
            "securitySchemes": SCHEMES,
        },
    }


def operation_id(operation: Operation) -> str:
    """The handler's name: it stays when paths move."""
    return operation.handler.__name__


def errors_of(operation: Operation) -> set[int]:
    """The statuses of the problems that an operation may answer with: those of its kind, and its own."""
    body, query = operation.types
    statuses = set(operation.errors)
    if operation.access is Access.METRICS:
        statuses |= {401}
    elif operation.access is not Access.ANYONE:
        statuses |= {401, 403, 503}
    if body is not type(None):
        statuses |= {400, 413, 422}
    if query is not type(None) or _path_names(operation):
        statuses |= {422}
    return statuses - set(operation.answers)


@cache
def examples() -> Json:
    """What a real server was sent and answered: by operation, then `body` or status; and `problems` by status."""
    found: Json = msgspec.json.decode((files("server.http") / "examples.json").read_bytes())
    return found


def _types(operations: Sequence[Operation]) -> Iterator[Any]:
    yield problems.Problem
    yield from PATH_TYPES.values()
    for each in operations:
        body, query = each.types
        if body is not type(None):
            yield body
        if query is not type(None):
            yield from (field.type for field in msgspec.structs.fields(query))
        yield from (kind for kind in each.answers.values() if kind not in (None, bytes))


def _explain_pools(schemas: Schemas) -> None:
    """What a pool is set to has the meaning that the settings give it, from which it has its defaults."""
    said = {name: field.description for name, field in Settings.model_fields.items()}
    said["limit"] = said["max_concurrent"]
    for kind in (PoolConfig, PoolChanges):
        for name, schema in schemas.components.get(kind.__name__, {}).get("properties", {}).items():
            if said.get(name):
                schema.setdefault("description", said[name])


def _tags(operations: Sequence[Operation]) -> list[Json]:
    """One a module, with what the module says of itself."""
    modules = dict.fromkeys(each.handler.__module__ for each in operations)
    return [{"name": _tag(name), "description": inspect.getdoc(sys.modules[name]) or ""} for name in modules]


def _tag(module: str) -> str:
    return module.rpartition(".")[2]


def _paths(operations: Sequence[Operation], schemas: Schemas) -> Json:
    paths: Json = {}
    for each in operations:
        path = re.sub(r":\w+}", "}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schemas)
    return paths


def _operation(operation: Operation, schemas: Schemas) -> Json:
    parameters = [*_path_parameters(operation, schemas), *_query_parameters(operation, schemas)]
    body = _body(operation, schemas)
    return {
        "operationId": operation_id(operation),
        "tags": [_tag(operation.handler.__module__)],
        "summary": operation.summary.replace("\n", " "),
        **({"description": operation.description} if operation.description else {}),
        "security": SECURITY[operation.access],
        **({"parameters": parameters} if parameters else {}),
        **({} if body is None else {"requestBody": body}),
        "responses": dict(sorted(_responses(operation, schemas).items())),
    }


def _path_names(operation: Operation) -> list[str]:
    return re.findall(r"{(\w+)", operation.path)


def _path_parameters(operation: Operation, schemas: Schemas) -> Iterator[Json]:
    for name in _path_names(operation):
        yield {"name": name, "in": "path", "required": True, **_described(schemas.of(PATH_TYPES[name]))}


def _query_parameters(operation: Operation, schemas: Schemas) -> Iterator[Json]:
    query = operation.types[1]
    if query is type(None):
        return
    for field in msgspec.structs.fields(query):
        schema = _without_null(schemas.of(field.type))
        if field.default not in (None, msgspec.NODEFAULT):
            schema["default"] = field.default
        yield {"name": field.encode_name, "in": "query", "required": field.required, **_described(schema)}


def _described(schema: Json) -> Json:
    """A schema as that of a parameter, to which its description belongs."""
    description = {"description": schema.pop("description")} if "description" in schema else {}
    return {**description, "schema": schema}


def _without_null(schema: Json) -> Json:
    """A query can't say null: it leaves the parameter out."""
    kinds = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    return schema if not kinds else {**kinds[0], **schema}


def _body(operation: Operation, schemas: Schemas) -> Json | None:
    kind = operation.types[0]
    if kind is type(None):
        return None
    required = any(field.required for field in msgspec.structs.fields(kind))
    example = _example(operation_id(operation), "body")
    content = {each: _medium(each, schemas.of(kind), example) for each in operation.takes}
    return {"required": required, "content": content}


def _medium(media_type: str, schema: Json, example: Json) -> Json:
    """A body; JSON that goes by another name is text to the outside."""
    if media_type == JSON:
        return {"schema": schema, **example}
    text = {key: msgspec.json.encode(value).decode() for key, value in example.items()}
    return {"schema": {"type": "string", "contentMediaType": JSON, "contentSchema": schema}, **text}


def _responses(operation: Operation, schemas: Schemas) -> Json:
    answers = {
        str(status): _answer(operation, status, kind, schemas) for status, kind in operation.answers.items()
    }
    refused = {
        str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"}
        for status in errors_of(operation)
    }
    return answers | refused


def _answer(operation: Operation, status: int, kind: Any, schemas: Schemas) -> Json:  # noqa: ANN401 - any annotation
    phrase = f"{HTTPStatus(status).phrase}."
    if kind is None:
        return {"description": phrase}
    media_type = operation.media_type.partition(";")[0]
    if kind is bytes:
        schema: Json = {"type": "object" if media_type.endswith("json") else "string"}
        return {"description": phrase, "content": {media_type: {"schema": schema}}}
    media = {"schema": schemas.of(kind), **_example(operation_id(operation), str(status))}
    description = (inspect.getdoc(kind) or phrase).partition("\n\n")[0].replace("\n", " ")
    return {"description": description, "content": {media_type: media}}


def _problem_name(status: int) -> str:
    return re.sub(r"\W", "", HTTPStatus(status).phrase.title())


def _problem(status: int, schemas: Schemas) -> Json:
    """The answer of this status, with the codes that it may carry."""
    codes = [f"- `{code}`: {_first_line(kind)}" for code, kind in _codes(status).items()]
    return {
        "description": f"{HTTPStatus(status).phrase}. The `code` is one of:\n\n" + "\n".join(codes),
        **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": schemas.of(problems.Problem),
                **_example("problems", str(status)),
            }
        },
    }


def _codes(status: int) -> dict[str, type[PresenceError]]:
    """What a program may find in a problem of this status."""
    kinds = [kind for kind in _kinds(PresenceError) if problems.status_of(kind) == status]
    return {kind.code: kind for kind in reversed(kinds)}


def _kinds(kind: type[PresenceError]) -> Iterator[type[PresenceError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")


def _example(of: str, part: str) -> Json:
    found = examples().get(of, {}).get(part)
    return {} if found is None else {"example": found}
