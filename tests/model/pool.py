"""The oracle: what DESIGN 4, 5 and 7 say of presence and admission, in plain Python, one rule after the other.

Nothing is indexed and nothing is kept that can be told from the rest: who is ready, when a permit runs out and what a
position is are computed when they are asked for, by going through all sessions. Times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ALIVE_TTL_MS = 15_000
MAX_STEP_MS = 4_000
HIDDEN_WINDOW_MS = 150_000

REASON_OF_END = {"completed": "completed", "kicked": "kicked", "abandoned": "expired", "cleanup": "expired"}

Reply = dict[str, Any]


@dataclass
class Rules:
    """The pool's configuration; the fields are those of PoolConfig."""

    limit: int = 1
    declared_limit: int | None = None
    mode: str = "open"
    offer_s: int = 12
    max_interview_s: int = 0
    max_line: int = 1000
    permits_per_user: int = 1
    online_window_s: int = 20
    grace_s: int = 5
    permit_grace_min_s: int = 8
    permit_grace_max_s: int = 16
    resume_s: int = 40
    abandon_after_s: int = 90
    recovery_s: int = 5


@dataclass
class Session:
    """One stay. `deadline` None: offline. `lost_at`: since when it has no connection and no other sign of life.

    `joined_in`: the recovery window in which it came into the line.
    """

    session_id: str
    user_id: str
    started_at: int
    state: str = "none"
    reason: str | None = None
    fence: int | None = None
    ticket: int | None = None
    offer_ends_at: int | None = None
    ends_at: int | None = None
    interview_started_at: int | None = None
    waiting_since: int | None = None
    waited_ms: int | None = None
    sits_out: bool = False
    front_until: int | None = None
    deadline: int | None = None
    lost_at: int | None = None
    connection: str | None = None
    newest_connection_id: int = 0
    connection_id: int | None = None
    tab: str | None = None
    attempt: int = 0
    browser_seen: bool = False
    was_connected: bool = False
    joined_in: int | None = None
    ended: str | None = None

    @property
    def age(self) -> tuple[int, str]:
        """Sorts sessions from the oldest to the newest."""
        return self.started_at, self.session_id

    @property
    def place(self) -> tuple[int, str]:
        """Sorts those in the line, first comes first."""
        return self.ticket or 0, self.session_id

    @property
    def is_ready(self) -> bool:
        """A waiter that is not in grace and not sitting out a missed offer."""
        return self.state == "waiting" and self.lost_at is None and not self.sits_out

    def clear(self) -> None:
        """Whatever it had is gone."""
        self.state = "none"
        self.ticket = self.offer_ends_at = self.ends_at = self.waiting_since = None
        self.sits_out = False


@dataclass
class Known:
    """What a node or a token knows of a session that Redis may have forgotten."""

    user_id: str
    started_at: int
    fence: int | None = None
    holds: bool = False
    ticket: int | None = None


@dataclass
class ModelPool:
    """A pool. Each public method is an operation at the present wall clock; refusals are texts that begin with `!`."""

    rules: Rules
    wall: int
    now: int = 0
    has_history: bool = False
    changed_at: int = 0
    recovery_until: int | None = None
    window: int = 0
    is_other_server: bool = False
    fence: int = 0
    ticket: int = 0
    connection_id: int = 0
    sessions: dict[str, Session] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = self.wall
        self._open_window()

    # Clock, counters, window

    def begin(self, wall: int) -> None:
        """Every script begins so: deadlines see no jump, and a window opens if the server is another one."""
        self.now += max(0, min(wall - self.wall, MAX_STEP_MS))
        self.wall = wall
        if self.is_other_server:
            self.is_other_server = False
            self._open_window()

    def _open_window(self) -> None:
        self.recovery_until = self.now + self.rules.recovery_s * 1000
        self.window += 1
        for counter in ("fence", "ticket", "connection_id"):
            setattr(self, counter, max(getattr(self, counter), self.wall))

    @property
    def is_recovering(self) -> bool:
        return self.is_other_server or (self.recovery_until is not None and self.recovery_until > self.now)

    @property
    def window_now(self) -> int | None:
        return self.window if self.is_recovering else None

    def _next(self, counter: str) -> int:
        value: int = max(getattr(self, counter) + 1, self.wall)
        setattr(self, counter, value)
        return value

    # Who is where

    @property
    def active(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.ended is None]

    def holding(self) -> list[Session]:
        """All that counts against the limit: permits, also in grace, and offers."""
        return [session for session in self.active if session.state in ("granted", "offered")]

    def line(self) -> list[Session]:
        """The waiters, without those that have an offer."""
        return sorted((s for s in self.active if s.state == "waiting"), key=lambda s: s.place)

    def queue(self) -> list[Session]:
        """The line and the offers, in the order of their tickets."""
        return sorted((s for s in self.active if s.state in ("waiting", "offered")), key=lambda s: s.place)

    def position(self, session: Session) -> int:
        """Counts the whole line from 1, with the offers of lower tickets. (An old copy may bring a ticket back that has
        moved to another session since: then two have the same.)"""
        offers = [s for s in self.active if s.state == "offered" and (s.ticket or 0) < (session.ticket or 0)]
        return self.line().index(session) + len(offers) + 1

    def of_user(self, user_id: str) -> list[Session]:
        return sorted((s for s in self.active if s.user_id == user_id), key=lambda s: s.age)

    def is_present(self, session: Session) -> bool:
        return session.deadline is not None and session.deadline > self.now

    def place_deadline(self, session: Session) -> int | None:
        """Until when it holds its permit or offer, as things are now; None: for ever."""
        ends = [session.offer_ends_at if session.state == "offered" else session.ends_at]
        if session.lost_at is not None:
            grace = self.rules.grace_s if session.state == "offered" else self.rules.permit_grace_max_s
            ends.append(session.lost_at + grace * 1000)
        return min((end for end in ends if end is not None), default=None)

    def standing(self, session: Session) -> Reply:
        """The interview object without its sentence."""
        reply: Reply = {"state": session.state}
        if session.state == "granted":
            reply["fence"] = session.fence
            if session.ends_at is not None:
                reply["ends_in_ms"] = max(0, session.ends_at - self.now)
        elif session.state == "waiting":
            reply["ticket"] = session.ticket
            reply["position"] = self.position(session)
            reply["waiting"] = len(self.queue())
        elif session.state == "offered":
            reply["ticket"] = session.ticket
            reply["offer_expires_in_ms"] = max(0, (self.place_deadline(session) or 0) - self.now)
        elif session.reason:
            reply["reason"] = session.reason
        return reply

    # Presence

    def _be_present(self, session: Session, for_ms: int) -> None:
        session.deadline = self.now + for_ms
        session.lost_at = None

    def _window_ms(self, visible: bool | None) -> int:
        window = self.rules.online_window_s * 1000
        return max(window, HIDDEN_WINDOW_MS) if visible is False else window

    def _sign_of_life(self, session: Session) -> None:
        if not session.browser_seen:
            self._be_present(session, self._window_ms(None))

    def _see(self, session: Session, visible: bool | None) -> None:
        """A visible page ends the sitting out, also that of an offer which has just run out."""
        self._expire()
        if visible:
            session.sits_out = False

    def _forget_connection(self, session: Session) -> None:
        session.connection = session.connection_id = None

    def _lose(self, session: Session, at: int) -> None:
        """The connection was lost: what the session has goes to the user's newer session that is here, if any."""
        if session.lost_at is not None:
            return
        session.lost_at = at
        if session.state == "none" or self.rules.permits_per_user != 1 or self.is_recovering:
            return
        for other in reversed(self.of_user(session.user_id)):
            if other is session:
                return
            if other.lost_at is None and other.state == "none" and self.is_present(other):
                self._move(session, other)
                return

    def _run_out(self, session: Session) -> None:
        """Offline: a deadline that ran out is a loss, dated at the deadline."""
        at = self.now if session.deadline is None else session.deadline
        session.deadline = None
        self._forget_connection(session)
        self._lose(session, at)

    def _notice_loss(self, session: Session) -> None:
        if session.lost_at is None and not self.is_present(session) and not self.is_recovering:
            self._run_out(session)

    # Permits, offers, tickets

    def _grant(self, session: Session) -> None:
        session.waited_ms = max(0, self.wall - (session.waiting_since or self.wall))
        session.clear()
        session.state = "granted"
        session.reason = session.front_until = None
        session.fence = self._next("fence")
        session.interview_started_at = self.wall
        longest = self.rules.max_interview_s * 1000
        session.ends_at = self.now + longest if longest else None

    def _give_up(self, session: Session, reason: str) -> None:
        if session.state != "none":
            if reason != "taken_over":
                self._note_vain_wait(session)
            session.clear()
            session.reason = reason

    def _note_vain_wait(self, session: Session) -> None:
        """Who leaves the line and never had an interview has waited in vain, until they were last here."""
        if session.state in ("waiting", "offered") and session.interview_started_at is None:
            absent_ms = 0 if session.lost_at is None else self.now - session.lost_at
            since = self.wall if session.waiting_since is None else session.waiting_since
            session.waited_ms = max(0, self.wall - absent_ms - since)

    def _move(self, old: Session, new: Session) -> None:
        """A take-over: a permit moves under a higher fence, an offer or place as it is."""
        new.state, new.ticket = old.state, old.ticket
        new.offer_ends_at, new.ends_at = old.offer_ends_at, old.ends_at
        new.waiting_since = old.waiting_since
        new.sits_out, new.reason, new.joined_in = False, None, self.window_now
        if new.state == "granted":
            new.fence = self._next("fence")
            new.interview_started_at, new.waited_ms = old.interview_started_at, old.waited_ms
        self._give_up(old, "taken_over")

    def _miss(self, session: Session, *, sits_out: bool) -> None:
        session.state = "waiting"
        session.offer_ends_at = None
        session.sits_out = sits_out

    def _expire_place(self, session: Session) -> None:
        if session.state == "offered":
            self._miss(session, sits_out=True)
        elif session.ends_at is not None and session.ends_at <= self.now:
            self._give_up(session, "max_length")
        else:
            session.front_until = (session.lost_at or 0) + self.rules.resume_s * 1000
            self._give_up(session, "expired")

    def _expire(self) -> bool:
        """End what is past its deadline; whether somebody may enter now. In the window nothing happens."""
        if self.is_recovering:
            return False
        self.recovery_until = None
        for session in self.holding():
            deadline = self.place_deadline(session)
            if deadline is not None and deadline <= self.now:
                self._expire_place(session)
        for session in self.line():
            if session.lost_at is not None and session.lost_at <= self.now - self.rules.resume_s * 1000:
                self._give_up(session, "expired")
        return self.rules.mode == "open"

    def _find_place(self) -> bool:
        """A free place, or one of a holder in grace who is reclaimed because somebody waits."""
        while len(self.holding()) >= self.rules.limit:
            latest = self.now - self.rules.permit_grace_min_s * 1000
            reclaimable = [
                s
                for s in self.active
                if s.state == "granted" and s.lost_at is not None and s.lost_at <= latest
            ]
            if not reclaimable:
                return False
            self._expire_place(min(reclaimable, key=lambda s: (s.lost_at or 0, s.session_id)))
        return True

    def _pump(self, claimant: Session | None = None) -> None:
        """Serve the ready waiters, the lowest ticket first; the claimant is granted, others get an offer."""
        if not self._expire():
            return
        while ready := [session for session in self.line() if session.is_ready]:
            first = ready[0]
            if not self.is_present(first):
                self._run_out(first)
            elif self._yields_to_another(first):
                continue
            elif not self._find_place():
                return
            elif first is claimant or self.rules.offer_s == 0:
                self._grant(first)
            else:
                first.state = "offered"
                first.offer_ends_at = self.now + self.rules.offer_s * 1000

    def _yields_to_another(self, session: Session) -> bool:
        """Whether the user has all the places that one may have, so that this ticket is one too many. What an absent
        session has comes to this one."""
        served = [other for other in self._others_of(session) if other.state in ("granted", "offered")]
        most = self.rules.permits_per_user
        if most == 0 or len(served) < most:
            return False
        absent = [other for other in served if other.lost_at is not None or not self.is_present(other)]
        if absent:
            self._move(absent[0], session)
        else:
            self._give_up(session, "taken_over")
        return True

    def _end(self, session: Session, end_reason: str) -> None:
        self._note_vain_wait(session)
        session.clear()
        session.reason = REASON_OF_END[end_reason]
        session.deadline = session.lost_at = None
        self._forget_connection(session)
        session.ended = end_reason

    # Operations on sessions

    def open(self, session_id: str, user_id: str, *, given: bool) -> Reply | str:
        session = self._given(session_id) if given else self._resumable(user_id)
        if session is not None and session.user_id != user_id:
            return "!session_id_taken"
        resumed = session is not None
        if session is None:
            session = self.sessions[session_id] = Session(session_id, user_id, self.wall)
        else:
            self._notice_loss(session)
        if session.connection is None:
            session.browser_seen = False
            self._sign_of_life(session)
        self._pump()
        return {
            "session_id": session.session_id,
            "resumed": resumed,
            "admission": self.standing(session),
        }

    def _given(self, session_id: str) -> Session | None:
        session = self.sessions.get(session_id)
        return session if session is not None and session.ended is None else None

    def _resumable(self, user_id: str) -> Session | None:
        """The user's newest session that has no WebSocket and was not away for too long."""
        for session in reversed(self.of_user(user_id)):
            if self.is_present(session) and session.connection == "ws":
                continue
            if self.now - self._away_since(session) <= self.rules.resume_s * 1000:
                return session
        return None

    def _away_since(self, session: Session) -> int:
        if session.lost_at is not None:
            return session.lost_at
        return min(self.now, session.deadline if session.deadline is not None else self.now)

    def connect(
        self,
        session_id: str,
        *,
        kind: str = "ws",
        tab: str | None = None,
        attempt: int = 0,
        visible: bool | None = None,
        connection_id: int | None = None,
        known: Known | None = None,
    ) -> Reply | str:
        session = self.sessions.get(session_id)
        is_by_node = connection_id is not None
        if session is None and not (
            known and (is_by_node or self.is_recovering or known.fence or known.ticket)
        ):
            return "!unknown"
        if session is not None and session.ended is not None:
            return f"!ended {session.ended}"
        if session is not None and (refused := self._refusal(session, tab, attempt, connection_id)):
            return refused
        if session is None:
            session = self._remember(session_id, known)  # type: ignore[arg-type]
        resumed = session.was_connected
        self.connection_id = max(self.connection_id, connection_id or 0)
        session.connection_id = connection_id or self._next("connection_id")
        session.newest_connection_id = session.connection_id
        session.connection, session.tab, session.attempt = kind, tab, attempt
        session.browser_seen = session.was_connected = True
        self._be_present(session, ALIVE_TTL_MS if kind == "ws" else self._window_ms(visible))
        self._see(session, visible)
        if known is not None and self.is_recovering:
            self._adopt(session, known, is_from_node=is_by_node)
        self._pump()
        return {
            "connection_id": str(session.connection_id),
            "resumed": resumed,
            "admission": self.standing(session),
        }

    def _refusal(
        self, session: Session, tab: str | None, attempt: int, connection_id: int | None
    ) -> str | None:
        if connection_id is not None:
            return "!stale_connection" if connection_id < session.newest_connection_id else None
        is_same_tab = session.connection is not None and tab is not None and tab == session.tab
        return "!superseded" if is_same_tab and attempt < session.attempt else None

    def _remember(self, session_id: str, known: Known) -> Session:
        session = Session(session_id, known.user_id, known.started_at)
        if not self.is_recovering and (known.fence or known.ticket):
            session.front_until = self.now + self.rules.resume_s * 1000
        self.sessions[session_id] = session
        return session

    def _adopt(self, session: Session, known: Known, *, is_from_node: bool) -> None:
        """The highest fence wins over whatever Redis holds; of the same fence, that it is given back; of tickets
        the node's, and also that there is none, but for who joined in this window."""
        self.fence = max(self.fence, known.fence or 0)
        self.ticket = max(self.ticket, known.ticket or 0)
        fence, known_fence = session.fence or 0, known.fence or 0
        if known.holds:
            if known_fence > fence and self._outranks_others(session, known_fence):
                self._adopt_permit(session, known.fence)
            return
        if session.state == "granted" and known_fence >= fence and is_from_node:
            self._give_up(session, "released")
        is_of_before = session.state in ("waiting", "offered") and session.joined_in != self.window
        if is_of_before and known.ticket is None and is_from_node:
            self._give_up(session, "released")
        is_moved = session.state == "waiting" and session.ticket != known.ticket and is_from_node
        if known.ticket is None or not (session.state == "none" or is_moved):
            return
        if self._owns_ticket(session, known.ticket, is_from_node=is_from_node):
            session.clear()
            session.state, session.ticket, session.reason = "waiting", known.ticket, None
            session.joined_in, session.waiting_since = self.window, self.wall

    def _outranks_others(self, session: Session, fence: int) -> bool:
        """Whether this permit is the person's newest, if there may be one; the others are then older copies of it, and
        a place from before it is the one that led to it."""
        if self.rules.permits_per_user != 1:
            return True
        holding = [other for other in self._others_of(session) if other.state != "none"]
        if any(other.state == "granted" and (other.fence or 0) > fence for other in holding):
            return False
        for other in holding:
            if other.state == "granted" or (other.ticket or 0) <= fence:
                self._give_up(other, "taken_over")
        return True

    def _owns_ticket(self, session: Session, ticket: int, *, is_from_node: bool) -> bool:
        """A ticket that two sessions claim is that of the one whose node says so. One that a page alone names may have
        led to the permit of another session since."""
        others = self._others_of(session)
        permits = [other.fence or 0 for other in others if other.state == "granted"]
        if (
            not is_from_node
            and self.rules.permits_per_user == 1
            and any(fence >= ticket for fence in permits)
        ):
            return False
        others = [other for other in others if other.ticket == ticket]
        if others and not is_from_node:
            return False
        for other in others:
            self._give_up(other, "taken_over")
        return True

    def _others_of(self, session: Session) -> list[Session]:
        return [other for other in self.of_user(session.user_id) if other is not session]

    def _adopt_permit(self, session: Session, fence: int | None) -> None:
        session.clear()
        session.state, session.fence, session.reason = "granted", fence, None
        if session.interview_started_at is None:
            session.interview_started_at = self.wall
        longest = self.rules.max_interview_s * 1000
        so_far = self.wall - session.interview_started_at
        session.ends_at = self.now + longest - so_far if longest else None

    def drop(self, session_id: str, connection_id: int) -> int:
        session = self.sessions.get(session_id)
        if session is None or session.ended or session.connection_id != connection_id:
            return 0
        self._forget_connection(session)
        session.deadline = self.now + self.rules.grace_s * 1000
        self._lose(session, self.now)
        self._pump()
        return 1

    def renew(self, held: list[tuple[str, int]]) -> list[int]:
        return [self._renew(session_id, connection_id) for session_id, connection_id in held]

    def _renew(self, session_id: str, connection_id: int) -> int:
        session = self.sessions.get(session_id)
        if session is None or (session.ended and not self.has_history):
            return 2
        if session.ended:
            return 0
        if session.connection_id == connection_id:
            session.deadline = self.now + ALIVE_TTL_MS
            return 1
        return 2 if session.connection_id is None and connection_id >= session.newest_connection_id else 0

    def beat(self, session_id: str, connection_id: int, *, visible: bool | None) -> Reply | str:
        session = self.sessions.get(session_id)
        if refused := self._unusable(session):
            return refused
        assert session is not None
        if session.connection != "http" or session.connection_id != connection_id:
            return "!stale_connection"
        self._be_present(session, self._window_ms(visible))
        self._see(session, visible)
        self._pump()
        return self._seen(session)

    def update(self, session_id: str, connection_id: int | None, *, visible: bool | None) -> Reply | str:
        session = self.sessions.get(session_id)
        if refused := self._unusable(session):
            return refused
        assert session is not None
        if connection_id is not None and session.connection_id != connection_id:
            return "!stale_connection"
        self._see(session, visible)
        self._pump()
        return self._seen(session)

    def look(self, session_id: str, *, sign_of_life: bool) -> Reply | str:
        session = self.sessions.get(session_id)
        if session is None or (session.ended and not self.has_history):
            return self._unusable(session) or ""
        if sign_of_life and not session.ended and not session.browser_seen:
            self._sign_of_life(session)
            self._pump()
        return self._seen(session)

    def _unusable(self, session: Session | None) -> str | None:
        if session is None:
            return "!unknown"
        return f"!ended {session.ended}" if session.ended else None

    def _seen(self, session: Session) -> Reply:
        return {"admission": self.standing(session), "online": self.is_present(session)}

    # Operations on permits

    def claim(
        self,
        session_id: str,
        *,
        wait: bool = True,
        takeover: bool = False,
        accept: bool = False,
        sign_of_life: bool = False,
    ) -> Reply | str:
        session = self.sessions.get(session_id)
        if session is None:
            return "!unknown"
        if session.ended:
            return self._denied("ended")
        if sign_of_life:
            self._sign_of_life(session)
        if accept:
            self._accept(session)
            return self.standing(session)
        self._expire()
        session.sits_out = False
        self._pump(session)
        self._accept(session)
        if session.state != "none":
            return self.standing(session)
        if self.rules.mode == "closed":
            return self._denied("closed")
        self._notice_loss(session)
        if self._is_elsewhere(session, takeover=takeover):
            return self.standing(session) if session.state != "none" else self._denied("elsewhere")
        return self._join(session, wait=wait)

    def _denied(self, reason: str) -> Reply:
        return {"state": "denied", "reason": reason, "waiting": len(self.queue())}

    def _accept(self, session: Session) -> None:
        if session.state == "offered" and not self.is_recovering:
            self._grant(session)

    def _is_elsewhere(self, session: Session, *, takeover: bool) -> bool:
        held = [s for s in self.of_user(session.user_id) if s is not session and s.state != "none"]
        most = self.rules.permits_per_user
        if most == 0 or len(held) < most:
            return False
        for other in held:
            if session.lost_at is None and (takeover or other.lost_at is not None):
                self._move(other, session)
                self._pump(session)
                self._accept(session)
                break
        return True

    def _join(self, session: Session, *, wait: bool) -> Reply:
        before = replace(session)
        session.ticket = self._ticket_for(session)
        session.state, session.reason, session.joined_in = "waiting", None, self.window_now
        session.waiting_since = self.wall
        self._pump(session)
        if session.state != "waiting":
            return self.standing(session)
        reason = None
        if not wait or self.rules.max_line == 0:
            reason = "at_capacity"
        elif len(self.queue()) > self.rules.max_line:
            reason = "line_full"
        if reason is None:
            return self.standing(session)
        session.clear()
        session.reason, session.front_until = before.reason, before.front_until
        return self._denied(reason)

    def _ticket_for(self, session: Session) -> int:
        """The next number, or one ahead of all for who lost the permit by an absence and is back in time."""
        is_to_front = session.front_until is not None and session.front_until >= self.now
        session.front_until = None
        queue = self.queue()
        if is_to_front and queue:
            return (queue[0].ticket or 0) - 1
        return self._next("ticket")

    def release(self, session_id: str, fence: int | None) -> Reply | str:
        session = self.sessions.get(session_id)
        if session is None:
            return "!unknown"
        if session.ended and not self.has_history:
            return {"state": "none", "reason": REASON_OF_END[session.ended]}
        if fence is not None and (fence != session.fence or session.state in ("waiting", "offered")):
            return "!stale_fence"
        self._give_up(session, "released")
        self._pump()
        return self.standing(session)

    def finish(self, session_id: str, end_reason: str, fence: int | None) -> Reply | str:
        session = self.sessions.get(session_id)
        if session is None:
            return "!unknown"
        if session.ended:
            same = {"state": "none", "reason": REASON_OF_END[end_reason]}
            return same if session.ended == end_reason else f"!ended {session.ended}"
        if fence is not None and (fence != session.fence or session.state in ("waiting", "offered")):
            return "!stale_fence"
        self._end(session, end_reason)
        self._pump()
        return self.standing(session)

    # Operations on the pool

    def tick(self) -> None:
        if not self.is_recovering:
            due = [s for s in self.active if s.deadline is not None and s.deadline <= self.now]
            for session in sorted(due, key=lambda s: (s.deadline or 0, s.session_id)):
                self._run_out(session)
            self._abandon(self.rules.abandon_after_s * 1000, "abandoned")
        self._pump()

    def cleanup(self, older_than_ms: int) -> int:
        abandoned = 0 if self.is_recovering else self._abandon(older_than_ms, "cleanup")
        self._pump()
        return abandoned

    def _abandon(self, after_ms: int, end_reason: str) -> int:
        due = [s for s in self.active if s.deadline is None and (s.lost_at or 0) <= self.now - after_ms]
        for session in due:
            self._end(session, end_reason)
        return len(due)

    def configure(self, changes: dict[str, Any], memory: tuple[Rules, int] | None = None) -> None:
        """Change what is named; a newer memory of a node comes first."""
        if memory is not None and memory[1] > self.changed_at:
            if self.rules != memory[0]:
                self.changed_at = memory[1]
            self.rules = replace(memory[0])
        declared = changes.get("declared_limit")
        if declared not in (None, self.rules.declared_limit):
            changes = {"limit": declared, **changes}
        changed = replace(self.rules, **changes)
        if changed != self.rules:
            self.rules = changed
            self.changed_at = max(self.changed_at + 1, self.wall)
        if self.rules.mode != "open":
            for session in self.holding():
                if session.state == "offered":
                    self._miss(session, sits_out=False)
        self._pump()
