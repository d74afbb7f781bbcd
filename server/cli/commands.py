"""All commands of `presence`: what each takes; the work is done elsewhere.

Each loads what it needs when it runs: an operator who asks how full it is does not wait for the whole server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.help import settings_help
from server.domain.pool import Mode
from server.domain.session import Status

CAPACITY_FIELDS = ("pool", "mode", "limit", "active", "available", "offered", "waiting", "sessions_online")
POOL_FIELDS = ("limit", "mode")

app = typer.Typer(
    help="Live presence and a hard, fair limit on running interviews.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")]
Pool = Annotated[str, typer.Option(help="The pool it is about.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
SessionId = Annotated[str, typer.Argument(help="The session's id.")]


@app.command()
def dev(port: Port = None) -> None:
    """Run everything on this machine, with a Redis and a Postgres of its own. For development."""
    from server.cli.dev import develop

    develop(port)


@app.command(epilog=settings_help())
def serve(port: Port = None, fd: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Run the server. Needs REDIS_URL, PRESENCE_SECRET and PRESENCE_API_KEY."""
    from server.cli.serve import serve as serve_until_stopped

    serve_until_stopped(port, fd)


@app.command()
def migrate(
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the SQL instead, for an SQL editor.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do it, say what was found and done, and take it back.")
    ] = False,
) -> None:
    """Bring the database of DATABASE_URL up to date. Running it again changes nothing."""
    from server.cli.migrate import bring_up_to_date

    bring_up_to_date(print_only=print_only, dry_run=dry_run)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, Redis, Postgres and (PRESENCE_URL or PRESENCE_PUBLIC_URL) a running server. Changes nothing."""
    from server.cli.doctor import examine

    examine(as_json=as_json)


@app.command()
def capacity(pool: Pool = "main", as_json: AsJson = False) -> None:
    """Show how full a pool is."""
    from server.cli.remote import Remote, show

    reply = Remote.from_environment(pool).call("GET", "/v1/capacity")
    show(reply, as_json=as_json, names=CAPACITY_FIELDS)


@app.command()
def sessions(
    status: Annotated[Status | None, typer.Option(help="Only those of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list ended.")] = None,
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first."""
    from server.cli.remote import Remote, show_sessions

    query = {"limit": str(limit), "status": status, "cursor": cursor}
    given = {name: value for name, value in query.items() if value is not None}
    show_sessions(Remote.from_environment(pool).call("GET", "/v1/sessions", query=given), as_json=as_json)


@app.command()
def limit(
    places: Annotated[int, typer.Argument(min=0, help="How many interviews may run at once.")],
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """Set how many interviews may run at once. A lower limit throws nobody out."""
    from server.cli.remote import Remote, show

    reply = Remote.from_environment(pool).configure({"limit": places})
    show(reply, as_json=as_json, names=POOL_FIELDS)


@app.command()
def mode(
    new: Annotated[Mode, typer.Argument(metavar="open|paused|closed")],
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """Open a pool, pause it (the line grows, nobody enters), or close it (no line)."""
    from server.cli.remote import Remote, show

    reply = Remote.from_environment(pool).configure({"mode": new.value})
    show(reply, as_json=as_json, names=POOL_FIELDS)


@app.command()
def kick(session_id: SessionId, pool: Pool = "main", as_json: AsJson = False) -> None:
    """End a session now: its place is freed, its page is closed."""
    from server.cli.remote import Remote, session_path, show

    reply = Remote.from_environment(pool).call("DELETE", session_path(session_id))
    show(
        {"session_id": session_id, "ended": "kicked", **reply}, as_json=as_json, names=("session_id", "ended")
    )


@app.command()
def cleanup(
    hours: Annotated[float, typer.Option(min=0, help="Not seen for so long.")] = 3,
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """End sessions that nobody has seen for some hours, as abandoned."""
    from server.cli.remote import Remote, show

    reply = Remote.from_environment(pool).call("POST", "/v1/cleanup", body={"hours": hours})
    show(reply, as_json=as_json)


@app.command()
def token(session_id: SessionId, pool: Pool = "main", as_json: AsJson = False) -> None:
    """Print a new token for a session."""
    from server.cli.remote import Remote, session_path, show

    reply = Remote.from_environment(pool).call("POST", session_path(session_id, "/token"))
    if as_json:
        show(reply, as_json=True)
    else:
        typer.echo(reply["token"])


@app.command()
def plan(  # noqa: PLR0917 - each is an option by its name
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days back to look.")] = 28,
    limits: Annotated[str, typer.Option(help="The numbers of places to look at, like 1..20.")] = "1..20",
    target_wait: Annotated[
        str, typer.Option(help="The longest wait that will do, like 60s, 5m or 1h.")
    ] = "60s",
    percent: Annotated[
        float, typer.Option(min=1, max=100, help="Of so many percent of those who come.")
    ] = 95,
    arrivals_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Plan without any history: who comes, on average.")
    ] = None,
    mean_minutes: Annotated[
        float | None, typer.Option(min=0, help="Plan without any history: the mean length of an interview.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a picture, too.")] = None,
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """Tell how many places are needed: from the history, through PRESENCE_URL or else straight from DATABASE_URL."""
    from server.cli.plan import Asked, plan_places

    asked = Asked(pool, days, limits, target_wait, percent, arrivals_per_hour, mean_minutes)
    plan_places(asked, picture=svg, as_json=as_json)


@app.command()
def stats(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back to look.")] = 28,
    pool: Pool = "main",
    as_json: AsJson = False,
) -> None:
    """Tell who came, for how long, how long they waited, and when it was fullest."""
    from server.cli.stats import show_stats

    show_stats(pool, days, as_json=as_json)


@app.command()
def top(
    pool: Pool = "main",
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
) -> None:
    """Watch a pool live: who is in, who waits, what happens. q quits."""
    from server.cli.top.screen import watch

    watch(pool, once=once)


@app.command()
def forget(
    user_id: Annotated[str, typer.Argument(help="The person's id.")],
    as_json: AsJson = False,
) -> None:
    """Erase a person from all pools and from the history. Running sessions end."""
    from server.cli.forget import forget_user

    forget_user(user_id, as_json=as_json)
