"""A Hypothesis machine that runs every operation on Redis and on the model, and compares them after each call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from redis import Redis

from server.live.scripts import Script
from tests.model.invariants import Invariants
from tests.model.live import Answer, LivePool, Seen, configuration
from tests.model.pool import ALIVE_TTL_MS, Known, ModelPool, Rules, Session
from tests.model.views import differences, of_model, of_redis

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
# The first letter names the user.
SESSIONS = ("a1", "a2", "a3", "b1", "b2", "c1", "d1", "e1")
USERS = ("a", "b", "c", "d", "e")
PASSING_THE_PUMP = ("renew", "look")
# What these answer does not depend on whether they were run before.
REPEATABLE = ("claim", "release", "finish", "configure", "beat", "update", "tick", "look")

# Whose node is well.
RENEWED = (SESSIONS, SESSIONS, (), ("a1", "b1"), ("a2", "c1", "d1", "e1"))

session_ids = st.sampled_from(SESSIONS)
visibility = st.sampled_from((None, True, False))
steps_ms = st.sampled_from((1000, 2000, 4000))


@dataclass(frozen=True)
class Call:
    """One call, for Redis and for the model, that can be made again."""

    verb: str
    args: tuple[Any, ...]
    expect: Callable[[ModelPool], Any]


@dataclass(frozen=True)
class Lost:
    """What the node remembers of a session, should Redis forget it."""

    connection_id: int | None
    known: Known


@dataclass(frozen=True)
class Copy:
    """An old copy of Redis, and the model as it was then."""

    keys: dict[bytes, bytes]
    model: ModelPool


class AdmissionMachine(RuleBasedStateMachine):
    """Subclasses say which Redis, and which scripts."""

    redis: ClassVar[Redis]
    scripts: ClassVar[dict[str, Script]]

    def __init__(self) -> None:
        super().__init__()
        self.wall = self.latest_wall = START_MS
        self.live = LivePool(self.redis, self.scripts, SESSIONS, USERS)
        self.checks = Invariants()
        self.is_sound = False
        self.last: Call | None = None
        self.memory: tuple[Rules, int] | None = None
        self.old_connections: dict[str, list[int]] = {session_id: [] for session_id in SESSIONS}
        self.old_fences: dict[str, list[int]] = {session_id: [] for session_id in SESSIONS}
        self.lost: dict[str, Lost] = {}
        self.copy: Copy | None = None

    # One call on both sides

    def call(self, verb: str, *args: Any, expect: Callable[[ModelPool], Any]) -> Any:  # noqa: ANN401
        return self._make(Call(verb, args, expect))

    def _make(self, call: Call) -> Any:  # noqa: ANN401
        self.is_sound = False
        if call.verb != "look":
            self.model.begin(self.wall)
        is_over = self._is_about_an_ended_session(call)
        expected = call.expect(self.model)
        answer = self.live.run(call.verb, *call.args)
        found = _comparable(answer.entries)
        assert found == expected, f"{call.verb} {call.args}: {found}, not {expected}"
        self._compare(answer)
        refused = _is_refused(call.verb, answer.entries)
        passes = call.verb in PASSING_THE_PUMP or is_over or _is_only_accepting(call)
        pumped = not passes and not refused
        self.checks.check(self.seen, answer, is_refused=refused, ran_the_pump=pumped)
        self.seen: Seen = answer.seen
        self.last = call
        self.is_sound = True
        return answer.entries

    def _is_about_an_ended_session(self, call: Call) -> bool:
        """To end it again, or to release what it had, is answered from memory."""
        if call.verb not in ("finish", "release"):
            return False
        session = self.model.sessions.get(call.args[0]["session_id"])
        return session is not None and session.ended is not None

    def _compare(self, answer: Answer) -> None:
        model, config, head = self.model, answer.seen.config, answer.head
        assert not (different := differences(of_model(model), of_redis(answer.seen))), different
        assert int(config["now"]) == model.now
        assert (config["limit"], config["mode"]) == (str(model.rules.limit), model.rules.mode)
        counts = {
            "active": len([s for s in model.active if s.state == "granted"]),
            "offered": len([s for s in model.active if s.state == "offered"]),
            "waiting": len(model.line()),
            "online": len([s for s in model.active if model.is_present(s)]),
            "sessions": len(model.active),
            "recovering": model.is_recovering,
            "more": False,
        }
        assert {name: head[name] for name in counts} == counts

    # What the rules use

    def session(self, session_id: str) -> Session | None:
        session = self.model.sessions.get(session_id)
        return None if session is None or session.ended is not None else session

    def move_clock(self, by_ms: int) -> None:
        """Time passes; the next script sees it."""
        self.wall += by_ms
        self.latest_wall = max(self.latest_wall, self.wall)
        self.live.set_clock(self.wall)

    def renew_held(self, session_ids: tuple[str, ...]) -> None:
        held = [
            (session_id, session.connection_id)
            for session_id in session_ids
            if (session := self.session(session_id)) and session.connection == "ws" and session.connection_id
        ]
        self.renew(held)

    def renew(self, held: list[tuple[str, int]]) -> None:
        args = [str(part) for pair in held for part in pair]
        self.call("renew", *args, expect=lambda model: model.renew(held))

    def tick(self) -> None:
        def expect(model: ModelPool) -> list[Any]:
            model.tick()
            return []

        self.call("tick", expect=expect)

    def configure(self, **changes: Any) -> None:  # noqa: ANN401
        memory = self.memory
        request = configuration(DEFAULTS, changes, has_history=self.model.has_history, memory=memory)

        def expect(model: ModelPool) -> list[Any]:
            model.configure(changes, memory)
            return [{**_as_json(vars(model.rules)), "changed_at": model.changed_at}]

        self.call("configure", request, expect=expect)
        self.memory = (copy.copy(self.model.rules), self.model.changed_at)

    def open_session(self, session_id: str, *, given: bool) -> None:
        user_id = session_id[0]
        item = {"session_id": session_id, "user_id": user_id, "given": given}
        self.call("open", item, expect=lambda model: [model.open(session_id, user_id, given=given)])

    def connect(self, session_id: str, **fields: Any) -> bool:  # noqa: ANN401
        """Whether it became the current connection."""
        item = {"session_id": session_id, "node": "n1", **_as_json(fields)}
        (reply,) = self.call("connect", item, expect=lambda model: [model.connect(session_id, **fields)])
        if isinstance(reply, dict):
            self.old_connections[session_id].append(int(reply["connection_id"]))
        return isinstance(reply, dict)

    def claim_for(self, session_id: str, **fields: bool) -> None:
        item = {"session_id": session_id, **fields}
        (reply,) = self.call("claim", item, expect=lambda model: [model.claim(session_id, **fields)])
        if isinstance(reply, dict) and "fence" in reply:
            self.old_fences[session_id].append(reply["fence"])

    def finish_with(self, session_id: str, reason: str, fence: int | None) -> None:
        item = {"session_id": session_id, "reason": reason, **_as_json({"fence": fence})}
        self.call("finish", item, expect=lambda model: [model.finish(session_id, reason, fence)])

    def drop(self, session_id: str, connection_id: int) -> None:
        item = {"session_id": session_id, "connection_id": str(connection_id), "cause": "closed"}
        self.call("drop", item, expect=lambda model: [model.drop(session_id, connection_id)])

    # What happens to sessions

    @initialize(
        limit=st.sampled_from((1, 1, 2, 3)),
        offer_s=st.sampled_from((0, 12, 12)),
        permits_per_user=st.sampled_from((1, 1, 1, 0, 2)),
        max_line=st.sampled_from((1000, 1000, 2, 0)),
        max_interview_s=st.sampled_from((0, 0, 30)),
        has_history=st.booleans(),
        arrivals=st.lists(session_ids, min_size=3, max_size=6, unique=True),
    )
    def begin(self, has_history: bool, arrivals: list[str], **chosen: int) -> None:
        self.model = ModelPool(copy.copy(DEFAULTS), self.wall, has_history=has_history)
        self.seen = Seen({}, {}, {}, {}, {}, {})
        self.live.wipe(self.wall)
        self.configure(**chosen)
        for _ in range(2):
            self.move_clock(4000)
            self.tick()
        for session_id in arrivals:
            self.arrive(session_id)

    @rule(session_id=session_ids)
    def arrive(self, session_id: str) -> None:
        """The usual way in: open, connect, claim."""
        self.open_session(session_id, given=True)
        self.connect(session_id, visible=True)
        self.claim_for(session_id)

    @rule(session_id=session_ids, steps=st.integers(1, 5), comes_back=st.booleans())
    def go_away(self, session_id: str, steps: int, comes_back: bool) -> None:
        """A reload, a short absence or a long one, while everybody else stays."""
        self.close(session_id, is_stale=False)
        self.pass_time(steps, 4000, SESSIONS)
        if comes_back:
            self.arrive(session_id)

    @rule(session_id=session_ids)
    def reload(self, session_id: str) -> None:
        """The new connection overtakes the close of the old one, whose last signs come late too."""
        old = self._connection(session_id, is_stale=False)
        if old is not None:
            self.connect(session_id, tab="t1", attempt=1)
            self.drop(session_id, old)
            self.renew([(session_id, old)])
            self.connect(session_id, tab="t1", attempt=0)

    @rule(session_id=session_ids)
    def arrive_in_another_tab(self, session_id: str) -> None:
        self.open_session(session_id, given=True)
        self.connect(session_id, tab="other", visible=True)
        self.claim_for(session_id, takeover=True)

    @rule(session_id=session_ids)
    def open_by_id(self, session_id: str) -> None:
        self.open_session(session_id, given=True)

    @rule(session_id=session_ids)
    def open_for_the_user(self, session_id: str) -> None:
        """The id is a fresh one, as the API makes it; the user's older session may be resumed instead."""
        if session_id not in self.model.sessions:
            self.open_session(session_id, given=False)

    @rule(session_id=session_ids)
    def open_with_the_id_of_another(self, session_id: str) -> None:
        if self.session(session_id):
            item = {"session_id": session_id, "user_id": "z", "given": True}
            self.call("open", item, expect=lambda model: [model.open(session_id, "z", given=True)])

    @rule(
        session_id=session_ids,
        tab=st.sampled_from((None, "t1", "t2")),
        attempt=st.integers(0, 2),
        kind=st.sampled_from(("ws", "ws", "http")),
        visible=visibility,
    )
    def hello(self, session_id: str, **fields: Any) -> None:  # noqa: ANN401
        """Also delayed ones: an attempt may be lower than one that came before."""
        self.connect(session_id, **fields)

    @rule(session_id=session_ids, is_stale=st.sampled_from((False, False, True)))
    def close(self, session_id: str, is_stale: bool) -> None:
        connection_id = self._connection(session_id, is_stale=is_stale)
        if connection_id is not None:
            self.drop(session_id, connection_id)

    @rule(session_id=session_ids, is_stale=st.booleans(), visible=visibility)
    def beat(self, session_id: str, is_stale: bool, visible: bool | None) -> None:
        connection_id = self._connection(session_id, is_stale=is_stale)
        if connection_id is not None:
            item = {
                "session_id": session_id,
                "connection_id": str(connection_id),
                **_as_json({"visible": visible}),
            }
            self.call(
                "beat", item, expect=lambda model: [model.beat(session_id, connection_id, visible=visible)]
            )

    @rule(session_id=session_ids, by_connection=st.booleans(), is_stale=st.booleans(), visible=visibility)
    def turn(self, session_id: str, by_connection: bool, is_stale: bool, visible: bool | None) -> None:
        """The page is hidden, or shown."""
        connection_id = self._connection(session_id, is_stale=is_stale) if by_connection else None
        text = None if connection_id is None else str(connection_id)
        item = {"session_id": session_id, **_as_json({"connection_id": text, "visible": visible})}
        self.call(
            "update", item, expect=lambda model: [model.update(session_id, connection_id, visible=visible)]
        )

    @rule(session_id=session_ids)
    def renew_stale(self, session_id: str) -> None:
        connection_id = self._connection(session_id, is_stale=True)
        if connection_id is not None:
            self.renew([(session_id, connection_id)])

    @rule(session_id=session_ids, sign_of_life=st.booleans())
    def poll(self, session_id: str, sign_of_life: bool) -> None:
        item = {"session_id": session_id, "sign_of_life": sign_of_life}
        self.call("look", item, expect=lambda model: [model.look(session_id, sign_of_life=sign_of_life)])

    def _connection(self, session_id: str, *, is_stale: bool) -> int | None:
        session = self.session(session_id)
        current = session.connection_id if session else None
        if not is_stale:
            return current
        older = [each for each in self.old_connections[session_id] if each != current]
        return older[-1] if older else None

    # What happens to permits

    @rule(
        session_id=session_ids,
        wait=st.sampled_from((True, True, True, False)),
        takeover=st.booleans(),
        accept=st.sampled_from((False, False, False, True)),
        sign_of_life=st.booleans(),
    )
    def claim(self, session_id: str, **fields: bool) -> None:
        self.claim_for(session_id, **fields)

    @rule(session_id=session_ids, fence=st.sampled_from(("none", "current", "old")))
    def release(self, session_id: str, fence: str) -> None:
        number = self._fence(session_id, fence)
        item = {"session_id": session_id, **_as_json({"fence": number})}
        self.call("release", item, expect=lambda model: [model.release(session_id, number)])

    @precondition(lambda self: self.holders())
    @rule()
    def release_late(self) -> None:
        """A permit is given back twice, the session comes again, and then the same release comes once more."""
        session_id = self.holders()[0]
        fence = self._fence(session_id, "current")
        item = {"session_id": session_id, "fence": fence}
        for is_late in (False, False, True):
            if is_late:
                self.claim_for(session_id)
            self.call("release", item, expect=lambda model: [model.release(session_id, fence)])

    @precondition(lambda self: self.holders())
    @rule(steps=st.integers(2, 5))
    def lose_a_permit(self, steps: int) -> None:
        """A holder goes away for long enough to be reclaimed, if somebody waits, and comes back."""
        self.go_away(self.holders()[0], steps, comes_back=True)

    def holders(self) -> list[str]:
        return [session.session_id for session in self.model.active if session.state == "granted"]

    @rule(
        session_id=session_ids,
        reason=st.sampled_from(("completed", "kicked")),
        fence=st.sampled_from(("none", "none", "current", "old")),
    )
    def finish(self, session_id: str, reason: str, fence: str) -> None:
        self.finish_with(session_id, reason, self._fence(session_id, fence))

    def _fence(self, session_id: str, which: str) -> int | None:
        session = self.session(session_id)
        if which == "current":
            return session.fence if session else None
        held = session.fence if session is not None and session.state == "granted" else None
        older = [each for each in self.old_fences[session_id] if each != held]
        return older[-1] if which == "old" and older else None

    # What happens to the pool

    @rule(steps=st.integers(1, 6), by_ms=steps_ms, renewed=st.sampled_from(RENEWED))
    def pass_time(self, steps: int, by_ms: int, renewed: tuple[str, ...]) -> None:
        """Time passes as in life, for all or only for those whose node is well."""
        for _ in range(steps):
            self.move_clock(by_ms)
            self.renew_held(renewed)
            self.tick()

    @rule(steps=st.integers(1, 5), renewed=st.sampled_from((SESSIONS, ())))
    def pass_time_without_a_tick(self, steps: int, renewed: tuple[str, ...]) -> None:
        for _ in range(steps):
            self.move_clock(4000)
            self.renew_held(renewed)

    @precondition(lambda self: self.holders() and self.connected("waiting"))
    @rule(data=st.data())
    def hand_over_before_a_tick_sees_who_is_gone(self, data: st.DataObject) -> None:
        """The nodes of all but the holders have died; somebody completes."""
        session_id = data.draw(st.sampled_from(self.holders()))
        for _ in range(ALIVE_TTL_MS // 4000 + 1):
            self.move_clock(4000)
            self.renew_held(tuple(self.holders()))
        self.finish_with(session_id, "completed", None)

    @rule(by_ms=st.sampled_from((-HOUR_MS, HOUR_MS, 12 * HOUR_MS, -1)))
    def jump(self, by_ms: int) -> None:
        """The clock of Redis is set; or hours pass without any script. Who renews is expired by neither."""
        self.move_clock(by_ms)
        before = {
            sid for sid, s in self.model.sessions.items() if s.connection == "ws" and self.model.is_present(s)
        }
        fresh = {sid for sid in before if (self.model.sessions[sid].deadline or 0) - self.model.now > 4000}
        self.renew_held(SESSIONS)
        self.tick()
        assert all(self.model.is_present(self.model.sessions[sid]) for sid in fresh)

    @rule(limit=st.integers(0, 3))
    def set_limit(self, limit: int) -> None:
        self.configure(limit=limit)

    @rule(declared_limit=st.integers(1, 2))
    def declare_limit(self, declared_limit: int) -> None:
        self.configure(declared_limit=declared_limit)

    @rule(mode=st.sampled_from(("open", "open", "open", "paused", "closed")))
    def set_mode(self, mode: str) -> None:
        self.configure(mode=mode)

    @rule(offer_s=st.sampled_from((0, 12, 12)))
    def set_offers(self, offer_s: int) -> None:
        self.configure(offer_s=offer_s)

    @rule(limit=st.integers(0, 3))
    def take_two_tickets(self, limit: int) -> None:
        """Both sessions of a user join while any number may; then one permit is allowed again, and places get free."""
        permits_per_user = self.model.rules.permits_per_user
        self.configure(permits_per_user=0, limit=0)
        for session_id in ("a1", "a2"):
            self.arrive(session_id)
        self.configure(permits_per_user=max(1, permits_per_user))
        self.configure(limit=limit)

    @rule(older_than_ms=st.sampled_from((0, 20_000)))
    def clean_up(self, older_than_ms: int) -> None:
        self.call("cleanup", older_than_ms, expect=lambda model: [model.cleanup(older_than_ms)])

    # What goes wrong

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat(self) -> None:
        """The reply was lost, so the same call comes again: the same reply, and nothing else happens."""
        call = self.last
        if call is None or call.verb not in REPEATABLE:
            return
        before, seq = of_redis(self.seen), self.seen.config["seq"]
        first = self._make(call)
        assert self._make(call) == first
        assert not (different := differences(before, of_redis(self.seen))), different
        # Who has been away for longer than resume_s joins the line and loses the place again within the call.
        assert self.seen.config["seq"] == seq or first == [{"state": "none", "reason": "expired"}]

    @rule(
        fault=st.sampled_from(("copy", "wipe", "restore", "restore", "fail over")),
        heals=st.sampled_from(("at once", "at once", "late", "not yet")),
    )
    def break_redis(self, fault: str, heals: str) -> None:
        if fault == "wipe":
            self._wipe()
        elif fault == "fail over":
            self._fail_over()
        elif fault == "restore" and self.copy is not None:
            self._restore(self.copy)
        else:
            self.copy = Copy(self.live.copy(), copy.deepcopy(self.model))
        if heals == "late":
            self.pass_time(2, 4000, SESSIONS)
        if heals != "not yet" and self.lost:
            self.register_all_again()

    @precondition(lambda self: self.connected("waiting", "offered"))
    @rule(data=st.data())
    def leave_the_line_between_copy_and_restore(self, data: st.DataObject) -> None:
        """The copy has the session in the line; its node knows better."""
        session_id = data.draw(st.sampled_from(self.connected("waiting", "offered")))
        self.copy = Copy(self.live.copy(), copy.deepcopy(self.model))
        self.call(
            "release", {"session_id": session_id}, expect=lambda model: [model.release(session_id, None)]
        )
        self._restore(self.copy)
        self.register_all_again()
        assert self.model.sessions[session_id].state == "none"

    @precondition(lambda self: self.connected("none"))
    @rule(data=st.data(), takeover=st.booleans())
    def claim_before_the_node_has_registered(self, data: st.DataObject, takeover: bool) -> None:
        """The claim is one of the recovery window; the node tells how the session stood before."""
        session_id = data.draw(st.sampled_from(self.connected("none")))
        self._fail_over()
        session = self.model.sessions[session_id]
        known = Known(session.user_id, session.started_at, session.fence)
        self.claim_for(session_id, takeover=takeover)
        claimed = session.state
        self.connect(session_id, known=known, connection_id=session.connection_id)
        assert session.state == claimed

    def connected(self, *states: str) -> list[str]:
        return [s.session_id for s in self.model.active if s.connection_id is not None and s.state in states]

    @rule(session_id=session_ids, is_late=st.booleans())
    def come_with_an_old_token(self, session_id: str, is_late: bool) -> None:
        """In a recovery window, or too late for one, a page says that it holds a permit which it had once."""
        fence, session = self._fence(session_id, "old"), self.session(session_id)
        if fence is None or session is None:
            return
        if not self.model.is_recovering and not is_late:
            self._fail_over()
        self.connect(session_id, known=Known(session.user_id, session.started_at, fence, holds=True))

    def _wipe(self) -> None:
        """Redis comes back empty; a node finds no pool and configures it from memory."""
        self._lose_memory()
        self.live.wipe(self.wall)
        rules, has_history = copy.copy(DEFAULTS), self.model.has_history
        self.model = ModelPool(rules, self.wall, has_history=has_history)
        self._come_back()
        self.configure()

    def _restore(self, old: Copy) -> None:
        """Redis comes back with an old copy; a node finds an epoch that it does not know and tells its memory."""
        self._lose_memory()
        self.live.restore(old.keys, self.wall)
        self.model = copy.deepcopy(old.model)
        self.model.is_other_server = True
        self._come_back()
        self.configure()

    def _fail_over(self) -> None:
        """Another server with all that the old one had."""
        self.move_clock(self.latest_wall - self.wall + 1)
        self.renew([])
        self.live.become_another()
        self.model.is_other_server = True
        self.tick()

    def _lose_memory(self) -> None:
        """What the nodes remember of now; and the clock, where it had been at the most."""
        for session in self.model.active:
            holds = session.state == "granted"
            known = Known(session.user_id, session.started_at, session.fence, holds, session.ticket)
            if session.connection_id is not None:
                self.lost[session.session_id] = Lost(session.connection_id, known)
        for session_id, session in self.model.sessions.items():
            if session.ended is not None:
                self.lost.pop(session_id, None)
        self.move_clock(self.latest_wall - self.wall + 1000)

    def _come_back(self) -> None:
        self.checks.stream.start_anew()
        self.seen = Seen({}, {}, {}, {}, {}, {})
        self._read_what_came_back()

    def _read_what_came_back(self) -> None:
        if self.model.sessions or self.model.is_other_server:
            answer = self.live.run("state")
            for event in answer.events:
                self.checks.stream.replay.apply(event)
            self.seen = answer.seen

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), speaks_up=st.sampled_from((False, False, True)))
    def register_again(self, data: st.DataObject, speaks_up: bool) -> None:
        """A node registers a connection from its memory, or the page comes back with its token."""
        session_id = data.draw(st.sampled_from(sorted(self.lost)))
        lost = self.lost.pop(session_id)
        connection_id = None if speaks_up else lost.connection_id
        self.connect(session_id, known=lost.known, connection_id=connection_id)

    @precondition(lambda self: self.lost)
    @rule()
    def register_all_again(self) -> None:
        """As a healthy node does: everyone at once, inside the window. Then all have what they had, but for a permit
        that Redis knows as given back: meanwhile, or before an old token brought it back after a wipe."""
        was_recovering = self.model.is_recovering
        lost, self.lost = self.lost, {}
        for session_id, each in sorted(lost.items()):
            known = each.known
            is_back = self.connect(session_id, known=known, connection_id=each.connection_id)
            if is_back and was_recovering and known.holds:
                session = self.model.sessions[session_id]
                is_given_back = session.fence == known.fence
                assert session.state == "granted" or is_given_back
                assert (session.fence or 0) >= (known.fence or 0)
            elif is_back and was_recovering and known.ticket is None:
                session = self.model.sessions[session_id]
                is_in_line = session.state in ("waiting", "offered")
                assert not is_in_line or session.joined_in == self.model.window

    # The end: everybody who is ready gets in, and every place comes back (invariant 9)

    def teardown(self) -> None:
        if self.is_sound:
            self._leave_the_window()
            self._everybody_gets_in()
            self._everybody_crashes()

    def _leave_the_window(self) -> None:
        self.configure(limit=max(1, self.model.rules.limit), mode="open")
        for _ in range(2):
            self.move_clock(4000)
            self.renew_held(SESSIONS)
            self.tick()

    def _everybody_gets_in(self) -> None:
        """Those in the line who are ready now stay and accept; holders complete, one after the other."""
        waiting = [session.session_id for session in self.model.line() if session.is_ready]
        for _ in range(3 * len(SESSIONS)):
            left = [sid for sid in waiting if (session := self.session(sid)) and session.state != "granted"]
            if not left or all(not self._still_waits(sid) for sid in left):
                return
            self._somebody_completes_or_accepts()
            self.move_clock(1000)
            self.renew_held(SESSIONS)
            self.tick()
        raise AssertionError(f"still waiting: {waiting}")

    def _still_waits(self, session_id: str) -> bool:
        session = self.session(session_id)
        return session is not None and (session.is_ready or session.state == "offered")

    def _somebody_completes_or_accepts(self) -> None:
        for session in self.model.holding():
            session_id = session.session_id
            if session.state == "offered":
                self.claim_for(session_id)
            else:
                self.finish_with(session_id, "completed", None)
            return

    def _everybody_crashes(self) -> None:
        """Nobody renews any more: within TTL, permit grace and a tick all WebSocket holders' permits are back."""
        holders = [
            s.session_id
            for s in self.model.active
            if s.state == "granted" and (s.deadline is None or s.deadline - self.model.now <= ALIVE_TTL_MS)
        ]
        for _ in range((ALIVE_TTL_MS + DEFAULTS.permit_grace_max_s * 1000) // 4000 + 1):
            self.move_clock(4000)
            self.tick()
        for session_id in holders:
            session = self.session(session_id)
            assert session is None or session.state != "granted", f"{session_id} still holds a permit"


DEFAULTS = Rules()


def _as_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Only what is given; ids of connections are texts."""
    item = {name: value for name, value in fields.items() if value is not None}
    if "connection_id" in item:
        item["connection_id"] = str(item["connection_id"])
    if "known" in item:
        item["known"] = {name: value for name, value in vars(item["known"]).items() if value is not None}
    return item


def _comparable(entries: list[Any]) -> list[Any]:
    """The entries without the records, which are compared as they stand in Redis."""
    return [
        {name: value for name, value in entry.items() if name != "record"}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]


def _is_refused(verb: str, entries: list[Any]) -> bool:
    if verb == "drop":
        return entries == [0]
    if verb == "renew":
        return 1 not in entries
    return bool(entries) and isinstance(entries[0], str)


def _is_only_accepting(call: Call) -> bool:
    """Accepting an offer frees nothing, and so runs no pump."""
    return call.verb == "claim" and bool(call.args[0].get("accept"))
