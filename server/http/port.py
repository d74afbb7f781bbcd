"""What the routes need of the node that serves them."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Literal, Protocol

from persistence.rows import PresenceRow
from server.domain.sentences import Sentences
from server.domain.token import Tokens
from server.settings import Settings

if TYPE_CHECKING:
    from server.live.store import Store


class FlushStatus(Protocol):
    """How far Postgres is behind Redis."""

    @property
    def lag_s(self) -> float:
        """Age of the oldest change that is not yet written."""

    @property
    def backlog(self) -> int:
        """How many sessions wait to be written."""


class History(Protocol):
    """The sessions in Postgres."""

    async def session(self, session_id: str) -> PresenceRow | None:
        """One session, from whatever pool."""

    async def sessions(
        self,
        pool: str,
        *,
        status: str | None = None,
        language_code: str | None = None,
        user_id: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int,
    ) -> Sequence[PresenceRow]:
        """Newest first by (started_at, session_id), those behind `before`."""


class Node(Protocol):
    """The node, as far as HTTP looks into it."""

    @property
    def store(self) -> Store:
        """The live state."""

    @property
    def settings(self) -> Settings:
        """The configuration."""

    @property
    def tokens(self) -> Tokens:
        """Signs and verifies session tokens."""

    @property
    def sentences(self) -> Sentences:
        """What participants are told."""

    @property
    def history(self) -> History | None:
        """Postgres, if there is one."""

    @property
    def draining(self) -> bool:
        """Whether this node is stopping."""

    @property
    def postgres(self) -> Literal["ok", "down", "off"]:
        """How Postgres is."""

    @property
    def hub(self) -> Sized:
        """The WebSockets that this node holds."""

    def flush_status(self) -> FlushStatus | None:
        """How far Postgres is behind; None without Postgres."""
