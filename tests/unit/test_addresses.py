"""Which address a client has behind proxies."""

from __future__ import annotations

import pytest

from server.domain.addresses import TrustedProxies, is_private


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "203.0.113.1", ["198.51.100.9"], "203.0.113.1"),
        (["10.0.0.0/8"], "203.0.113.1", ["198.51.100.9"], "203.0.113.1"),
        (["10.0.0.0/8"], "10.1.2.3", [], "10.1.2.3"),
        (["10.0.0.0/8"], "10.1.2.3", ["198.51.100.9"], "198.51.100.9"),
        (["10.0.0.0/8"], "10.1.2.3", ["6.6.6.6, 198.51.100.9"], "198.51.100.9"),
        (["10.0.0.0/8"], "10.1.2.3", ["6.6.6.6", "198.51.100.9, 10.9.9.9"], "198.51.100.9"),
        (["10.0.0.0/8"], "10.1.2.3", ["10.4.4.4"], "10.4.4.4"),
        (["10.0.0.0/8"], "10.1.2.3", ["198.51.100.9:4711"], "198.51.100.9"),
        (["::1"], "::1", ["[2001:db8::7]:443"], "2001:db8::7"),
        (["::1"], "::1", ["2001:db8::7"], "2001:db8::7"),
        (["10.0.0.0/8"], "10.1.2.3", ["198.51.100.9, unknown"], "10.1.2.3"),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", ["198.51.100.9"], "198.51.100.9"),
        (["*"], "203.0.113.1", ["6.6.6.6, 198.51.100.9"], "198.51.100.9"),
    ],
)
def test_only_what_a_trusted_proxy_says_is_believed(
    trusted: list[str], peer: str, forwarded: list[str], client: str
) -> None:
    assert TrustedProxies(trusted).client(peer, forwarded) == client


def test_an_entry_that_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example"):
        TrustedProxies(["proxy.example"])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fe80::1", "::ffff:10.0.0.1", ""]
)
def test_addresses_that_many_may_share_are_private(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4001::1"])
def test_public_addresses_are_not_private(address: str) -> None:
    assert not is_private(address)
