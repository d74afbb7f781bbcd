"""Sign-ins: what the dashboard's cookie carries, so that the API key itself need not travel with each request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import jwt

from server.domain.errors import BadTokenError

SIGN_IN_TTL_S = 43_200.0
# A session token has no audience, and is refused where one is asked for; this one is refused where none is.
AUDIENCE = "presence-dashboard"
_ALGORITHM = "HS256"
# We judge `exp` ourselves, by a clock that is passed in.
_OPTIONS: Any = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "require": ["aud", "exp", "key"],
}


class SignIns:
    """Signs with the first secret, verifies with all. A sign-in ends with the API key that opened it."""

    def __init__(self, secrets: Sequence[str], api_keys: Sequence[str]) -> None:
        self._secrets = tuple(secrets)
        self._api_keys = tuple(api_keys)

    def issue(self, api_key: str, now_s: float) -> str:
        """A cookie's value for whoever gave `api_key`, good for `SIGN_IN_TTL_S` from `now_s` (seconds since 1970)."""
        claims = {
            "aud": AUDIENCE,
            "key": _fingerprint(self._secrets[0], api_key),
            "iat": int(now_s),
            "exp": int(now_s + SIGN_IN_TTL_S),
        }
        return jwt.encode(claims, self._secrets[0], algorithm=_ALGORITHM)

    def check(self, value: str, now_s: float) -> None:
        """BadTokenError unless `value` is a sign-in of ours, its time is not over, and its API key still opens."""
        secret, claims = self._opened(value)
        if now_s >= float(claims["exp"]):
            raise BadTokenError("The sign-in has expired. Sign in again.")
        known = [_fingerprint(secret, key) for key in self._api_keys]
        if not any(hmac.compare_digest(each, str(claims["key"])) for each in known):
            raise BadTokenError("The API key of this sign-in is no longer in use. Sign in again.")

    def _opened(self, value: str) -> tuple[str, dict[str, Any]]:
        """The claims, and the secret that signed them."""
        for secret in self._secrets:
            try:
                return secret, jwt.decode(
                    value, secret, algorithms=[_ALGORITHM], audience=AUDIENCE, options=_OPTIONS
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, UnicodeError) as error:
                raise BadTokenError("This is no sign-in of the dashboard.") from error
        raise BadTokenError("The sign-in was not signed by this server. Sign in again.")


def _fingerprint(secret: str, api_key: str) -> str:
    """Tells keys apart; whoever reads the cookie can't test guesses of the key without the secret."""
    return hmac.new(secret.encode(), b"api key\0" + api_key.encode(), hashlib.sha256).hexdigest()[:32]
