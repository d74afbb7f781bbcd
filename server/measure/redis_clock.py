"""What time it is for Redis, as far as its replies tell: nodes have clocks of their own."""

from __future__ import annotations

import math

# A clock that was set, or drifts, is believed again after two of these.
WINDOW_S = 60.0


class RedisClock:
    """Reckons Redis's clock from this process's. The reply that came quickest is nearest to the truth.

    `seconds` are of any clock that only rises, e.g. the event loop's.
    """

    def __init__(self) -> None:
        self._began = -math.inf
        self._best = self._best_before = math.inf

    def saw(self, at_ms: int, seconds: float) -> None:
        """A reply that was made at `at_ms` by Redis's clock is here."""
        if seconds >= self._began + WINDOW_S:
            self._began, self._best_before, self._best = seconds, self._best, math.inf
        self._best = min(self._best, seconds - at_ms / 1000)

    def age_s(self, at_ms: int, seconds: float) -> float | None:
        """How long ago that was; never below 0. None before the first reply."""
        ahead = min(self._best, self._best_before)
        return None if math.isinf(ahead) else max(0.0, seconds - at_ms / 1000 - ahead)
