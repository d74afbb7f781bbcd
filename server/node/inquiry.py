"""Asking the store how a session stands, while events and other answers come on other ways and may overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from server.domain.errors import RedisAwayError
from server.domain.interview import Admission, InterviewState

REDIS_AWAY = "Redis does not answer; try again in a moment."
SETTLES_WITHIN_S = 5.0

Ask = Callable[[], Awaitable[Admission]]


class Inquiry:
    """One session's questions to the store.

    While an answer is under way (`is_open`), an event of the session, or another answer, is only counted, and the
    session looked at once more. `settled` is clear while Redis has yet to be told what it has forgotten.
    """

    __slots__ = ("_asking", "_heard", "_settled")

    def __init__(self, settled: asyncio.Event) -> None:
        self._settled = settled
        self._asking = 0
        self._heard = 0

    @property
    def is_open(self) -> bool:
        """Whether an answer is under way."""
        return self._asking > 0

    @property
    def heard(self) -> int:
        """Rises with each event and answer."""
        return self._heard

    def hear(self) -> None:
        """Something happened to the session, or was answered: an answer under way may be from before."""
        self._heard += 1

    async def answer(self, ask: Ask, look: Ask) -> tuple[Admission, bool]:
        """The answer, or that of a later `look` if it may be out of date; and whether there is more to learn by one.

        A denial is the answer to its claim alone, which a look would not tell. RedisAwayError if Redis is not told
        in time what it has forgotten.
        """
        self._asking += 1
        try:
            while True:
                heard = self._heard
                admission = await ask()
                is_denied = admission.state is InterviewState.DENIED
                if not self._settled.is_set():
                    await self._until_settled()
                elif heard == self._heard or is_denied:
                    break
                ask = ask if is_denied else look
            has_missed = heard != self._heard
            self.hear()
            return admission, has_missed
        finally:
            self._asking -= 1

    async def _until_settled(self) -> None:
        try:
            async with asyncio.timeout(SETTLES_WITHIN_S):
                await self._settled.wait()
        except TimeoutError as error:
            raise RedisAwayError(REDIS_AWAY) from error
