"""The server's HTTP API as methods: `PresenceApi`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from presence_tracker.answers import Json, error_of, json_of, object_of
from presence_tracker.calls import Caller, Request
from presence_tracker.config import DEFAULT_POOL
from presence_tracker.errors import PresenceConfigError, PresenceRequestError
from presence_tracker.models import Capacity, Interview, OpenedSession

TIMEOUT_S = 2.5
CLEANUP_TIMEOUT_S = 30.0
# A server that lost all its memory must hear of the limit again from an app that runs on.
DECLARE_AGAIN_S = 60.0
CONFLICT = 409
UNKNOWN_POOL = "unknown_pool"


class PresenceApi:
    """One server, key and pool. Thread-safe; one may serve all sessions of an app.

    Errors of all methods: PresenceUnavailableError when the server is away, after one retry where a call may be
    repeated; PresenceConfigError when it refuses the key, or is no presence server; SessionGoneError when it does not
    know the session or that has ended; PresenceRequestError for what else it refuses.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        pool: str = DEFAULT_POOL,
        timeout_s: float = TIMEOUT_S,
        dev_mode: bool = False,
    ) -> None:
        self.url = url
        self.pool = pool
        self._client = _client(url, api_key, timeout_s)
        self._caller = Caller(self._client, dev_mode=dev_mode)
        self._declaring = threading.Lock()
        self._declared: tuple[int, float] | None = None

    def __repr__(self) -> str:
        return f"PresenceApi({self.url!r}, pool={self.pool!r})"

    def close(self) -> None:
        """Close its connections; a program that asks for as long as it runs need not."""
        self._client.close()

    # Sessions. All may be repeated: a lost answer and a second try end in the same state.

    def open_session(
        self,
        user_id: str,
        language_code: str | None = None,
        current_page: str | None = None,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenedSession:
        """Open a session, or resume the one that the user had. Repeated, it resumes what the first try opened."""
        body = {
            "user_id": user_id,
            "language_code": language_code,
            "current_page": current_page,
            "session_id": session_id,
            "metadata": metadata,
        }
        named = {name: value for name, value in body.items() if value is not None}
        return OpenedSession.from_json(self._ask("POST", "/v1/sessions", named))

    def session(self, session_id: str) -> Json:
        """The session as it stands: its row, and `online`, `connection`, `visible`, `interview`."""
        return self._ask("GET", _path(session_id))

    def set_page(self, session_id: str, page: str) -> Json:
        """Tell which page the participant is on; the session as it stands."""
        return self._ask("PATCH", _path(session_id), {"current_page": page})

    def new_token(self, session_id: str) -> str:
        """A new token for the session's browser."""
        return str(self._ask("POST", _path(session_id, "/token"))["token"])

    # Interviews

    def claim(self, session_id: str, *, wait: bool = True, takeover: bool = False) -> Interview:
        """Claim a permit, or (`wait`) a place in line; during an offer, accept it. A denial is an answer, no error.

        Repeated, it answers the same permit or place.
        """
        response = self._send("POST", _path(session_id, "/interview"), {"wait": wait, "takeover": takeover})
        if response.status_code == CONFLICT:
            return _denial(response)
        return Interview.from_json(object_of(response))

    def interview(self, session_id: str) -> Interview:
        """How the session stands; claims nothing."""
        return Interview.from_json(self._ask("GET", _path(session_id, "/interview")))

    def release(self, session_id: str) -> Interview:
        """Give back the permit, or leave the line. Of an ended session: how it ended."""
        return Interview.from_json(self._ask("DELETE", _path(session_id, "/interview")))

    def complete(self, session_id: str) -> Interview:
        """End the session as completed; its permit goes to the next in line."""
        return Interview.from_json(self._ask("POST", _path(session_id, "/complete"), {}))

    # The pool

    def capacity(self) -> Capacity:
        """How full the pool is."""
        return Capacity.from_json(self._ask_pool("GET", "/v1/capacity"))

    def pool_config(self) -> Json:
        """What the pool is set to."""
        return self._ask_pool("GET", self._pool_path)

    def declare_limit(self, limit: int) -> None:
        """Set the limit, if it differs from what was declared last: an operator's change since then stays."""
        self._ask("PUT", self._pool_path, {"declared_limit": limit})

    def keep_declared(self, limit: int) -> None:
        """Declare the limit if this process has not done so lately; for every run of an app."""
        with self._declaring:
            if self._is_declared(limit):
                return
        self.declare_limit(limit)
        with self._declaring:
            self._declared = (limit, time.monotonic())

    def cleanup(self, hours: float) -> int:
        """Abandon the sessions that were last seen more than `hours` ago; how many.

        Never repeated: a second try would answer how many the first one had left over.
        """
        request = Request(
            "POST",
            "/v1/cleanup",
            self._query,
            {"hours": hours},
            is_repeatable=False,
            timeout_s=CLEANUP_TIMEOUT_S,
        )
        try:
            return int(object_of(self._caller.send(request))["abandoned"])
        except PresenceRequestError as error:
            if error.code == UNKNOWN_POOL:  # nobody has used it yet
                return 0
            raise

    @property
    def _query(self) -> Mapping[str, str]:
        return {"pool": self.pool}

    @property
    def _pool_path(self) -> str:
        return f"/v1/pools/{quote(self.pool, safe='')}"

    def _is_declared(self, limit: int) -> bool:
        if self._declared is None:
            return False
        declared, at = self._declared
        return declared == limit and time.monotonic() - at < DECLARE_AGAIN_S

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        return object_of(self._send(method, path, body))

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        query = {} if path == self._pool_path else self._query
        return self._caller.send(Request(method, path, query, body))

    def _ask_pool(self, method: str, path: str) -> Json:
        """About a pool that nobody has used yet: it is made with the server's defaults, as by a first session."""
        try:
            return self._ask(method, path)
        except PresenceRequestError as error:
            if error.code != UNKNOWN_POOL:
                raise
        self._ask("PUT", self._pool_path, {})
        return self._ask(method, path)


def _client(url: str, api_key: str, timeout_s: float) -> httpx.Client:
    try:
        return httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=httpx.Timeout(timeout_s)
        )
    except (httpx.InvalidURL, ValueError):
        raise PresenceConfigError("`url` is not an address.") from None


def _path(session_id: str, rest: str = "") -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}{rest}"


def _denial(response: httpx.Response) -> Interview:
    """A 409 with an interview object is the answer to a claim; with a problem it is an error."""
    answer = json_of(response)
    if answer is None or "state" not in answer:
        raise error_of(response, answer)
    return Interview.from_json(answer)
