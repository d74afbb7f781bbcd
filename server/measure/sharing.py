"""Keeps what this worker measured where the other workers of the node find it."""

from __future__ import annotations

import asyncio
from itertools import count

from server.measure.exposition import Shared
from server.measure.measured import Measured

WRITE_EVERY_S = 0.5
# What the process itself uses, in rounds of that.
PROCESS_EVERY = 20


async def share(measured: Measured, shared: Shared) -> None:
    """Write for ever."""
    for number in count():
        shared.write(measured)
        if number % PROCESS_EVERY == 0:
            shared.write_process()
        await asyncio.sleep(WRITE_EVERY_S)
