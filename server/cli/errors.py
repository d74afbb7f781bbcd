"""How a command fails: sentences for people and an exit code."""

from __future__ import annotations

FAILED = 1
MISUSED = 2


class CommandError(Exception):
    """Ends the command. `exit_code`: 1 it was tried and failed, 2 it was called or configured wrongly."""

    def __init__(self, *sentences: str, exit_code: int = FAILED) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences
        self.exit_code = exit_code
