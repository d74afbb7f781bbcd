"""A database URL, understood: who and where, through which pooler, how well encrypted; else in words what is wrong."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, unquote

SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432
HIGHEST_PORT = 65_535
TRANSACTION_POOLER_PORT = 6543
POOLER_HOST_SUFFIX = ".pooler.supabase.com"
DIRECT_HOST_SUFFIX = ".supabase.co"
PLACEHOLDER = "[YOUR-PASSWORD]"
# Where a Postgres of this machine may be. Named here, so that no PGHOST of the environment takes their place.
THIS_MACHINE = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108 - Postgres puts sockets there

_PARTS = re.compile(
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(?P<fragment>#.*)?", re.DOTALL
)
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d{1,5}))?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Parameters that this module has read, and those for other clients: asyncpg would send them to the server,
# which refuses what it does not know.
_READ = frozenset({"host", "port", "user", "password", "dbname", "database", "sslmode", "tls"})
_READ_FOR_TLS = frozenset({"sslrootcert", "sslcert", "sslkey"})
_OTHER_CLIENTS = frozenset(
    {
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
        "socket_timeout",
        "connect_timeout",
        "statement_cache_size",
        "prepared_statement_cache_size",
        "channel_binding",
        "gssencmode",
        "sslaccept",
        "uselibpqcompat",
        "workaround",
        "supa",
    }
)
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_MAY_BE_PLAIN = ("disable", "allow", "prefer")


class DatabaseUrlError(ValueError):
    """A database URL that can't be used. The text goes on after "DATABASE_URL", and never shows the password."""


class Mode(StrEnum):
    """What stands between us and the database, as far as its URL tells."""

    DIRECT = "direct"
    SESSION_POOLER = "session pooler"
    TRANSACTION_POOLER = "transaction pooler"


class Tls(StrEnum):
    """How well a connection is protected."""

    OFF = "not encrypted"
    UNVERIFIED = "encrypted, but not verified"
    VERIFIED_CA = "encrypted, and the certificate verified but for its name"
    VERIFIED = "encrypted and verified"


@dataclass(slots=True, frozen=True)
class Target:
    """A database URL, understood. `parameters`: those that are neither ours nor other clients'."""

    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    database: str
    mode: Mode
    tls: Tls
    certificates: dict[str, str]
    parameters: dict[str, str]

    @property
    def host(self) -> str:
        """The first host, or folder of a socket."""
        return self.hosts[0][0]

    @property
    def local(self) -> bool:
        """Whether the connection stays on this machine (a loopback address or a Unix socket)."""
        return all(_is_local(host) for host, _ in self.hosts)

    def __str__(self) -> str:
        """For the log and for people: all but user and password."""
        host, port = self.hosts[0]
        where = f"[{host}]" if ":" in host else host
        return f"{self.mode} at {where}:{port}, {self.tls}"

    def __repr__(self) -> str:
        """As `str`: a traceback or a log line must not show the password."""
        return f"Target({self})"


def understand(database_url: str) -> Target:
    """What the URL says. Raises DatabaseUrlError, in words, for one that can't or mustn't be used."""
    parts = _parts(database_url.strip())
    named = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    userinfo, _, netloc = parts["authority"].rpartition("@")
    user, _, password = userinfo.partition(":")
    hosts = _hosts(unquote(netloc), named)
    target = Target(
        hosts=hosts,
        user=unquote(user) or named.get("user"),
        password=unquote(password) or named.get("password"),
        database=unquote(parts["path"][1:]) or named.get("dbname") or named.get("database") or "",
        mode=_mode(hosts, named),
        tls=_tls(hosts, named),
        certificates={name: named[name] for name in sorted(_READ_FOR_TLS & named.keys())},
        parameters={
            name: value for name, value in named.items() if name not in _READ | _READ_FOR_TLS | _OTHER_CLIENTS
        },
    )
    _check(target)
    return target


def _parts(url: str) -> dict[str, str]:
    """The URL in parts. A password may hold : and @ as they are; nothing else that URLs use."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise DatabaseUrlError("must start with postgresql:// or postgres://")
    if PLACEHOLDER in rest.upper():
        raise DatabaseUrlError(f"still says {PLACEHOLDER}: put the password there, without the brackets")
    found = _PARTS.fullmatch(rest)
    assert found is not None  # noqa: S101 - the pattern takes any text
    parts = found.groupdict()
    if parts["fragment"] or ("@" in parts["path"] and "@" not in parts["authority"]):
        raise DatabaseUrlError(
            "has no good host and port: there is / ? or # in its password, it seems; write them as %2F, %3F and %23"
        )
    if _BAD_PERCENT.search(rest):
        raise DatabaseUrlError("has a % that no two hexadecimal digits follow: write it as %25")
    return parts


def _hosts(netloc: str, named: dict[str, str]) -> tuple[tuple[str, int], ...]:
    if netloc.startswith("/"):
        return ((netloc, _port(named.get("port"))),)
    if netloc.strip(","):
        return tuple(_host_and_port(each) for each in netloc.split(","))
    port = _port(named.get("port"))
    given = [each for each in named.get("host", "").split(",") if each]
    return tuple((host.strip("[]"), port) for host in given or THIS_MACHINE)


def _host_and_port(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None and any(map(_is_address, (text, text.rpartition(":")[0]))):
        raise DatabaseUrlError("has an IPv6 address that belongs in brackets, as in [2001:db8::1]:5432")
    if found is None or not (found["name"] or _is_address(found["v6"] or "")):
        raise DatabaseUrlError("has no good host and port; in a password write / ? # [ ] and the like as %XX")
    return found["name"] or found["v6"], _port(found["port"])


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) <= HIGHEST_PORT:
        raise DatabaseUrlError(f"has no good port: it must be a number from 1 to {HIGHEST_PORT}")
    return int(text)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    if host == "localhost" or host.startswith("/"):
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _mode(hosts: tuple[tuple[str, int], ...], named: dict[str, str]) -> Mode:
    at_its_port = any(port == TRANSACTION_POOLER_PORT for _, port in hosts)
    if at_its_port or named.get("pgbouncer", "").lower() == "true":
        return Mode.TRANSACTION_POOLER
    if any(_is_supabase_pooler(host) for host, _ in hosts):
        return Mode.SESSION_POOLER
    return Mode.DIRECT


def _is_supabase_pooler(host: str) -> bool:
    return host.lower().endswith(POOLER_HOST_SUFFIX)


def _tls(hosts: tuple[tuple[str, int], ...], named: dict[str, str]) -> Tls:
    """Another machine is verified, whatever `sslmode` leaves open, unless `tls=` says otherwise in so many words."""
    sslmode, explicit = named.get("sslmode"), named.get("tls")
    if sslmode is not None and sslmode not in _SSLMODES:
        raise DatabaseUrlError(f"has an unknown sslmode: there are {', '.join(_SSLMODES)}")
    if explicit is not None:
        return _explicit_tls(explicit)
    remote = next((host for host, _ in hosts if not _is_local(host)), None)
    if remote is None:
        return _tls_within_this_machine(sslmode)
    if sslmode in _MAY_BE_PLAIN:
        raise DatabaseUrlError(
            f"says sslmode={sslmode}, which lets the history travel to {remote} unencrypted: remove that, or "
            "write tls=off in its place if you trust all that lies between"
        )
    return Tls.VERIFIED


def _explicit_tls(text: str) -> Tls:
    given = {"off": Tls.OFF, "unverified": Tls.UNVERIFIED}.get(text)
    if given is None:
        raise DatabaseUrlError(
            "has an unknown tls: there are tls=off and tls=unverified; without, it is verified"
        )
    return given


def _tls_within_this_machine(sslmode: str | None) -> Tls:
    stricter = {"require": Tls.UNVERIFIED, "verify-ca": Tls.VERIFIED_CA, "verify-full": Tls.VERIFIED}
    return stricter.get(sslmode or "", Tls.OFF)


def _check(target: Target) -> None:
    if not target.database:
        raise DatabaseUrlError(
            "names no database: end its address with a slash and the name, as in :5432/postgres"
        )
    names_project = "." in (target.user or "") or "options" in target.parameters
    if _is_supabase_pooler(target.host) and not names_project:
        raise DatabaseUrlError(
            "needs the project's reference behind the user's name for Supabase's pooler, as in postgres.abcdefgh"
        )
