"""Keeps what this worker measured where the other workers of the node find it."""

from __future__ import annotations

import asyncio
import os
from itertools import count

from server.measure.exposition import Shared
from server.measure.measured import Measured

WRITE_EVERY_S = 0.5
# What the process itself uses, in rounds of that.
PROCESS_EVERY = 20


async def share(measured: Measured, shared: Shared) -> None:
    """Write until cancelled. The parent removes the files; if it was killed, whoever ends first does."""
    parent = os.getppid()
    try:
        for number in count():
            shared.write(measured)
            if number % PROCESS_EVERY == 0:
                shared.write_process()
            await asyncio.sleep(WRITE_EVERY_S)
    finally:
        if os.getppid() != parent:
            shared.remove()
