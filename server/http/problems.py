"""Errors as RFC 9457 problem details: one table from what can go wrong to the HTTP status."""

from __future__ import annotations

import inspect
from http import HTTPStatus

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server.domain import errors
from server.domain.session import EndReason

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2

log = structlog.get_logger(__name__)


class UnparsableError(errors.PresenceError):
    """The body is not JSON."""

    code = "unparsable"


class InvalidError(errors.PresenceError):
    """The request is well-formed, but a value in it is not valid."""

    code = "invalid"


class TooLargeError(errors.PresenceError):
    """The body is larger than anything that is accepted here."""

    code = "too_large"


class NoCredentialError(errors.PresenceError):
    """An API key or a session token is needed, as `Authorization: Bearer ...`."""

    code = "no_credential"


class BadCredentialError(errors.PresenceError):
    """The credential is neither a known API key nor a good session token."""

    code = "bad_credential"


class ExpiredTokenError(errors.BadTokenError):
    """The session token has expired. Ask for a new one."""

    code = "token_expired"


class ForbiddenError(errors.PresenceError):
    """The credential does not reach this far."""

    code = "forbidden"


class NotFoundError(errors.PresenceError):
    """There is nothing at this address."""

    code = "not_found"


class MethodNotAllowedError(errors.PresenceError):
    """This address does not know that method."""

    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This address knows {allowed} only.")
        self.allowed = allowed


class HistoryAwayError(errors.PresenceError):
    """Postgres does not answer. Who is here now is still known: ask with `status=active` or `online=true`."""

    code = "history_away"


STATUS: dict[type[errors.PresenceError], HTTPStatus] = {
    UnparsableError: HTTPStatus.BAD_REQUEST,
    NoCredentialError: HTTPStatus.UNAUTHORIZED,
    BadCredentialError: HTTPStatus.UNAUTHORIZED,
    errors.BadTokenError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    errors.UnknownSessionError: HTTPStatus.NOT_FOUND,
    errors.UnknownPoolError: HTTPStatus.NOT_FOUND,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.StaleFenceError: HTTPStatus.CONFLICT,
    errors.StaleConnectionError: HTTPStatus.CONFLICT,
    errors.SupersededAttemptError: HTTPStatus.CONFLICT,
    errors.SessionIdTakenError: HTTPStatus.CONFLICT,
    errors.SessionEndedError: HTTPStatus.GONE,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RedisAwayError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RedisFullError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RedisRefusedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.WrongRedisError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooManyReadersError: HTTPStatus.SERVICE_UNAVAILABLE,
    HistoryAwayError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PresenceError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error. `code` names it to programs, `detail` explains it to people.

    `request_id` is the answer's `X-Request-ID`, and stands in the line that the log has of it. `end_reason`: how the
    session ended, if that is what is wrong.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    end_reason: EndReason | msgspec.UnsetType = msgspec.UNSET


def status_of(kind: type[errors.PresenceError]) -> HTTPStatus:
    """The HTTP status for errors of this kind: its own, or that of the nearest kind above it."""
    return next(STATUS[each] for each in kind.__mro__ if each in STATUS)


def problem_response(error: Exception, request: Request) -> Response:
    """The answer to a request that failed with `error`. Writes one log line, and shows no internals."""
    if not isinstance(error, errors.PresenceError):
        log.error("request_failed", method=request.method, path=_path(request), exc_info=error)
        return _response(
            request,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here; it was logged.",
        )
    status = status_of(type(error))
    log.info(
        "request_refused", method=request.method, path=_path(request), status=status.value, code=error.code
    )
    return _response(
        request, status, error.code, _detail(error), _headers(error, status), end_reason=_end_reason(error)
    )


async def routing_problem(request: Request, error: Exception) -> Response:
    """For Starlette's exception handlers: what was raised outside the operations, as an unknown address."""
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.NOT_FOUND:
        return problem_response(NotFoundError(), request)
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return problem_response(MethodNotAllowedError((error.headers or {}).get("Allow", "")), request)
    return problem_response(error, request)


def _path(request: Request) -> str:
    """The path as the log may have it: without the name of a person."""
    path, user_id = str(request.scope["path"]), request.path_params.get("user_id")
    return path if user_id is None else path.replace(user_id, "{user_id}")


def _end_reason(error: errors.PresenceError) -> EndReason | msgspec.UnsetType:
    return EndReason(error.end_reason) if isinstance(error, errors.SessionEndedError) else msgspec.UNSET


def _detail(error: errors.PresenceError) -> str:
    return str(error) or (inspect.getdoc(type(error)) or "").partition("\n\n")[0].replace("\n", " ")


def _headers(error: errors.PresenceError, status: HTTPStatus) -> dict[str, str]:
    if isinstance(error, MethodNotAllowedError):
        return {"Allow": error.allowed}
    if status is HTTPStatus.UNAUTHORIZED:
        reason = "" if isinstance(error, NoCredentialError) else ', error="invalid_token"'
        return {"WWW-Authenticate": f'Bearer realm="presence"{reason}'}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_S)}
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return {"Connection": "close"}  # the rest of the body is not read
    return {}


def _response(
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    end_reason: EndReason | msgspec.UnsetType = msgspec.UNSET,
) -> Response:
    request.state.problem = code  # for who counts them
    problem = Problem(
        title=status.phrase,
        status=status.value,
        detail=detail,
        code=code,
        request_id=getattr(request.state, "request_id", None),
        end_reason=end_reason,
    )
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} | (headers or {})
    return Response(msgspec.json.encode(problem), status.value, headers, media_type=MEDIA_TYPE)
