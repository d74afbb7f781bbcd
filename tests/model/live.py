"""The pool under test: the scripts on a real Redis, run one call at a time, and what stands in Redis after each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from server.live.keys import PoolKeys
from server.live.scripts import Script
from tests.model.pool import ALIVE_TTL_MS, MAX_STEP_MS, Rules

POOL = "main"
KEYS = PoolKeys(POOL)
CLOCK_KEY = "test:clock"
# Takes the place of clock.lua.
CLOCK = f"""
local function read_clock()
  return tonumber(redis.call('GET', '{CLOCK_KEY}'))
end
"""
SETS = ("online", "offline", "interviews", "offers", "grace", "line", "ready", "absent", "sessions")


@dataclass(frozen=True)
class Seen:
    """All that Redis holds of the pool, as it came."""

    config: dict[str, str]
    sets: dict[str, dict[str, float]]
    records: dict[str, dict[str, str]]
    users: dict[str, set[str]]
    tombstones: dict[str, str]
    tallies: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """What a call gave: its entries, the head, the events that it wrote, and Redis afterwards."""

    entries: list[Any]
    head: dict[str, Any]
    events: list[dict[str, str]]
    seen: Seen


def _text(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [each.decode() for each in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _entry(entry: Any) -> Any:  # noqa: ANN401 - replies are what they are
    if not isinstance(entry, bytes):
        return entry
    return entry.decode() if entry.startswith(b"!") else json.loads(entry)


class LivePool:
    """Runs verbs of `scripts` on `redis`. `sessions` and `users` are all that will ever be read."""

    def __init__(
        self, redis: Redis, scripts: Mapping[str, Script], sessions: Sequence[str], users: Sequence[str]
    ) -> None:
        self.redis: Any = redis
        self._scripts = scripts
        self._sessions = sessions
        self._users = users
        self._last_event = "-"

    def set_clock(self, wall_ms: int) -> None:
        self.redis.set(CLOCK_KEY, wall_ms)

    def run(self, verb: str, *args: Any) -> Answer:  # noqa: ANN401 - items are JSON, texts or numbers
        """One call, and in the same round trip all that Redis then holds."""
        given = [json.dumps(arg) if isinstance(arg, dict) else arg for arg in args]
        script = self._scripts[verb].text
        with self.redis.pipeline(transaction=False) as pipe:
            self._queue_call(pipe, script, given)
            self._queue_read(pipe)
            reply, *read = pipe.execute()
        head, *entries = reply
        events = self._new_events(read.pop())
        return Answer([_entry(each) for each in entries], json.loads(head), events, self._seen(read))

    def _queue_call(self, pipe: Any, script: str, args: Sequence[Any]) -> None:  # noqa: ANN401
        pipe.execute_command("EVAL", script, len(KEYS.in_order), *KEYS.in_order, *args)

    def _queue_read(self, pipe: Any) -> None:  # noqa: ANN401
        pipe.execute_command("HGETALL", KEYS.config)
        pipe.execute_command("HGETALL", KEYS.tallies)
        for name in SETS:
            pipe.execute_command("ZRANGE", KEYS.prefix + name, 0, -1, "WITHSCORES")
        for session_id in self._sessions:
            pipe.execute_command("HGETALL", KEYS.session(session_id))
        for session_id in self._sessions:
            pipe.execute_command("HGET", KEYS.tombstone(session_id), "end_reason")
        for user_id in self._users:
            pipe.execute_command("ZRANGE", KEYS.user(user_id), 0, -1)
        pipe.execute_command("XRANGE", KEYS.events, self._last_event, "+")

    def _new_events(self, entries: Any) -> list[dict[str, str]]:  # noqa: ANN401
        if entries:
            self._last_event = "(" + entries[-1][0].decode()
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]

    def _seen(self, read: list[Any]) -> Seen:
        parts = iter(read)
        config, tallies = next(parts), next(parts)
        sets = {name: {sid.decode(): score for sid, score in next(parts)} for name in SETS}
        records = {sid: _names(next(parts)) for sid in self._sessions}
        tombstones = {sid: next(parts) for sid in self._sessions}
        users = {uid: {sid.decode() for sid in next(parts)} for uid in self._users}
        return Seen(
            config=_names(config),
            sets=sets,
            records={sid: record for sid, record in records.items() if record},
            users=users,
            tombstones={sid: reason.decode() for sid, reason in tombstones.items() if reason},
            tallies={name: int(count) for name, count in _names(tallies).items()},
        )

    def forget_events(self) -> None:
        """The stream is another one now: read it from its beginning."""
        self._last_event = "-"

    # What goes wrong with a Redis

    def wipe(self, wall_ms: int) -> None:
        self.redis.flushall()
        self.set_clock(wall_ms)
        self.forget_events()

    def copy(self) -> dict[bytes, bytes]:
        dumps = {key: self.redis.dump(key) for key in self.redis.keys("presence:*")}
        return {
            key: value for key, value in dumps.items() if value is not None
        }  # its TTL may run out meanwhile

    def restore(self, copy: Mapping[bytes, bytes], wall_ms: int) -> None:
        """Redis starts again from an old copy: another process, so another run id than the copy names."""
        self.wipe(wall_ms)
        with self.redis.pipeline(transaction=False) as pipe:
            for key, value in copy.items():
                pipe.restore(key, 0, value)
            pipe.execute()
        self.become_another()

    def become_another(self) -> None:
        """As after a failover: the server has another run id than the config names."""
        self.redis.hset(KEYS.config, "run_id", "another")


def _names(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def configuration(
    rules: Rules, changes: Mapping[str, Any], *, has_history: bool, memory: tuple[Rules, int] | None
) -> dict[str, Any]:
    """The item of `configure`, as the store makes it."""
    request: dict[str, Any] = {
        "defaults": vars(rules),
        "node": {
            "alive_ttl_ms": ALIVE_TTL_MS,
            "max_step_ms": MAX_STEP_MS,
            "tombstone_ms": 43_200_000,
            "history": int(has_history),
        },
        "changes": dict(changes),
        "actor": "test",
        "salt": "",
    }
    if memory is not None:
        request["memory"] = {"config": vars(memory[0]), "changed_at": memory[1]}
    return request
