"""What the doctor says of facts that no test can bring about: wrong clocks, old versions, slow lines."""

from __future__ import annotations

import pytest

from persistence.connect import understand
from persistence.inspection import Inspection, Role
from server.doctor.finding import Finding, Level
from server.doctor.postgres import judge_connection
from server.doctor.redis import RedisFacts, judge

INFO = {"redis_version": "7.4.1", "role": "master", "maxmemory_policy": "noeviction", "aof_enabled": 1}
FOUND = Inspection("17.6", 0.02, None, Role("x", False, False, False, True), [], [], [], [], [])
SAFE, OPEN = "postgresql://u:p@db.example/d", "postgresql://u:p@db.example/d?tls=off"


def redis(
    check: str, *, latency_s: float = 0.001, ahead_s: float = 0.0, least: int | None = 1, **info: object
) -> Finding:
    """What is found in that check."""
    facts = RedisFacts({**INFO, **info}, latency_s, ahead_s, least, saves=None)
    return next(each for each in judge(facts) if each.check == f"redis {check}")


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0.1, Level.OK), (-2, Level.CAREFUL), (2, Level.CAREFUL), (-9, Level.FAILED)]
)
def test_a_clock_that_goes_wrong_is_said_by_how_much(ahead_s: float, level: Level) -> None:
    found = redis("clock", ahead_s=ahead_s)
    assert found.level == level
    assert level == Level.OK or f"{abs(ahead_s):.1f} s" in found.what


@pytest.mark.parametrize(
    ("latency_s", "level"), [(0.001, Level.OK), (0.05, Level.CAREFUL), (0.4, Level.FAILED)]
)
def test_a_redis_that_is_far_away_is_slow(latency_s: float, level: Level) -> None:
    assert redis("latency", latency_s=latency_s).level == level


def test_a_redis_before_6_2_is_too_old() -> None:
    assert redis("version", redis_version="6.0.16").level == Level.FAILED
    assert redis("version", redis_version="6.2.0").level == Level.OK
    assert redis("version", redis_version="7.2.4", valkey_version="9.0.1").what == "Valkey 9.0.1"


def test_a_policy_that_spares_what_has_no_ttl_is_no_failure() -> None:
    assert redis("eviction", maxmemory_policy="volatile-lru").level == Level.CAREFUL


def test_what_a_hosted_redis_does_not_tell_is_no_failure() -> None:
    assert redis("replicas", least=None, connected_slaves=1).level == Level.OK
    assert redis("persistence", aof_enabled=0).level == Level.OK


@pytest.mark.parametrize(("url", "level"), [(SAFE, Level.OK), (OPEN, Level.CAREFUL)])
def test_an_open_line_to_another_machine_is_said(url: str, level: Level) -> None:
    found = {each.check: each for each in judge_connection(understand(url), FOUND)}
    assert found["postgres encryption"].level == level
    assert "p@" not in str(found)
