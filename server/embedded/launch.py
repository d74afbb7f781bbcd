"""Becomes the program it is told to start, such that it dies with the process that asked for it.

Run as a script by `server.embedded.child`, never imported by it: between fork and exec of a threaded program
next to nothing is safe, so the child's own preparations happen in this fresh interpreter. Needs the standard
library only.

Usage: launch.py PARENT_PID FAREWELL_SIGNAL UID REACH COMMAND…
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION = 0x20080522
PARENT_POLL_S = 0.5


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _keep_only_reach() -> None:
    """Of root's capabilities keep the one that passes through folders closed to others, over exec too."""
    libc = ctypes.CDLL(None, use_errno=True)
    bit = 1 << CAP_DAC_OVERRIDE
    header = _CapabilityHeader(CAPABILITY_VERSION, 0)
    sets = (_Capabilities * 2)(_Capabilities(bit, bit, bit), _Capabilities(0, 0, 0))
    if libc.capset(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def become(uid: int, *, reach: bool) -> None:
    """Give up root for `uid` (and the group of the same number)."""
    if reach:
        # Capabilities stay through the change of user, and count in access(2) too, by which Postgres looks for itself.
        _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    if reach:
        _keep_only_reach()


def _exec(parent: int, farewell: int, command: list[str]) -> None:
    # After the change of user, which clears the death signal; before the look at the parent: it may be gone.
    _prctl(PR_SET_PDEATHSIG, farewell)
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - the command is our own


def _watch(parent: int, farewell: int, command: list[str]) -> int:
    child = subprocess.Popen(command, close_fds=False)  # noqa: S603 - the command is our own; it keeps our locks
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.send_signal(farewell)
            return child.wait()
        time.sleep(PARENT_POLL_S)
    return child.returncode


def main(arguments: list[str]) -> int:
    """Start the command; on Linux this process becomes it."""
    parent, farewell, uid = (int(argument) for argument in arguments[:3])
    reach, command = arguments[3] == "reach", arguments[4:]
    if uid != os.getuid():
        try:
            become(uid, reach=reach)
        except OSError as error:
            sys.stderr.write(
                f"cannot run {command[0]} as an ordinary user ({error}): run this as an ordinary user, "
                "or from a folder that everybody may enter\n"
            )
            return 1
    if os.uname().sysname == "Linux":
        _exec(parent, farewell, command)
        return 0
    return _watch(parent, farewell, command)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
