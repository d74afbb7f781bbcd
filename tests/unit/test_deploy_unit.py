"""The example of a systemd service is one, locks the server in, and leaves it the time that a stop takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from server.app import CLOSE_POSTGRES_WITHIN_S
from server.cli.errors import MISUSED
from server.node.node import DRAIN_PATIENCE_S, DRAIN_S, FINAL_FLUSH_S
from server.serve import GRACEFUL_STOP_S
from tests.prerequisites import demand

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "examples/deploy/presence.service"
OPERATIONS = ROOT / "docs/operations.md"
LONGEST_STOP_S = DRAIN_S + DRAIN_PATIENCE_S + GRACEFUL_STOP_S + FINAL_FLUSH_S + CLOSE_POSTGRES_WITHIN_S


def setting(name: str) -> str:
    """The last value of a setting of the unit."""
    values = re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return str(values[-1])


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [demand("systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    unit.write_text(
        text.replace("/opt/presence/bin/presence", f"{sys.prefix}/bin/presence"), encoding="utf-8"
    )
    done = analyze("verify", str(unit))
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_systemd_calls_the_unit_well_locked_in() -> None:
    done = analyze("security", "--offline=true", "--threshold=20", str(UNIT))
    assert done.returncode == 0, done.stdout


def test_a_stop_has_the_time_that_it_needs_at_most() -> None:
    assert int(setting("TimeoutStopSec")) > LONGEST_STOP_S
    sentence = f"at most {LONGEST_STOP_S:g} s"
    assert sentence in UNIT.read_text(encoding="utf-8")
    assert sentence in " ".join(OPERATIONS.read_text(encoding="utf-8").split())


def test_settings_that_no_restart_mends_are_not_tried_again() -> None:
    assert int(setting("RestartPreventExitStatus")) == MISUSED
