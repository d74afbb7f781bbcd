"""Runs `presence` as a user does: a process, an environment, an exit code and lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "server.cli"]
COMMAND_S = 60


def presence(
    *arguments: str, cwd: Path | str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def complaints(done: subprocess.CompletedProcess[str], exit_code: int) -> list[str]:
    """The lines that a failed command left; fails if it ended otherwise than by sentences."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("presence: ") for line in done.stderr.splitlines()]
