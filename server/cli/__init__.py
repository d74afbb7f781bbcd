"""The command `presence`."""

from __future__ import annotations

import sys

from server.cli.commands import app
from server.cli.errors import CommandError


def main() -> None:
    """Run the command line; errors are sentences on stderr and an exit code, never a traceback."""
    try:
        app(prog_name="presence")
    except CommandError as error:
        for sentence in error.sentences:
            sys.stderr.write(f"presence: {sentence}\n")
        sys.exit(error.exit_code)
