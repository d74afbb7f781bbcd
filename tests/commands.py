"""Runs `presence` as a user does: a process, an environment, an exit code and lines."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from server.cli import main

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


def presence_here(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process: the same, but for the second that its modules take to load.

    Not beside a node in this process, whose log would stand among its lines.
    """
    said, complained = io.StringIO(), io.StringIO()
    exit_code: object = 0
    with (
        patch.object(sys, "argv", ["presence", *arguments]),
        patch.dict(os.environ, environment),
        redirect_stdout(said),
        redirect_stderr(complained),
    ):
        try:
            main()
        except SystemExit as end:
            exit_code = end.code or 0
    assert isinstance(exit_code, int)
    return subprocess.CompletedProcess(arguments, exit_code, said.getvalue(), complained.getvalue())


def complaints(done: subprocess.CompletedProcess[str], exit_code: int) -> list[str]:
    """The lines that a failed command left; fails if it ended otherwise than by sentences."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("presence: ") for line in done.stderr.splitlines()]
