"""The watcher's own side in the browser, under Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from presence_tracker.streamlit_ui import assets

from tests.prerequisites import demand

HERE = Path(__file__).parent
PATIENCE_S = 60

pytestmark = pytest.mark.node


def test_the_watcher_reruns_the_app_when_it_must_and_never_else(tmp_path: Path) -> None:
    node = demand("node")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "component.js").write_text(assets.script("watcher"), encoding="utf-8")
    for name in ("browser_world.js", "watcher.test.js"):
        shutil.copy(HERE / name, tmp_path)
    command = [node, "--test", "watcher.test.js"]
    done = subprocess.run(
        command, cwd=tmp_path, timeout=PATIENCE_S, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
