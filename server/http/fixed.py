"""Content that stays the same as long as the process runs, served so that nobody fetches it twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from starlette.requests import Request

from server.http.routing import Answer, AnyCall


class Fixed(msgspec.Struct, frozen=True):
    """The content, and its strong ETag."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> Fixed:
        """With the ETag that belongs to `content`."""
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def answer(call: AnyCall, fixed: Fixed, headers: Mapping[str, str]) -> Answer:
    """The content, or 304 if the browser has it already."""
    headers = {"ETag": fixed.etag, **headers}
    if has_it(call.request, fixed):
        return Answer(status=304, headers=headers)
    return Answer(fixed.content, headers=headers)


def has_it(request: Request, fixed: Fixed) -> bool:
    """Whether the browser's copy is still good. A proxy that compressed it may have made the ETag a weak one."""
    if_none_match = request.headers.get("if-none-match", "")
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return fixed.etag in known or "*" in known
