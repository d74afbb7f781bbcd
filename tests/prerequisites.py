"""What the full suite needs of the machine beyond Python packages; says loudly what is missing.

`python -m tests.prerequisites` lists it. A missing one skips its tests, or fails them with REQUIRE_ALL=1.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# Where Debian keeps servers; not in everybody's PATH.
DEBIANS_SERVERS = "/usr/sbin"
POSTGRES_15 = "/usr/lib/postgresql/15/bin/postgres"
CHROMIUM_PLACES = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """A program, what is not tested without it, and how Debian names its package."""

    program: str
    tests: str
    package: str

    def find(self) -> str | None:
        """Where it is, or None."""
        if self.program == "chromium":
            return next((place for place in CHROMIUM_PLACES if Path(place).exists()), None)
        if self.program == "postgres-15":
            return POSTGRES_15 if Path(POSTGRES_15).exists() else None
        return shutil.which(self.program, path=f"{os.environ.get('PATH', os.defpath)}:{DEBIANS_SERVERS}")


PREREQUISITES = {
    each.program: each
    for each in (
        Prerequisite("chromium", "the demo and the browser client in a real browser", "chromium"),
        Prerequisite("node", "the browser client's own tests", "nodejs"),
        Prerequisite("redis-server", "the scripts on Debian's Redis", "redis-server"),
        Prerequisite("redis-cli", "the redis-cli commands of the documentation", "redis-tools"),
        Prerequisite("curl", "the curl commands of the documentation", "curl"),
        Prerequisite("psql", "the psql commands of the documentation", "postgresql-client"),
        Prerequisite("pgbouncer", "Supabase's poolers, and TLS to the database", "pgbouncer"),
        Prerequisite("postgres-15", "the oldest Postgres that is supported", "postgresql-15"),
        Prerequisite("promtool", "the metrics and the alert rules", "prometheus"),
        Prerequisite("openssl", "TLS to the database, and behind a proxy", "openssl"),
        Prerequisite("tmux", "the live terminal view", "tmux"),
        Prerequisite("systemd-analyze", "the example for systemd", "systemd"),
        Prerequisite("nginx", "the example for nginx", "nginx-light"),
        Prerequisite("caddy", "the example for Caddy", "caddy"),
    )
}


def all_required() -> bool:
    """Whether a missing program is a failure."""
    return os.environ.get("REQUIRE_ALL") == "1"


def demand(program: str) -> str:
    """Path of the program; without it the calling test is skipped, or fails with REQUIRE_ALL=1."""
    prerequisite = PREREQUISITES[program]
    path = prerequisite.find()
    if path is None:
        sentence = f"{program} is missing (Debian: apt-get install {prerequisite.package})"
        if all_required():
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


def main() -> int:
    """Print one loud line for each missing program."""
    missing = [each for each in PREREQUISITES.values() if each.find() is None]
    for each in missing:
        verdict = "REQUIRED, MISSING" if all_required() else "NOT TESTED"
        print(f"*** {verdict}: {each.tests} (no {each.program}; Debian: apt-get install {each.package})")
    return 1 if missing and all_required() else 0


if __name__ == "__main__":
    sys.exit(main())
