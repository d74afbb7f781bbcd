"""Who is asking: the one seam where credentials become principals, and where their reach is decided."""

from __future__ import annotations

import hmac
import time
from enum import Enum

import msgspec
from pydantic import SecretStr
from starlette.requests import Request

from server.domain.errors import BadTokenError
from server.domain.sign_in import SignIns
from server.domain.token import Verified
from server.http.problems import BadCredentialError, ExpiredTokenError, ForbiddenError, NoCredentialError
from server.node.node import Node
from server.settings import Settings

COOKIE = "presence_dashboard"
# A header that no other site's page can set without asking first, and CORS never allows it.
CSRF_HEADER = "X-Presence-CSRF"


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
    """A server or an operator. `actor`: what the events name as the origin of a change."""

    actor: str = "api"


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
        return _by_cookie(request, node)
    if is_one_of(credential, node.settings.api_key):
        return ApiKeyPrincipal()
    try:
        return SessionPrincipal(node.tokens.verify(credential, time.time()))
    except BadTokenError as error:
        raise BadCredentialError from error


def sign_ins(settings: Settings) -> SignIns:
    """The sign-ins of the dashboard that this server answers for."""
    return SignIns(
        [secret.get_secret_value() for secret in settings.secret],
        [key.get_secret_value() for key in settings.api_key],
    )


def _by_cookie(request: Request, node: Node) -> ApiKeyPrincipal:
    """Somebody who signed in to the dashboard. A browser sends the cookie by itself: so it must add a header."""
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise NoCredentialError
    if not request.headers.get(CSRF_HEADER):
        raise ForbiddenError(f"With the cookie of the dashboard goes the header {CSRF_HEADER}: 1.")
    try:
        sign_ins(node.settings).check(cookie, time.time())
    except BadTokenError as error:
        raise BadCredentialError(str(error)) from error
    return ApiKeyPrincipal(actor="dashboard")


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
    if not is_one_of(credential, (key, *node.settings.api_key)):
        raise BadCredentialError
    return ApiKeyPrincipal()


def _bearer(request: Request) -> str | None:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def is_one_of(credential: str, keys: tuple[SecretStr, ...]) -> bool:
    """Compares in constant time, and with every key unless one fits."""
    given = credential.encode()
    return any(hmac.compare_digest(given, key.get_secret_value().encode()) for key in keys)
