"""Settings: defaults, cross-checks, every problem named at once and no secret shown."""

from __future__ import annotations

import pytest

from server.settings import DEV_API_KEY, DEV_SECRET, ProductionSettings, Settings, SettingsError

GOOD = {
    "REDIS_URL": "redis://127.0.0.1",
    "PRESENCE_SECRET": "s" * 32,
    "PRESENCE_API_KEY": "k" * 24,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def problems() -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        ProductionSettings.read()
    return refusal.value.problems


def test_what_is_needed_is_enough(environment: pytest.MonkeyPatch) -> None:
    settings = ProductionSettings.read()
    assert settings.max_concurrent == 3
    assert settings.database_url is None


def test_each_missing_value_is_named() -> None:
    assert [line.split(" is missing")[0] for line in problems()] == [
        "REDIS_URL",
        "PRESENCE_SECRET",
        "PRESENCE_API_KEY",
    ]


def test_an_empty_value_is_a_missing_one(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PRESENCE_SECRET", "")
    environment.setenv("PRESENCE_API_KEY", " , ")
    environment.setenv("DATABASE_URL", "")
    assert len(problems()) == 2


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PRESENCE_SECRET", "s" * 31, "at least 32 bytes"),
        ("PRESENCE_SECRET", "s" * 32 + "," + "t" * 31, "at least 32 bytes"),
        ("PRESENCE_SECRET", DEV_SECRET, "development"),
        ("PRESENCE_API_KEY", "k" * 23, "at least 24 characters"),
        ("PRESENCE_API_KEY", DEV_API_KEY, "development"),
    ],
)
def test_what_others_could_guess_is_refused_and_not_shown(
    variable: str, value: str, reason: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    (line,) = problems()
    assert line.startswith(variable)
    assert reason in line
    assert value not in line


def test_a_secret_is_measured_in_bytes(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PRESENCE_SECRET", "ü" * 16)
    assert ProductionSettings.read().secret[0].get_secret_value() == "ü" * 16


def test_all_problems_are_named_at_once_in_a_line_each(environment: pytest.MonkeyPatch) -> None:
    bad = {
        "REDIS_URL": "http://:hunter2@127.0.0.1",
        "DATABASE_URL": "mysql://u:hunter2@db/x",
        "PRESENCE_PORT": "hunter2",
        "PRESENCE_SCHEMA": "Hunter2;",
        "PRESENCE_LOG_LEVEL": "hunter2",
        "PRESENCE_ALLOWED_ORIGINS": "a.example",
        "PRESENCE_TRUSTED_PROXIES": "somewhere",
        "PRESENCE_PUBLIC_URL": "presence.example",
        "PRESENCE_DATABASE_CA": "/not/there.pem",
        "PRESENCE_MAX_CONCURRENT": "-1",
        "PRESENCE_RENEW_S": "10",
        "PRESENCE_HEARTBEAT_S": "40",
        "PRESENCE_PERMIT_GRACE_MIN_S": "90",
    }
    for name, value in bad.items():
        environment.setenv(name, value)
    found = problems()
    assert len(found) == len(bad)
    assert all(line.startswith(("PRESENCE_", "REDIS_URL", "DATABASE_URL")) for line in found)
    assert not [line for line in found if "hunter2" in line.lower() or "\n" in line]


@pytest.mark.parametrize(
    ("variable", "value", "mend"),
    [
        (
            "PRESENCE_ALIVE_TTL_S",
            "12",
            "PRESENCE_ALIVE_TTL_S must be at least 2.5 times PRESENCE_RENEW_S: 12.5",
        ),
        (
            "PRESENCE_HEARTBEAT_S",
            "30",
            "PRESENCE_ONLINE_WINDOW_S must be at least 2.5 times PRESENCE_HEARTBEAT_S: 75",
        ),
        (
            "PRESENCE_PERMIT_GRACE_MIN_S",
            "61",
            "PRESENCE_PERMIT_GRACE_MAX_S must be at least PRESENCE_PERMIT_GRACE_MIN_S: 61",
        ),
    ],
)
def test_an_impossible_combination_names_the_value_that_would_do(
    variable: str, value: str, mend: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    (line,) = problems()
    assert line == f"{mend} would do"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://u:hunter2/x@127.0.0.1/db"),
        ("DATABASE_URL", "postgresql://u:hunter2#x@127.0.0.1:5432/db"),
        ("DATABASE_URL", "postgresql://u:hunter2?x@127.0.0.1:5432/db"),
        ("REDIS_URL", "redis://:hunter2?x@127.0.0.1"),
        ("REDIS_URL", "redis://:[hunter2]@127.0.0.1"),
        ("REDIS_URL", "redis+sentinel://a:1,b:hunter2/main"),
    ],
)
def test_a_url_that_can_not_be_read_is_named_and_not_shown(
    variable: str, value: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    (line,) = problems()
    assert line.startswith(f"{variable} has no good host and port")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1:6379/abc", "must end with the number of a database"),
        ("rediss://127.0.0.1/0/1", "must end with the number of a database"),
        ("unix://", "must name a socket"),
        ("redis+sentinel://127.0.0.1:26379", "must name the master"),
        ("redis+sentinel://127.0.0.1:26379/main/abc", "must name the master"),
        ("redis+cluster://127.0.0.1:7000/1", "a cluster has no numbered databases"),
    ],
)
def test_a_redis_url_that_says_more_or_less_than_it_may_is_named(
    url: str, says: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REDIS_URL", url)
    (line,) = problems()
    assert line.startswith("REDIS_URL must")
    assert says in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "redis://redis.example:6379/3"),
        ("REDIS_URL", "redis+cluster://[::1]:7000,two/"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("REDIS_URL", "rediss://user:p%2Fw@[::1]:6380/1"),
        ("REDIS_URL", "redis+sentinel://:pw@a:26379,b/main"),
        ("DATABASE_URL", "postgresql://postgres.ref:p%23w@aws-0-eu.pooler.supabase.com:6543/postgres"),
        ("DATABASE_URL", "postgresql:///db?host=/run/postgresql"),
        ("PRESENCE_PUBLIC_URL", "https://presence.example/base/"),
        ("PRESENCE_PUBLIC_URL", "http://[::1]:8000"),
    ],
)
def test_every_way_to_write_an_address_is_taken(
    variable: str, value: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    ProductionSettings.read()


@pytest.mark.parametrize("key", ["schlüssel" * 4, "with a space in the midst of it"])
def test_a_key_that_no_header_can_carry_is_refused(key: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PRESENCE_API_KEY", key)
    environment.setenv("PRESENCE_METRICS_KEY", key)
    assert [line.split(" must be of printable ASCII")[0] for line in problems()] == [
        "PRESENCE_API_KEY",
        "PRESENCE_METRICS_KEY",
    ]


def test_lists_are_comma_separated(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PRESENCE_ALLOWED_ORIGINS", "https://a.example, https://*.streamlit.app,")
    assert Settings.read().allowed_origins == ("https://a.example", "https://*.streamlit.app")


def test_development_takes_defaults_for_what_production_needs() -> None:
    assert Settings.read().redis_url == "redis://127.0.0.1:6379/0"
