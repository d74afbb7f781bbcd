"""The browser client's files, as they lie in the package `client_js`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from server.http import fixed
from server.http.auth import Access
from server.http.fixed import Fixed
from server.http.problems import NotFoundError
from server.http.routing import Answer, Call, Operation, operation

JAVASCRIPT = "text/javascript; charset=utf-8"
TYPESCRIPT = "application/typescript; charset=utf-8"

# A page must never run one version of client.js with another one of its modules: so browsers ask each time,
# and the ETag makes that cheap.
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "public, no-cache",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@operation("GET", "/client.js", Access.ANYONE, answers={200: bytes, 304: None}, media_type=JAVASCRIPT)
async def get_client(call: Call[None, None]) -> Answer:
    """Get the browser client, an ES module."""
    return _answer(call, "client.js")


@operation("GET", "/client.d.ts", Access.ANYONE, answers={200: bytes, 304: None}, media_type=TYPESCRIPT)
async def get_client_types(call: Call[None, None]) -> Answer:
    """Get the types of the browser client."""
    return _answer(call, "client.d.ts")


@operation(
    "GET",
    "/client/{name}.js",
    Access.ANYONE,
    answers={200: bytes, 304: None},
    errors=(404,),
    media_type=JAVASCRIPT,
)
async def get_client_module(call: Call[None, None]) -> Answer:
    """Get a module that the browser client imports."""
    return _answer(call, f"client/{call.request.path_params['name']}.js")


@operation(
    "GET",
    "/client/{name}.d.ts",
    Access.ANYONE,
    answers={200: bytes, 304: None},
    errors=(404,),
    media_type=TYPESCRIPT,
)
async def get_client_module_types(call: Call[None, None]) -> Answer:
    """Get types that those of the browser client import."""
    return _answer(call, f"client/{call.request.path_params['name']}.d.ts")


OPERATIONS: tuple[Operation, ...] = (get_client, get_client_types, get_client_module, get_client_module_types)


@cache
def client_files() -> dict[str, Fixed]:
    """All files that browsers may have, by their path below the root of this server."""
    root = files("client_js")
    found = [(entry.name, entry) for entry in root.iterdir() if entry.name in ("client.js", "client.d.ts")]
    found += [(f"client/{entry.name}", entry) for entry in (root / "client").iterdir() if _is_public(entry)]
    return {path: Fixed.of(entry.read_bytes()) for path, entry in found}


def _is_public(entry: Traversable) -> bool:
    return entry.name.endswith((".js", ".d.ts")) and not entry.name.endswith(".test.js")


def _answer(call: Call[None, None], path: str) -> Answer:
    file = client_files().get(path)
    if file is None:
        raise NotFoundError
    return fixed.answer(call, file, _HEADERS)
