"""Five hundred people at four server processes for minutes: the same crowd as in the suite, only larger."""

from __future__ import annotations

import pytest

from tests.e2e.test_admission_from_outside import Scale, StartStage, perform
from tests.e2e.test_admission_from_outside import start_stage as start_stage  # noqa: PLC0414 - the fixture

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

LONG = Scale(
    people=500,
    limits=(15, 45),
    lasts_s=300,
    arrive_s=20,
    interview_s=(1.0, 6.0),
    operator_s=(1.0, 5.0),
    seed=32,
)


async def test_for_minutes_five_hundred_come_and_go_and_no_rule_is_ever_broken(
    start_stage: StartStage, redis_url: str
) -> None:
    await perform(await start_stage(LONG), redis_url)
