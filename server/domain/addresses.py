"""Which address a client has, when proxies stand between; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
ANY = "*"


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed: addresses and networks, or `*` for every peer.

    ValueError, naming the entry, for one that is neither.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._networks = [_network(entry) for entry in entries if entry != ANY]
        self._any = ANY in entries

    def __bool__(self) -> bool:
        return self._any or bool(self._networks)

    def client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client's address: the last hop, read from the right, that no trusted proxy made.

        `forwarded_for`: the values of the X-Forwarded-For headers, in their order. What stands left of the
        first untrusted hop is hearsay. With `*` only the hop next to us is trusted, since it may be any.
        """
        hops = [hop for value in forwarded_for for hop in value.split(",")]
        client = peer
        while self.trusts(client) and hops:
            hop = _without_port(hops.pop().strip())
            if _parse(hop) is None:
                break
            client = hop
            if self._any:
                break
        return client

    def trusts(self, address: str) -> bool:
        """Whether `address` is a trusted proxy's."""
        if self._any:
            return True
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def is_private(address: str) -> bool:
    """Whether `address` can't be told from others behind it: private, loopback, link-local, or no address."""
    parsed = _parse(address)
    return parsed is None or parsed.is_private or parsed.is_link_local


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(f"{entry!r} is neither an address nor a network like 10.0.0.0/8") from None


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(hop: str) -> str:
    """`1.2.3.4:567` and `[::1]:567` without their port; a bare IPv6 address has colons, but no port."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
