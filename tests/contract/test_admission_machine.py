"""All operations in any order: Redis does what the model says, and the ten invariants of DESIGN 5 hold throughout."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from server.live.scripts import load
from tests.model.live import CLOCK
from tests.model.machine import AdmissionMachine

EVERY_RUN = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=70,
    stateful_step_count=40,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
LONG = settings(
    EVERY_RUN,
    derandomize=False,
    max_examples=2500,
    stateful_step_count=60,
    phases=[Phase.generate, Phase.shrink],
    print_blob=True,
)


@pytest.fixture
def machine(redis_url: str) -> Iterator[type[AdmissionMachine]]:
    with Redis.from_url(redis_url) as client:
        yield type("Machine", (AdmissionMachine,), {"redis": client, "scripts": load(CLOCK)})


def test_redis_does_what_the_model_says(machine: type[AdmissionMachine]) -> None:
    run_state_machine_as_test(machine, settings=EVERY_RUN)


@pytest.mark.soak
def test_redis_does_what_the_model_says_for_long(machine: type[AdmissionMachine]) -> None:
    run_state_machine_as_test(machine, settings=LONG)
