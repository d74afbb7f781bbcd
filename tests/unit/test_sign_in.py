"""The dashboard's sign-ins: signing, rotation of secrets and keys, expiry, and what passes for what."""

from __future__ import annotations

import jwt
import pytest

from server.domain.errors import BadTokenError
from server.domain.sign_in import AUDIENCE, SIGN_IN_TTL_S, SignIns
from server.domain.token import TokenClaims, Tokens

OLD = "an-old-secret-of-at-least-32-bytes!!"
NEW = "a-new-secret-of-at-least-32-bytes!!!"
KEY, OTHER_KEY = "an-api-key-of-24-characters", "another-key-of-24-characters"
NOW = 1_800_000_000.0


def test_a_sign_in_is_good_for_twelve_hours() -> None:
    sign_ins = SignIns([NEW], [KEY])
    value = sign_ins.issue(KEY, NOW)
    sign_ins.check(value, NOW + SIGN_IN_TTL_S - 1)
    with pytest.raises(BadTokenError, match="expired"):
        sign_ins.check(value, NOW + SIGN_IN_TTL_S)
    assert SIGN_IN_TTL_S == 12 * 3600


def test_a_sign_in_ends_with_its_key_and_not_with_another_one() -> None:
    value = SignIns([NEW], [KEY, OTHER_KEY]).issue(KEY, NOW)
    SignIns([NEW], [OTHER_KEY, KEY]).check(value, NOW)
    with pytest.raises(BadTokenError, match="no longer in use"):
        SignIns([NEW], [OTHER_KEY]).check(value, NOW)


def test_a_sign_in_outlives_a_new_secret_as_long_as_the_old_one_verifies() -> None:
    value = SignIns([OLD], [KEY]).issue(KEY, NOW)
    SignIns([NEW, OLD], [KEY]).check(value, NOW)
    with pytest.raises(BadTokenError):
        SignIns([NEW], [KEY]).check(value, NOW)


def test_neither_the_key_nor_its_bare_hash_is_in_the_cookie() -> None:
    first, second = (SignIns([secret], [KEY]).issue(KEY, NOW) for secret in (NEW, OLD))
    claims = [jwt.decode(each, options={"verify_signature": False}) for each in (first, second)]
    assert claims[0]["key"] != claims[1]["key"]
    assert KEY not in str(claims)


def test_a_session_token_is_no_sign_in_and_a_sign_in_no_session_token() -> None:
    token = Tokens([NEW], 3600).issue(TokenClaims("s1", "main", "anna", started_at=1), NOW)
    sign_ins = SignIns([NEW], [KEY])
    with pytest.raises(BadTokenError):
        sign_ins.check(token, NOW)
    with pytest.raises(BadTokenError):
        Tokens([NEW], 3600).verify(sign_ins.issue(KEY, NOW), NOW)


def test_not_even_a_session_token_with_everything_that_a_sign_in_has_opens_the_other_door() -> None:
    claims = jwt.decode(SignIns([NEW], [KEY]).issue(KEY, NOW), options={"verify_signature": False})
    both = jwt.encode(
        {**claims, "sub": "s1", "pool": "main", "uid": "anna", "sta": 1}, NEW, algorithm="HS256"
    )
    with pytest.raises(BadTokenError):
        Tokens([NEW], 3600).verify(both, NOW)


@pytest.mark.parametrize("value", ["", "x", "a.b.c", "ä.ö.ü", "a" * 5000, "null"])
def test_nonsense_is_refused(value: str) -> None:
    with pytest.raises(BadTokenError):
        SignIns([NEW], [KEY]).check(value, NOW)


def test_an_unsigned_sign_in_is_refused() -> None:
    claims = {"aud": AUDIENCE, "exp": NOW + 60, "key": "x"}
    for forged in (
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, "somebody-else's-secret-of-32-bytes!!", algorithm="HS256"),
    ):
        with pytest.raises(BadTokenError):
            SignIns([NEW], [KEY]).check(forged, NOW)
