"""What an HTTP answer means: a JSON object, or the one exception that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from presence_tracker.config import WHERE_TO_SET
from presence_tracker.errors import (
    PresenceConfigError,
    PresenceError,
    PresenceRequestError,
    PresenceUnavailableError,
    SessionGoneError,
)

Json = dict[str, Any]
UNAUTHORIZED, FORBIDDEN, TOO_MANY, SERVER_ERROR = 401, 403, 429, 500
# What a proxy, or the server itself, answers while nobody is there to serve.
AWAY = frozenset({502, 503, 504})
SESSIONS = "/v1/sessions/"
GONE_CODES = frozenset({"unknown_session", "session_ended", "unknown_pool"})


def object_of(response: httpx.Response) -> Json:
    """The answer, if it is a success of a presence server."""
    answer = json_of(response)
    if response.is_success and answer is not None:
        return answer
    raise error_of(response, answer)


def error_of(response: httpx.Response, problem: Mapping[str, Any] | None) -> PresenceError:
    """The exception for an answer that is no success; `problem` is its body, if that is a JSON object."""
    status = response.status_code
    if status in (UNAUTHORIZED, FORBIDDEN):
        return _refused_key(response)
    if status >= SERVER_ERROR or status == TOO_MANY:
        return PresenceUnavailableError(
            f"The presence server cannot answer now: {_detail(response, problem)}."
        )
    if problem is None or "code" not in problem or problem["code"] == "not_found":
        return _wrong_address(response)
    return _refusal(response, str(problem["code"]), _detail(response, problem))


def _refusal(response: httpx.Response, code: str, detail: str) -> PresenceRequestError:
    is_gone = code in GONE_CODES and SESSIONS in response.request.url.path
    kind = SessionGoneError if is_gone else PresenceRequestError
    return kind(f"{detail} ({response.status_code})", response.status_code, code)


def _refused_key(response: httpx.Response) -> PresenceConfigError:
    where = WHERE_TO_SET.format(variable="PRESENCE_API_KEY")
    return PresenceConfigError(
        f"{_server(response)} refuses the API key: set `api_key` to the server's PRESENCE_API_KEY {where}."
    )


def _wrong_address(response: httpx.Response) -> PresenceConfigError:
    where = WHERE_TO_SET.format(variable="PRESENCE_URL")
    said = f"status {response.status_code}"
    if response.is_redirect:
        said += f", to {response.headers.get('Location', '?')}"
    return PresenceConfigError(
        f"{_server(response)} does not answer like a presence server ({said}): set `url` to its address {where}."
    )


def _server(response: httpx.Response) -> str:
    return str(response.request.url.copy_with(path="/", query=None)).rstrip("/")


def json_of(response: httpx.Response) -> Json | None:
    """The body, if it is a JSON object; an empty body of a success counts as `{}`."""
    if not response.content:
        return {} if response.is_success else None
    try:
        answer: object = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _detail(response: httpx.Response, problem: Mapping[str, Any] | None) -> str:
    """The server's own sentence."""
    said = (problem or {}).get("detail") or f"{response.status_code} {response.reason_phrase}"
    return str(said).rstrip(".")
