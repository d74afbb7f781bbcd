"""A flush comes to its end although people go on: what changes meanwhile is the next one's."""

from __future__ import annotations

from persistence.connect import connect
from persistence.flusher import Flusher
from persistence.port import ALL_WRITTEN, Taken, Written
from persistence.repository import Repository
from tests.contract.persistence_model import LiveModel, row

WAITING = 3


class Restless(LiveModel):
    """Somebody turns a page whenever something was confirmed."""

    async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
        await super().ack(pool, taken, written)
        self.change(row("restless", current_page=f"page {len(self.acked)}"))


async def test_people_who_go_on_changing_do_not_keep_a_flush_from_its_end(database_url: str) -> None:
    """Or it would write single rows for ever, while those who only stay are not touched and the lease runs out."""
    live = Restless()
    for number in range(WAITING):
        live.change(row(f"s{number}"))
    async with await connect(database_url) as pool:
        flusher = Flusher(live, Repository(pool), holder="node-1")
        assert await flusher.flush_once()
        assert WAITING <= len(live.acked) <= 2 * WAITING
        assert list(live.dirty) == ["restless"]
        assert await flusher.flush_once()
        stored = await Repository(pool).session("restless")
    assert stored is not None
    assert live.sessions["restless"].version - stored.version <= 1
