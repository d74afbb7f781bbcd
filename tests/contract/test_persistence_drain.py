"""One pass over what is dirty: each row once, in batches of the size that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from persistence.drain import Drain
from persistence.lines import session_id_of
from persistence.port import Written
from tests.contract.persistence_model import LiveModel, row

BATCH = 10
BAD = [f"bad{number:02d}" for number in range(30)]
GOOD = [f"good{number:03d}" for number in range(100)]


async def test_rows_that_are_left_out_make_no_batch_larger_and_no_row_is_written_twice() -> None:
    live, sizes = LiveModel(), []
    for session_id in (*BAD, *GOOD):
        live.change(row(session_id))

    async def write(lines: Sequence[str]) -> Written:
        sizes.append(len(lines))
        for _ in range(3):  # so that the other batch is taken meanwhile
            await asyncio.sleep(0)
        return Written(left_out=[each for each in map(session_id_of, lines) if each in BAD])

    await Drain(live, write, "main", batch=BATCH, most=2 * len(live.dirty)).run()
    assert max(sizes) == BATCH
    assert sum(sizes) == len(BAD) + len(GOOD)
    assert sorted(live.acked) == GOOD
    assert sorted(live.dirty) == BAD
