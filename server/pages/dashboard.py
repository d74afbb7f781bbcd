"""The dashboard at `/dashboard`: its page for who has signed in, the form for who has not, and its files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from server.http.fixed import Fixed, has_it
from server.pages.sign_in import (
    DASHBOARD,
    PAGE_HEADERS,
    Doorkeeper,
    is_signed_in,
    sign_in_page,
    sign_in_with,
    sign_out,
)

_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript"}
# Browsers ask each time, so that no page runs modules of two versions; the ETag makes that cheap.
_FILE_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# A browser sends no SameSite=Strict cookie when a link on another site is followed, so the page asks once more itself.
_ASK_AGAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>interview-presence</title>'
    f'<meta http-equiv="refresh" content="0;url={DASHBOARD}"><p><a href="{DASHBOARD}">Dashboard</a></p></html>'
)
_ELSEWHERE = ("cross-site", "same-site")


def routes() -> list[Route]:
    """The dashboard's routes. Its files are no secret; what they show is."""
    return [
        Route(DASHBOARD, show),
        Route(f"{DASHBOARD}/sign-in", lead_to_form),
        Route(f"{DASHBOARD}/sign-in", sign_in_with(Doorkeeper()), methods=["POST"]),
        Route(f"{DASHBOARD}/sign-out", sign_out, methods=["POST"]),
        *(Route(f"{DASHBOARD}/{name}", _serving(name)) for name in _public_files()),
    ]


async def show(request: Request) -> Response:
    """The page, or the way in."""
    if is_signed_in(request):
        return HTMLResponse(_page(), headers=PAGE_HEADERS)
    if request.headers.get("sec-fetch-site") in _ELSEWHERE:
        return HTMLResponse(_ASK_AGAIN, headers=PAGE_HEADERS)
    return sign_in_page()


async def lead_to_form(_: Request) -> Response:
    """The address that stands there after a refused sign-in may be gone to again."""
    return RedirectResponse(DASHBOARD, 303, PAGE_HEADERS)


@cache
def _page() -> bytes:
    return _content("index.html")


def _content(name: str) -> bytes:
    return (files("server.pages") / "files" / "dashboard" / name).read_bytes()


def _public_files() -> list[str]:
    folder = files("server.pages") / "files" / "dashboard"
    return sorted(each.name for each in folder.iterdir() if each.name.rpartition(".")[2] in _MEDIA_TYPES)


def _serving(name: str) -> Callable[[Request], Awaitable[Response]]:
    file, media_type = Fixed.of(_content(name)), _MEDIA_TYPES[name.rpartition(".")[2]]
    headers = {**_FILE_HEADERS, "ETag": file.etag}

    async def serve(request: Request) -> Response:
        if has_it(request, file):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=media_type)

    return serve
