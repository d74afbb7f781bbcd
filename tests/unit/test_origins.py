"""Which origins may connect."""

from __future__ import annotations

import pytest

from server.domain.origins import Origins

DEVELOPMENT = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://study.streamlit.app", True),
        ("https://a.b.streamlit.app", True),
        ("HTTPS://Study.Streamlit.App", True),
        ("https://streamlit.app", False),
        ("https://evilstreamlit.app", False),
        ("https://x.streamlit.app.evil.example", False),
        ("https://x/.streamlit.app", False),
        ("https://evil.example#.streamlit.app", False),
        ("https://user@x.streamlit.app", False),
        ("http://study.streamlit.app", False),
        ("https://study.streamlit.app:8443", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_wildcard_stands_for_dns_labels_only(origin: str, *, allowed: bool) -> None:
    assert Origins(["https://*.streamlit.app"]).allows(origin, "presence.example") is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("http://localhost:8501", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost:x", False),
        ("http://localhost.evil.example:80", False),
        ("https://localhost:8501", False),
    ],
)
def test_any_port_of_loopback_is_allowed_in_development(origin: str, *, allowed: bool) -> None:
    assert Origins(DEVELOPMENT).allows(origin, "127.0.0.1:8000") is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://presence.example", "presence.example", True),
        ("https://presence.example", "presence.example:443", True),
        ("http://presence.example:8000", "Presence.example:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://presence.example:8000", "presence.example:9000", False),
        ("https://other.example", "presence.example", False),
        ("null", "null", False),
        ("http://a:b", "a:b", False),
        ("https://presence.example", None, False),
    ],
)
def test_the_same_host_is_always_allowed(origin: str, host: str | None, *, allowed: bool) -> None:
    assert Origins([]).allows(origin, host) is allowed


def test_no_browser_sent_a_request_without_an_origin() -> None:
    assert Origins([]).allows(None, "presence.example")


def test_the_public_address_is_allowed_behind_a_proxy_that_changes_the_host() -> None:
    origins = Origins([], public_url="https://presence.example/base/")
    assert origins.allows("https://presence.example", "10.0.0.7:8000")
    assert not origins.allows("https://other.example", "10.0.0.7:8000")


def test_everyone_is_allowed_only_when_it_is_said() -> None:
    assert Origins(["*"]).allows("null", "presence.example")
    assert Origins(["https://a.example", "*"]).allows("https://b.example", None)


def test_a_trailing_slash_does_no_harm() -> None:
    assert Origins(["https://a.example/"]).allows("https://a.example", None)


@pytest.mark.parametrize(
    "pattern", ["a.example", "https://", "https://a.example/path", "https://a b", "https://a:x"]
)
def test_a_pattern_that_is_no_origin_is_named(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Origins([pattern])
