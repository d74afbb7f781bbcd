"""Wheels of this repository, and empty environments that have them and what they require: made without a network."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BUILD_S, INSTALL_S = 60, 100
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the distribution in the folder `project`."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(project),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_S)
    return next(folder.glob("*.whl"))


def environment(folder: Path, *wheels: Path, beside: Iterable[str] = ()) -> Path:
    """Make an environment with these wheels, what they require, and `beside` them; the folder of its commands.

    What they require is taken from our own environment, and only that: something undeclared is missing.
    """
    venv.create(folder, symlinks=True)
    command = [
        *PIP,
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run(
        [*command, *map(str, wheels)], check=True, capture_output=True, timeout=INSTALL_S, cwd=folder
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in _required_by(_names(packages), beside):
        _link(name, packages)
    return folder / "bin"


def check(commands: Path) -> str:
    """What is missing there of what the installed distributions require."""
    command = [*PIP, "--python", str(commands / "python"), "check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_S)
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def _names(packages: Path) -> set[str]:
    return {canonicalize_name(each.name) for each in metadata.distributions(path=[str(packages)])}


def _required_by(ours: set[str], beside: Iterable[str]) -> set[str]:
    wanted, found = [*ours, *beside], set(beside)
    while wanted:
        new = _requirements(wanted.pop()) - found - ours
        found |= new
        wanted += new
    return found


def _requirements(name: str) -> set[str]:
    """What a distribution requires on this machine, without its extras."""
    lines = (Requirement(line) for line in metadata.requires(name) or ())
    return {
        canonicalize_name(each.name)
        for each in lines
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def _link(name: str, packages: Path) -> None:
    distribution = metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
    for top in tops:
        if not (packages / top).exists():
            (packages / top).symlink_to(str(distribution.locate_file(top)))
