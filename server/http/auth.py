"""Who is asking: the one seam where credentials become principals, and where their reach is decided."""

from __future__ import annotations

import hmac
import time
from enum import Enum

import msgspec
from pydantic import SecretStr
from starlette.requests import Request

from server.domain.errors import BadTokenError
from server.domain.token import Verified
from server.http.problems import BadCredentialError, ExpiredTokenError, ForbiddenError, NoCredentialError
from server.node.node import Node


class Access(Enum):
    """Who may call an operation. An own token is one of the session that the path names."""

    ANYONE = "anyone"
    KEY = "key"
    KEY_OR_OWN_TOKEN = "key or own token"  # noqa: S105 - not a password
    OWN_TOKEN = "own token"  # noqa: S105 - not a password
    # The handler looks again: an expired token may reconnect its session.
    OWN_TOKEN_EVEN_EXPIRED = "own token, even expired"  # noqa: S105 - not a password
    METRICS = "metrics key, if one is set"


_KEY_OPENS = (Access.KEY, Access.KEY_OR_OWN_TOKEN)
_TOKEN_OPENS = (Access.KEY_OR_OWN_TOKEN, Access.OWN_TOKEN, Access.OWN_TOKEN_EVEN_EXPIRED)


class Anyone(msgspec.Struct, frozen=True):
    """Nobody in particular."""


class ApiKeyPrincipal(msgspec.Struct, frozen=True):
    """A server or an operator."""


class SessionPrincipal(msgspec.Struct, frozen=True):
    """A browser that speaks for its session."""

    verified: Verified


Principal = Anyone | ApiKeyPrincipal | SessionPrincipal


def admit(request: Request, node: Node, access: Access) -> Principal:
    """The principal behind `request`, if `access` is open to it."""
    if access is Access.ANYONE:
        return Anyone()
    if access is Access.METRICS:
        return _admit_to_metrics(request, node)
    principal = authenticate(request, node)
    if isinstance(principal, SessionPrincipal):
        _check_token(principal, request, access)
    elif access not in _KEY_OPENS:
        raise ForbiddenError("Only the session's own token opens this, an API key does not.")
    return principal


def authenticate(request: Request, node: Node) -> ApiKeyPrincipal | SessionPrincipal:
    """Who is asking. NoCredentialError, or BadCredentialError if it is neither API key nor token of ours."""
    credential = _bearer(request)
    if credential is None:
        raise NoCredentialError
    if _is_one_of(credential, node.settings.api_key):
        return ApiKeyPrincipal()
    try:
        return SessionPrincipal(node.tokens.verify(credential, time.time()))
    except BadTokenError as error:
        raise BadCredentialError from error


def _check_token(principal: SessionPrincipal, request: Request, access: Access) -> None:
    if principal.verified.expired and access is not Access.OWN_TOKEN_EVEN_EXPIRED:
        raise ExpiredTokenError
    if access not in _TOKEN_OPENS:
        raise ForbiddenError("Only an API key opens this, a session token does not.")
    own = principal.verified.claims.session_id
    if request.path_params.get("session_id", own) != own:
        raise ForbiddenError("A session token opens its own session only.")


def _admit_to_metrics(request: Request, node: Node) -> Principal:
    key = node.settings.metrics_key
    if key is None:
        return Anyone()
    credential = _bearer(request)
    if credential is None:
        raise NoCredentialError
    if not _is_one_of(credential, (key, *node.settings.api_key)):
        raise BadCredentialError
    return ApiKeyPrincipal()


def _bearer(request: Request) -> str | None:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def _is_one_of(credential: str, keys: tuple[SecretStr, ...]) -> bool:
    """Compares in constant time, and with every key unless one fits."""
    given = credential.encode()
    return any(hmac.compare_digest(given, key.get_secret_value().encode()) for key in keys)
