"""One HTTP call: time-outs, one retry where a call may be repeated, and a pause after a server that kept us waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from presence_tracker.answers import AWAY
from presence_tracker.errors import PresenceUnavailableError

RETRY_PAUSE_S = 0.1
# Every run of an app makes several calls: against a server that never answers only the first of them may wait.
AWAY_PAUSE_S = 2.0
TRIES = 2

log = logging.getLogger("presence_tracker")


@dataclass(frozen=True, slots=True)
class Request:
    """`is_repeatable`: if the answer is lost, asking again does no harm and gives the same answer."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any] | None = None
    is_repeatable: bool = True
    timeout_s: float | None = None


class Caller:
    """Sends requests over one client; thread-safe. Without an answer: PresenceUnavailableError."""

    def __init__(
        self, client: httpx.Client, *, dev_mode: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._level = logging.INFO if dev_mode else logging.DEBUG
        self._clock = clock
        self._away_until = 0.0

    def send(self, request: Request) -> httpx.Response:
        """The answer, whatever its status; after one more try, if the request may be repeated."""
        if self._clock() < self._away_until:
            raise PresenceUnavailableError("The presence server did not answer in time a moment ago.")
        for _ in range(TRIES - 1 if request.is_repeatable else 0):
            response = self._try(request)
            if response is not None and response.status_code not in AWAY:
                return response
            time.sleep(RETRY_PAUSE_S)
        return self._send_once(request)

    def _try(self, request: Request) -> httpx.Response | None:
        try:
            return self._send_once(request)
        except PresenceUnavailableError:
            return None

    def _send_once(self, request: Request) -> httpx.Response:
        began = self._clock()
        try:
            response = self._client.request(
                request.method,
                request.path,
                params=request.query,
                json=request.body,
                timeout=httpx.USE_CLIENT_DEFAULT if request.timeout_s is None else request.timeout_s,
            )
        except httpx.TimeoutException:
            self._away_until = self._clock() + AWAY_PAUSE_S
            self._tell(request, "no answer in time", began)
            raise PresenceUnavailableError("The presence server did not answer in time.") from None
        except httpx.RequestError as error:  # also an answer that cannot be unpacked
            self._tell(request, type(error).__name__, began)
            raise PresenceUnavailableError(f"The presence server cannot be reached: {error}.") from None
        self._away_until = 0.0
        self._tell(request, f"{response.status_code} {response.reason_phrase}", began)
        return response

    def _tell(self, request: Request, outcome: str, began: float) -> None:
        """One line a call: never its body, its headers or its answer, which may hold a key or a token."""
        passed_ms = (self._clock() - began) * 1000
        log.log(self._level, "%s %s: %s, %.0f ms", request.method, request.path, outcome, passed_ms)
