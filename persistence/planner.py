"""Makes a plan in a process of its own, seconds of work that would keep a server from everything else.

`python -m persistence.planner` is that process: it reads a `Task` and writes the `Plan`, as MessagePack. It has a
lower priority, ends with its plan, and is killed if nobody waits for that any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import anyio
import msgspec

from persistence.errors import PersistenceError
from persistence.plan.planning import Plan, Question, Target, plan_from_history
from persistence.plan.recorded import Recorded

COMMAND = (sys.executable, "-m", "persistence.planner")
# Less than what serves people, but not starved by it.
NICE = 5


class PlannerError(PersistenceError):
    """The process came to grief; the text has what it said last."""


class Task(msgspec.Struct, frozen=True):
    """What is to be planned: a history, and the question."""

    recorded: Recorded
    limits: Sequence[int]
    target: Target
    pool: str | None


async def plan_in_a_process(recorded: Recorded, question: Question) -> Plan:
    """The plan for days like the recorded ones. A cancellation ends the process. Raises PlannerError."""
    task = Task(recorded, list(question.limits), question.target, question.pool)
    done = await anyio.run_process(COMMAND, input=msgspec.msgpack.encode(task), check=False)
    if done.returncode:
        raise PlannerError(_last_words(done))
    return msgspec.msgpack.decode(done.stdout, type=Plan)


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    *_, last = [f"exit code {done.returncode}", *done.stderr.decode(errors="replace").splitlines()]
    return f"The planner failed: {last}"


def main() -> None:
    """Work for the process that started this one."""
    os.nice(NICE)
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    plan = plan_from_history(task.recorded.demand(), Question(task.limits, task.target, task.pool))
    sys.stdout.buffer.write(msgspec.msgpack.encode(plan))


if __name__ == "__main__":
    main()
