"""The readable API at `/docs`: Swagger UI, from the files that `swagger-ui-py` ships, with nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from starlette.routing import Route

from server.http import fixed
from server.http.auth import Access
from server.http.fixed import Fixed
from server.http.problems import NotFoundError
from server.http.routing import Answer, Call, Operation, operation, routes_of

_MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "png": "image/png"}
_OURS = ("docs.css", "docs.js")
_THEIRS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
# Swagger UI's own icons are data: images. It needs no inline script and no inline style.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}
# Each has its ETag in its address, so it never changes there.
_FILE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}


@operation(
    "GET", "/docs", Access.ANYONE, answers={200: bytes, 304: None}, media_type="text/html; charset=utf-8"
)
async def show_docs(call: Call[None, None]) -> Answer:
    """Read this description of the API, and try it."""
    return fixed.answer(call, _page(), _PAGE_HEADERS)


@operation("GET", "/docs/{name}", Access.ANYONE, answers={200: bytes, 304: None}, errors=(404,))
async def get_docs_file(call: Call[None, None]) -> Answer:
    """Get one of the files of that page."""
    name = call.request.path_params["name"]
    if name not in (*_OURS, *_THEIRS):
        raise NotFoundError
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return fixed.answer(call, _file(name), {**_FILE_HEADERS, "Content-Type": media_type})


OPERATIONS: tuple[Operation, ...] = (show_docs, get_docs_file)


def routes() -> list[Route]:
    """The routes of the page and its files."""
    return routes_of(OPERATIONS)


@cache
def _page() -> Fixed:
    html = (_pages() / "docs.html").read_text(encoding="utf-8")
    for name in (*_OURS, *_THEIRS):
        html = html.replace(f'"/docs/{name}"', f'"/docs/{name}?v={_file(name).etag.strip(chr(34))}"')
    return Fixed.of(html.encode())


@cache
def _file(name: str) -> Fixed:
    folder = _pages() if name in _OURS else _swagger_ui()
    return Fixed.of((folder / name).read_bytes())


def _pages() -> Path:
    return Path(str(files("server.pages"))) / "files" / "docs"


def _swagger_ui() -> Path:
    """Where its files are. The package itself would import web frameworks and templates."""
    return Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
