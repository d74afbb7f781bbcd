"""How many connections there may be, and how fast one may talk."""

from __future__ import annotations

from collections import Counter

BURST_S = 2.0


class ConnectionLimits:
    """Counts this node's connections, all together and by client address."""

    def __init__(self, at_most: int, per_address: int) -> None:
        self._at_most = at_most
        self._per_address = per_address
        self._of_address: Counter[str] = Counter()
        self.total = 0

    def enter(self, address: str, *, limited: bool) -> bool:
        """Count a connection in, if there is room; `limited`: the address has a limit of its own."""
        if self.total >= self._at_most or (limited and self._of_address[address] >= self._per_address):
            return False
        self.total += 1
        self._of_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count out a connection that was counted in."""
        self.total -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


class MessageRate:
    """Spaces messages at `per_s`, with a burst of two seconds' worth.

    The generic cell rate algorithm: a bucket of tokens, told by one number, the time at which it will be full
    again. It is the caller's to keep, so that a connection carries a float and no object.
    """

    def __init__(self, per_s: float) -> None:
        self._spacing_s = 1 / per_s

    def spend(self, full_at: float, now: float) -> float | None:
        """The bucket's new state after one more message at `now`; None when it is empty."""
        full_at = max(full_at, now) + self._spacing_s
        return None if full_at - now > BURST_S else full_at
