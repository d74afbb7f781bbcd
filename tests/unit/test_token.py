"""Session tokens: signing, rotation, expiry, and what is refused."""

from __future__ import annotations

import jwt
import pytest

from server.domain.errors import BadTokenError
from server.domain.token import TokenClaims, Tokens

OLD = "an-old-secret-of-at-least-32-bytes!!"
NEW = "a-new-secret-of-at-least-32-bytes!!!"
NOW = 1_800_000_000.0
CLAIMS = TokenClaims("s1", "main", "anna", started_at=1_799_999_000_000, language_code="de", fence=7)
PAYLOAD = {"sub": "s1", "pool": "main", "uid": "anna", "sta": 1, "exp": NOW + 60}


def test_a_token_gives_back_the_claims_it_was_issued_for() -> None:
    tokens = Tokens([NEW], ttl_s=3600)
    verified = tokens.verify(tokens.issue(CLAIMS, NOW), NOW + 1)
    assert verified.claims == CLAIMS
    assert verified.expires_at == NOW + 3600
    assert not verified.expired


def test_a_token_whose_time_is_over_is_still_recognised_as_ours() -> None:
    tokens = Tokens([NEW], ttl_s=60)
    verified = tokens.verify(tokens.issue(CLAIMS, NOW), NOW + 60)
    assert verified.expired
    assert verified.claims.session_id == "s1"


def test_the_first_secret_signs_and_every_secret_verifies() -> None:
    token = Tokens([OLD], 60).issue(CLAIMS, NOW)
    rotated = Tokens([NEW, OLD], 60)
    assert rotated.verify(token, NOW).claims == CLAIMS
    with pytest.raises(BadTokenError):
        Tokens([OLD], 60).verify(rotated.issue(CLAIMS, NOW), NOW)


def test_a_newer_token_is_due_in_the_last_quarter_of_its_time() -> None:
    tokens = Tokens([NEW], ttl_s=100)
    verified = tokens.verify(tokens.issue(CLAIMS, NOW), NOW)
    assert not tokens.renewal_due(verified, NOW + 75)
    assert tokens.renewal_due(verified, NOW + 76)


def test_absent_claims_do_not_travel() -> None:
    token = Tokens([NEW], 60).issue(TokenClaims("s1", "main", "anna", 1), NOW)
    assert set(jwt.decode(token, options={"verify_signature": False})) == {
        "sub",
        "pool",
        "uid",
        "sta",
        "iat",
        "exp",
    }


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä.ö.ü", "e30.e30.", "\ud800"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadTokenError):
        Tokens([NEW], 60).verify(token, NOW)


@pytest.mark.parametrize(
    "payload",
    [
        {name: value for name, value in PAYLOAD.items() if name != "exp"},
        {name: value for name, value in PAYLOAD.items() if name != "pool"},
        PAYLOAD | {"exp": "tomorrow"},
        PAYLOAD | {"sub": "no spaces"},
        PAYLOAD | {"sta": "yesterday"},
    ],
)
def test_a_signed_token_that_is_no_session_token_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(BadTokenError):
        Tokens([NEW], 60).verify(jwt.encode(payload, NEW, algorithm="HS256"), NOW)


def test_an_unsigned_token_and_another_algorithm_are_refused() -> None:
    for forged in (
        jwt.encode(PAYLOAD, None, algorithm="none"),
        jwt.encode(PAYLOAD, NEW + NEW, algorithm="HS512"),
    ):
        with pytest.raises(BadTokenError):
            Tokens([NEW], 60).verify(forged, NOW)


def test_signing_without_a_secret_is_impossible() -> None:
    with pytest.raises(ValueError, match="secret"):
        Tokens([], 60)
