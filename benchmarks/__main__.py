"""`python -m benchmarks`: runs them one after the other and prints one table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from benchmarks import claims_http, claims_store, flush, growth, instruments, latency, renewals, sessions
from benchmarks.ground import Ground, prepared
from benchmarks.table import Row, print_table

Measure = Callable[[Ground], Awaitable[list[Row]]]

BENCHMARKS: dict[str, Measure] = {
    "sessions": sessions.measure,
    "renewals": renewals.measure,
    "instruments": instruments.measure,
    "claims-http": claims_http.measure,
    "claims-store": claims_store.measure,
    "latency": latency.measure,
    "growth": growth.measure,
    "flush": flush.measure,
    "flush-backlog": flush.measure_backlog,
}
LONGEST_S = 90.0
INTERRUPTED = 130


def main() -> int:
    """Run what was asked for; the exit code says whether it ran, not whether the goals were met."""
    arguments = _arguments()
    _allow_many_sockets()
    try:
        with prepared(arguments.scale, arguments.redis_server) as ground:
            rows = _run(arguments.only or list(BENCHMARKS), ground)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    print_table(rows, _machine())
    if arguments.json is not None:
        found = {"machine": _machine(), "scale": arguments.scale, "rows": [row.as_json() for row in rows]}
        arguments.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="run this one; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the loads; 1 = as documented")
    parser.add_argument("--redis-server", metavar="FILE", help="this Redis in place of the bundled one")
    return parser.parse_args()


def _run(names: Sequence[str], ground: Ground) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        began = time.perf_counter()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows += runner.run(_within(BENCHMARKS[name], ground))
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return rows


async def _within(measure: Measure, ground: Ground) -> list[Row]:
    async with asyncio.timeout(LONGEST_S):
        return await measure(ground)


def _allow_many_sockets() -> None:
    """As many as the machine allows; the servers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _machine() -> str:
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
