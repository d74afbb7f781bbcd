"""Session tokens: signed claims with which a browser speaks for its own session, and for no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt
import msgspec

from server.domain.errors import BadTokenError
from server.domain.session import Id

_ALGORITHM = "HS256"
# We judge `exp` ourselves, by a clock that is passed in: an expired token may still reconnect its session.
_OPTIONS: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["sub", "exp"]}
_NAMES = {
    "session_id": "sub",
    "user_id": "uid",
    "language_code": "lang",
    "started_at": "sta",
}


class TokenClaims(msgspec.Struct, frozen=True, omit_defaults=True, rename=_NAMES):
    """Who the bearer is, and enough to bring the session back after Redis lost its memory.

    `started_at` is wall-clock ms; `fence` travels while a permit is held, `ticket` while in line.
    """

    session_id: Id
    pool: Id
    user_id: Id
    started_at: int
    language_code: str | None = None
    fence: int | None = None
    ticket: int | None = None


class Verified(msgspec.Struct, frozen=True):
    """A rightly signed token. `expires_at` is in seconds since 1970."""

    claims: TokenClaims
    expires_at: float
    expired: bool


class _Lifetime(msgspec.Struct):
    exp: float


class Tokens:
    """Signs with the first secret, verifies with all of them, so that secrets can be rotated."""

    def __init__(self, secrets: Sequence[str], ttl_s: float) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed to sign tokens")
        self._secrets = tuple(secrets)
        self.ttl_s = ttl_s

    def issue(self, claims: TokenClaims, now_s: float) -> str:
        """A token for `claims`, good for `ttl_s` from `now_s`."""
        lifetime = {"iat": int(now_s), "exp": int(now_s + self.ttl_s)}
        return jwt.encode(msgspec.to_builtins(claims) | lifetime, self._secrets[0], algorithm=_ALGORITHM)

    def verify(self, token: str, now_s: float) -> Verified:
        """The claims of `token`; `expired` says that its time is over. BadTokenError if it is not ours."""
        payload = self._payload(token)
        try:
            claims = msgspec.convert(payload, TokenClaims)
            expires_at = msgspec.convert(payload, _Lifetime).exp
        except msgspec.ValidationError as error:
            raise BadTokenError("The token lacks something that a session token carries.") from error
        return Verified(claims, expires_at, expired=now_s >= expires_at)

    def renewal_due(self, verified: Verified, now_s: float) -> bool:
        """Whether less than a quarter of the token's time is left: then its bearer should get a newer one."""
        return verified.expires_at - now_s < self.ttl_s / 4

    def _payload(self, token: str) -> dict[str, Any]:
        if not token.isascii():
            raise BadTokenError("The token is malformed.")
        for secret in self._secrets:
            try:
                return jwt.decode(token, secret, algorithms=[_ALGORITHM], options=_OPTIONS)
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidTokenError as error:
                raise BadTokenError("The token is malformed.") from error
        raise BadTokenError("The token was not signed by this server.")
