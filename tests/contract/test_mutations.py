"""The machine bites: faults planted in the Lua are all found, each by a few examples."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from server.live.scripts import PRELUDE, VERBS, Script, load, source
from tests.model.live import CLOCK
from tests.model.machine import AdmissionMachine

# A fault that the examples of one seed miss is caught by the next: which, changes whenever any source does, since
# Hypothesis draws from the constants in it. Without a fault a few say enough; the machine's own test makes more.
SEEDS = range(1, 15)
ENOUGH = SEEDS[:2]
HUNT = settings(
    database=None,
    deadline=None,
    max_examples=12,
    stateful_step_count=40,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Fault:
    """A replacement in one Lua file."""

    name: str
    file: str
    right: str
    wrong: str

    def __str__(self) -> str:
        return self.name


PUMP, PERMITS, POOL, PRESENCE = "prelude/pump", "prelude/permits", "prelude/pool", "prelude/presence"
FIND_PLACE = "if redis.call('ZCARD', INTERVIEWS) < config.limit then"

ZADD_LINE = "redis.call('ZADD', LINE, record.ticket, session_id)"
STEP = "math.min(passed, config.max_step_ms)"

FAULTS = (
    Fault(
        "a stale connection's close counts",
        "drop",
        "if not record or record.connection_id ~= item.connection_id then",
        "if not record then",
    ),
    Fault("newest first", PUMP, "redis.call('ZRANGE', READY, 0, 0)", "redis.call('ZREVRANGE', READY, 0, 0)"),
    Fault("over-grant after lowering the limit", PUMP, FIND_PLACE, FIND_PLACE.replace("<", "~=")),
    Fault(
        "an open offer is not counted",
        PUMP,
        FIND_PLACE,
        FIND_PLACE.replace(" <", " - redis.call('ZCARD', OFFERS) <"),
    ),
    Fault("an old fence releases", "release", "is_stale(record, item.fence)", "false"),
    Fault(
        "the fence does not rise at a take-over",
        PERMITS,
        "set(to, 'fence', next_number('fence'))",
        "set(to, 'fence', from.fence)",
    ),
    Fault("a freed place is not handed over", "release", "  pump()\n", ""),
    Fault(
        "double release",
        PERMITS,
        "if state == 'granted' then\n    remember",
        "if record.fence then\n    remember",
    ),
    Fault("a clock that catches up", POOL, STEP, "passed"),
    Fault("a clock that goes back", POOL, f"math.max(0, {STEP})", STEP),
    Fault(
        "counters that restart", POOL, "math.max((config[name] or 0) + 1, wall)", "(config[name] or 0) + 1"
    ),
    Fault(
        "sitting out is ignored",
        PRESENCE,
        "if record.lost_at or record.sits_out then",
        "if record.lost_at then",
    ),
    Fault(
        "a missed offer costs the place",
        PERMITS,
        ZADD_LINE,
        f"set(record, 'ticket', next_number('ticket')) {ZADD_LINE}",
    ),
    Fault("an absent waiter is let in", PUMP, "if record and at and at > now then", "if record then"),
    Fault("let in during recovery", PUMP, "if is_recovering() then\n    return", "if false then\n    return"),
    Fault(
        "a late claimant is let in past the line",
        "connect",
        "if item.known and is_recovering() then",
        "if item.known then",
    ),
    Fault("any fence wins in recovery", "connect", "known_fence > fence", "true"),
    Fault("a delayed hello replaces a newer one", "connect", "< tonumber(record.attempt or 0)", "< 0"),
    Fault("a holder in grace is reclaimed too soon", PUMP, "now - ms(config.permit_grace_min_s)", "now"),
    Fault("a returning holder is not put in front", PERMITS, "tonumber(record.front_until) >= now", "false"),
    Fault("an old copy puts back into the line", "connect", "if is_in_line and not known.ticket", "if false"),
    Fault(
        "a node that has not heard of a claim in the window undoes it",
        "connect",
        "record.joined_in ~= config.epoch",
        "true",
    ),
    Fault("a place taken over in the window counts as an old one", PERMITS, "  note_window(to)\n", ""),
    Fault(
        "two tickets of a user are two permits", PUMP, " and not yields_to_another(session(session_id))", ""
    ),
    Fault(
        "who gives up has not waited",
        PERMITS,
        "    note_vain_wait(record)\n    end_standing",
        "    end_standing",
    ),
    Fault("an event is not counted", POOL, "  tally_event(kind, cause)\n", ""),
)


def planted(fault: Fault) -> dict[str, Script]:
    """All scripts, with the fault."""
    assert source(fault.file).count(fault.right) == 1, f"{fault.name}: nothing to replace in {fault.file}"
    wrong = source(fault.file).replace(fault.right, fault.wrong)
    shared = CLOCK + "".join(wrong if part == fault.file else source(part) for part in PRELUDE)
    return {verb: Script(shared + (wrong if verb == fault.file else source(verb))) for verb in VERBS}


def hunt(redis_url: str, scripts: dict[str, Script], seeds: range = SEEDS) -> None:
    with Redis.from_url(redis_url) as client:
        machine = type("Machine", (AdmissionMachine,), {"redis": client, "scripts": scripts})
        for number in seeds:
            run_state_machine_as_test(seed(number)(machine), settings=HUNT)


# Each takes some seconds of one core: the suite tries every fourth, the long run all.
@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[] if at % 4 == 0 else [pytest.mark.soak]) for at, fault in enumerate(FAULTS)],
    ids=str,
)
def test_a_planted_fault_is_found(redis_url: str, fault: Fault) -> None:
    scripts = planted(fault)
    with pytest.raises(AssertionError):
        hunt(redis_url, scripts)


def test_a_fault_that_would_replace_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="nothing to replace"):
        planted(Fault("gone", "tick", "each_due(NOBODY", ""))


def test_without_a_fault_the_same_hunts_find_nothing(redis_url: str) -> None:
    nothing = Fault("nothing", "tick", "each_due(ONLINE, now, reap)", "each_due(ONLINE, now, reap)")
    assert planted(nothing) == load(CLOCK)
    hunt(redis_url, planted(nothing), ENOUGH)
