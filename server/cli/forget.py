"""`presence forget`: erase a person from the live state and from the history."""

from __future__ import annotations

from urllib.parse import quote

import typer

from server.cli.remote import Remote, print_json
from server.domain.pool import DEFAULT_POOL


def forget_user(user_id: str, *, as_json: bool) -> None:
    """Erase a person, in all pools, and say how many sessions that were."""
    reply = Remote.from_environment(DEFAULT_POOL).call("DELETE", f"/v1/users/{quote(user_id, safe='')}")
    if as_json:
        return print_json(reply)
    count = reply["forgotten"]
    return typer.echo(
        f"Forgotten: {count} session{'' if count == 1 else 's'}." if count else "Nothing was known."
    )
