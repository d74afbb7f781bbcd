"""Configuration from the environment (CONTRACT 2): typed, cross-checked, every bad value named at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from persistence.address import understand
from server.domain.addresses import TrustedProxies
from server.domain.origins import Origins
from server.domain.pool import PoolConfig

MIN_SECRET_BYTES = 32
MIN_API_KEY_CHARS = 24
DEV_SECRET = "development-secret-not-for-production-use"  # noqa: S105 - refused by `presence serve`
DEV_API_KEY = "development-api-key-not-for-production"

HEADER_SAFE = re.compile(r"[!-~]+")
NO_HOSTS = "has no good host and port; in a password write / ? # @ : and the like as %XX"
NOT_HEADER_SAFE = "must be of printable ASCII characters without spaces: it travels in a header"
# What may follow the host in REDIS_URL, and what to say when something else does.
_REDIS_PATHS = {
    "redis": (r"/?\d*", "must end with the number of a database, as in redis://host:6379/0"),
    "rediss": (r"/?\d*", "must end with the number of a database, as in rediss://host:6379/0"),
    "unix": (r"/.+", "must name a socket, as in unix:///run/redis.sock?db=0"),
    "redis+sentinel": (r"/[^/]+(/\d*)?", "must name the master, as in redis+sentinel://host:26379/mymaster"),
    "redis+cluster": (r"/?0?", "must end with the hosts: a cluster has no numbered databases"),
}
# Host and port of a URL, several with commas. What stands before them may be a password and is never shown.
_HOSTS = re.compile(r"(?:(?:\[[^\]]+\]|[^:\[\],]*)(?::\d{1,5})?(?:,|$))*")

# A window must hold so many of its intervals, or one late sign of life would look like a leave.
WINDOWS = (
    ("alive_ttl_s", "renew_s", 2.5),
    ("online_window_s", "heartbeat_s", 2.5),
    ("permit_grace_max_s", "permit_grace_min_s", 1),
)

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
Interval = Annotated[float, Field(gt=0, le=86_400)]
Duration = Annotated[float, Field(ge=0, le=31_536_000)]


class SettingsError(Exception):
    """Bad configuration: `problems` has one sentence a problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """All settings, with their defaults. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="PRESENCE_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="Postgres or Supabase; without it there is no history",
    )
    secret: Secrets = Field(
        (), description="Signs session tokens; several, comma-separated: first signs, all verify"
    )
    api_key: Secrets = Field(
        (), description="Opens the API to servers and operators; several, comma-separated"
    )
    host: str | None = Field(None, description="Address to bind; 127.0.0.1, or 0.0.0.0 when $PORT is set")
    port: int | None = Field(None, ge=0, le=65_535, description="Port to bind; else $PORT, else 8000")
    public_url: str | None = Field(
        None, description="How browsers reach this server, e.g. https://presence.example"
    )
    allowed_origins: CommaSeparated = Field(
        (),
        description="Origins that may connect, e.g. https://*.streamlit.app; same host always may; * for all",
    )
    trusted_proxies: CommaSeparated = Field((), description="Addresses whose X-Forwarded-For is believed")
    max_concurrent: int = Field(3, ge=0, le=100_000, description="Limit of a new pool")
    heartbeat_s: Interval = Field(20, description="Between two heartbeats of a page")
    online_window_s: Interval = Field(60, description="How long a heartbeat over HTTP counts")
    alive_ttl_s: Interval = Field(15, description="How long a WebSocket's presence outlives its node")
    renew_s: Interval = Field(5, description="Between two renewals of a WebSocket's presence")
    ping_s: Interval = Field(10, description="Between two WebSocket pings")
    ping_timeout_s: Interval = Field(10, description="How long a pong may take")
    grace_s: Duration = Field(10, description="From a lost connection until offline")
    permit_grace_min_s: Duration = Field(
        20, description="How long an absent holder keeps the permit when others wait"
    )
    permit_grace_max_s: Duration = Field(60, description="How long an absent holder keeps the permit at most")
    resume_s: Duration = Field(900, description="How long a session may be away and come back; 0 = never")
    offer_s: Duration = Field(90, description="How long an offer stands; 0 = grant outright")
    max_interview_s: Duration = Field(0, description="Longest interview; 0 = no limit")
    max_line: int = Field(1000, ge=0, le=1_000_000, description="Longest line; 0 = refuse at capacity")
    permits_per_user: int = Field(
        1, ge=0, le=1_000_000, description="Permits or places per user; 0 = any number"
    )
    abandon_after_s: Duration = Field(10_800, description="Offline for so long = abandoned")
    recovery_s: Duration = Field(5, description="Recovery window after Redis lost its memory")
    flush_s: Interval = Field(10, description="Between two flushes to Postgres")
    token_ttl_s: Interval = Field(43_200, description="How long a session token is good")
    max_connections: int = Field(20_000, ge=1, description="WebSockets per node")
    connections_per_ip: int = Field(200, ge=1, description="WebSockets per client address")
    messages_per_s: int = Field(10, ge=1, description="Messages per second and connection")
    metrics_key: SecretStr | None = Field(None, description="Key for /metrics; unset = open")
    schema_: str = Field(
        "public",
        validation_alias=AliasChoices("PRESENCE_SCHEMA", "schema_"),
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Postgres schema of the tables",
    )
    database_ca: str | None = Field(None, description="File with the CA certificate of the database")
    retention_days: int = Field(0, ge=0, description="Delete ended sessions after so many days; 0 = keep")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged"
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look")

    @field_validator("secret", "api_key", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in _REDIS_PATHS:
            raise ValueError(f"must start with one of {', '.join(s + '://' for s in _REDIS_PATHS)}")
        _check_hosts(parts)
        path, otherwise = _REDIS_PATHS[parts.scheme]
        if not re.fullmatch(path, parts.path):
            raise ValueError(otherwise)
        return url

    @field_validator("database_url")
    @classmethod
    def _database_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            # Raises a ValueError that says what is wrong, and shows no password.
            understand(url.get_secret_value())
        return url

    @field_validator("public_url")
    @classmethod
    def _public_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
            raise ValueError("must be like https://presence.example")
        return url

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        Origins(patterns)
        return patterns

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        TrustedProxies(entries)
        return entries

    @field_validator("database_ca")
    @classmethod
    def _certificate(cls, file: str | None) -> str | None:
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{file!r} is not a file")
        return file

    @field_validator("api_key", "metrics_key")
    @classmethod
    def _fit_for_a_header(cls, keys: Any) -> Any:  # noqa: ANN401 - one or several
        for key in keys if isinstance(keys, tuple) else (keys,):
            if key is not None and not HEADER_SAFE.fullmatch(key.get_secret_value()):
                raise ValueError(NOT_HEADER_SAFE)
        return keys

    @field_validator("renew_s", "online_window_s", "permit_grace_max_s")
    @classmethod
    def _windows_fit_their_intervals(cls, value: float, info: ValidationInfo) -> float:
        # A field's validator sees the fields before it, so that these problems are named along with all others.
        before = {**info.data, str(info.field_name): value}
        for window, interval, factor in WINDOWS:
            if info.field_name not in (window, interval) or not {window, interval} <= before.keys():
                continue
            if before[window] < factor * before[interval]:
                times = "" if factor == 1 else f"{factor:g} times "
                raise ValueError(
                    f"PRESENCE_{window.upper()} must be at least {times}PRESENCE_{interval.upper()}: "
                    f"{factor * before[interval]:g} would do"
                )
        return value

    @classmethod
    def read(cls, **overrides: Any) -> Self:  # noqa: ANN401 - each field has its own type
        """Read the environment; `overrides` count more. SettingsError names every bad value, and shows none."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            raise SettingsError([_sentence(cls, detail) for detail in details]) from None

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Each environment variable that is read, with the field that it fills."""
        return {_variable(name, field): field for name, field in cls.model_fields.items()}

    def pool_defaults(self) -> PoolConfig:
        """What a new pool is created with."""
        return PoolConfig(
            limit=self.max_concurrent,
            offer_s=self.offer_s,
            max_interview_s=self.max_interview_s,
            max_line=self.max_line,
            permits_per_user=self.permits_per_user,
            online_window_s=self.online_window_s,
            grace_s=self.grace_s,
            permit_grace_min_s=self.permit_grace_min_s,
            permit_grace_max_s=self.permit_grace_max_s,
            resume_s=self.resume_s,
            abandon_after_s=self.abandon_after_s,
            recovery_s=self.recovery_s,
        )


class ProductionSettings(Settings):
    """Settings that `presence serve` accepts: the needed ones are there, and nobody can guess the keys."""

    redis_url: str = Field(
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description=Settings.model_fields["redis_url"].description,
    )
    secret: Secrets = Field(min_length=1, description=Settings.model_fields["secret"].description)
    api_key: Secrets = Field(min_length=1, description=Settings.model_fields["api_key"].description)

    @field_validator("secret")
    @classmethod
    def _strong_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            if secret.get_secret_value() == DEV_SECRET:
                raise ValueError("must not be the development secret")
            if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
                raise ValueError(f"is weak: it must have at least {MIN_SECRET_BYTES} bytes")
        return secrets

    @field_validator("api_key")
    @classmethod
    def _strong_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            if key.get_secret_value() == DEV_API_KEY:
                raise ValueError("must not be the development key")
            if len(key.get_secret_value()) < MIN_API_KEY_CHARS:
                raise ValueError(f"is weak: it must have at least {MIN_API_KEY_CHARS} characters")
        return keys


def _check_hosts(parts: SplitResult) -> None:
    if not _HOSTS.fullmatch(parts.netloc.rpartition("@")[2]):
        raise ValueError(NO_HOSTS)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        # Its words may show the password.
        raise ValueError(NO_HOSTS) from None


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"PRESENCE_{name.upper()}"


def _sentence(model: type[Settings], detail: ErrorDetails) -> str:
    """One problem in one line, naming the variable."""
    message = detail["msg"].removeprefix("Value error, ")
    if message.startswith("PRESENCE_"):
        return message
    where, variables = str(detail["loc"][0]), model.variables()
    variable = where if where in variables else _variable(where, model.model_fields[where])
    if detail["type"] in ("missing", "too_short"):
        return f"{variable} is missing: {variables[variable].description}"
    return f"{variable} {message.replace('Input should', 'must').replace('String should', 'must')}"
