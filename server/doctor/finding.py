"""What a check found, in words for people."""

from __future__ import annotations

from enum import StrEnum

import msgspec

PAGE = "docs/troubleshooting.md"


class Level(StrEnum):
    """How bad it is. Only `FAILED` makes the command fail."""

    OK = "ok"
    CAREFUL = "careful"
    SKIPPED = "skipped"
    FAILED = "failed"


class Finding(msgspec.Struct, frozen=True):
    """One check: its name, how it went, what was seen; if need be how to mend it, and where that is explained."""

    check: str
    level: Level
    what: str
    mend: str | None = None
    see: str | None = None

    def line(self) -> str:
        """All of it in one line."""
        parts = [self.what, self.mend and f"→ {self.mend}", self.see and f"({self.see})"]
        return f"{self.level:8}{self.check:23}{' '.join(filter(None, parts))}"


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, what)


def skipped(check: str, what: str) -> Finding:
    """Nothing was looked at, for that reason."""
    return Finding(check, Level.SKIPPED, what)


def careful(check: str, what: str, mend: str) -> Finding:
    """It works, and one should know."""
    return Finding(check, Level.CAREFUL, what, mend, explained(check))


def failed(check: str, what: str, mend: str) -> Finding:
    """It must be mended."""
    return Finding(check, Level.FAILED, what, mend, explained(check))


def explained(check: str) -> str:
    """Where the check is explained: under its own name."""
    return f"{PAGE}#{check.replace(' ', '-')}"
