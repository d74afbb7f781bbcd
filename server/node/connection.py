"""One connection's life after its hello: the browser's messages, the session's events, the end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from msgspec import structs
from starlette.types import Message, Receive
from websockets.frames import CloseCode

from server.domain.errors import (
    BadTokenError,
    PresenceError,
    RedisAwayError,
    RedisFullError,
    SessionEndedError,
    StaleConnectionError,
    UnknownPoolError,
    UnknownSessionError,
)
from server.domain.events import Event, EventType
from server.domain.interview import Admission, Interview, InterviewState, Reason
from server.domain.messages import (
    Accept,
    Ack,
    Close,
    Complete,
    Enter,
    ErrorMessage,
    FromBrowser,
    Heartbeat,
    Hello,
    Leave,
    PageChanged,
    ToBrowser,
    TokenMessage,
    Unwatch,
    Visible,
    Watch,
    Welcome,
    encode,
)
from server.domain.session import EndReason, SessionRecord
from server.domain.token import Verified
from server.live.verbs import Claim, Connected, Drop, Finish, Look, Release, Update
from server.measure.measured import FAILED
from server.node.hub import Held, LocalPool, is_newer, registration
from server.node.incoming import CLOSED, decode, heartbeat_in, lost_because, type_of
from server.node.inquiry import REDIS_AWAY, Ask, Inquiry
from server.node.limits import MessageRate
from server.node.line import is_due, told_of
from server.node.node import Node
from server.node.protocol import TOO_SLOW, Transport
from server.node.refusals import RefusedError, refusal, refuse, retry_in_ms

Wish = Enter | Accept | Leave | Complete

# By how much an offer's end may differ and still be that of the same offer.
SAME_OFFER_S = 0.5

_REASON_OF_END = {EndReason.COMPLETED: Reason.COMPLETED, EndReason.KICKED: Reason.KICKED}


class Connection:
    """A WebSocket whose hello was taken: a `Member` of the hub."""

    __slots__ = ("_full_at", "_inquiry", "_node", "_pool", "_rate", "_transport", "held")

    def __init__(self, node: Node, transport: Transport, held: Held, rate: MessageRate) -> None:
        self.held = held
        self._node = node
        self._transport = transport
        self._pool: LocalPool = node.hub.pool(held.pool)
        self._rate = rate
        self._full_at = 0.0
        self._inquiry = Inquiry(self._pool.settled)

    # Life

    async def live(self, receive: Receive) -> None:
        """Serve the browser's messages until the connection ends; then tell the store that it was lost."""
        cause, code = CLOSED, CloseCode.ABNORMAL_CLOSURE.value
        self._transport.on_text = self._answer_at_once
        try:
            while (message := await receive())["type"] == "websocket.receive":
                await self._take(message)
            cause, code = lost_because(message), message.get("code", code)
        except RefusedError as refused:
            cause, code = refused.code, refused.close
            self._refuse(refused)
        finally:
            self._transport.on_text = None
            self._node.measured.connections.ended(code)
            if self._node.hub.leave(self):
                await self._drop(cause)

    async def _drop(self, cause: str) -> None:
        held = self.held
        with self._node.unless_redis_is_away():
            drop = Drop(session_id=held.session_id, connection_id=held.connection_id, cause=cause)
            await self._node.store.drop(held.pool, drop)

    def _answer_at_once(self, frame: bytes) -> bool:
        """Answer a heartbeat without news, by far the most frequent message. False: it takes the usual way."""
        message = heartbeat_in(frame)
        if message is None or message.visible not in (None, self.held.visible):
            return False
        full_at = self._rate.spend(self._full_at, asyncio.get_running_loop().time())
        if full_at is None:
            return False
        self._full_at = full_at
        self._node.measured.connections.heartbeats.value += 1
        self.send(Ack(message.seq))
        return True

    async def _take(self, message: Message) -> None:
        full_at = self._rate.spend(self._full_at, asyncio.get_running_loop().time())
        if full_at is None:
            raise RefusedError(Close.TOO_MANY_MESSAGES, "too_many_messages", "Too many messages in a second.")
        self._full_at = full_at
        said = decode(message)
        self._node.measured.connections.messages.at(type_of(said)).add()
        await self._act_on(said)

    async def _act_on(self, message: FromBrowser) -> None:
        match message:
            case Heartbeat():
                self.send(Ack(message.seq))
                await self._note(visible=message.visible)
            case PageChanged():
                await self._note(page=message.page)
            case Visible():
                await self._note(visible=message.visible)
            case Watch():
                await self._watch()
            case Unwatch():
                self._pool.watchers.discard(self)
            case Hello():
                raise RefusedError(
                    Close.BAD_MESSAGE, "bad_message", "Bad message: there was a hello already."
                )
            case Enter() | Accept() | Leave() | Complete():
                await self._answer(message)

    # The browser's wishes

    async def _answer(self, wish: Wish) -> None:
        """Do it and say how the session stands, even if nothing changed."""
        began, outcome = time.perf_counter(), FAILED
        try:
            admission = await self._settled(partial(self._do, wish))
        except SessionEndedError as ended:
            self._end(EndReason(ended.end_reason))
        except PresenceError as error:
            self.send(ErrorMessage(error.code, str(error), retry_in_ms()))
        else:
            outcome = admission.state.value
            await self._show_answer(wish, admission)
        if isinstance(wish, Enter | Accept):
            self._node.measured.admissions.claimed(outcome, began)

    async def _show_answer(self, wish: Wish, admission: Admission) -> None:
        if isinstance(wish, Complete):
            self._end(EndReason.COMPLETED)
            return
        self._show(admission)
        if admission.reason is Reason.ENDED:
            with self._node.unless_redis_is_away():
                await self.reconcile()

    async def _do(self, wish: Wish) -> Admission:
        if not self._node.redis_up:
            raise RedisAwayError(REDIS_AWAY)
        store, pool, session_id = self._node.store, self.held.pool, self.held.session_id
        match wish:
            case Enter():
                return await store.claim(pool, Claim(session_id=session_id, takeover=wish.takeover))
            case Accept():
                return await store.claim(pool, Claim(session_id=session_id, accept=True))
            case Leave():
                return await store.release(pool, Release(session_id=session_id))
            case Complete():
                return await store.finish(pool, Finish(session_id=session_id, reason=EndReason.COMPLETED))

    async def _watch(self) -> None:
        pool = self._pool
        pool.watchers.add(self)
        with self._node.unless_redis_is_away():
            state = await self._node.store.state(pool.name)
            self.send(pool.capacity(state))
            if len(pool.watchers) == 1:
                pool.state = state
            elif pool.is_news(state):
                pool.state = None  # now not all watchers have been told the same
                pool.changed.set()

    async def _note(self, *, page: str | None = None, visible: bool | None = None) -> None:
        """Remember what is new of the page, and tell the store: now, or when it is back."""
        held = self.held
        if page in (None, held.page) and visible in (None, held.visible):
            return
        held.page = held.page if page is None else page
        held.visible = held.visible if visible is None else visible
        with self._node.unless_redis_is_away():
            await self.tell()

    async def tell(self) -> None:
        """See `Member`."""
        held = self.held
        update = Update(
            session_id=held.session_id,
            connection_id=held.connection_id,
            page=held.page,
            visible=held.visible,
        )
        held.untold = False
        try:
            await self._node.store.update(held.pool, update)
        except (UnknownSessionError, SessionEndedError, StaleConnectionError):
            await self.reconcile()
        except (RedisAwayError, RedisFullError, UnknownPoolError):
            held.untold = True
            raise

    # What happened to the session

    def hear(self, event: Event) -> None:
        """See `Member`."""
        match event.type:
            case EventType.CONNECTED:
                if event.connection_id and is_newer(event.connection_id, self.held.connection_id):
                    self.replaced_by(event.tab or None)
            case EventType.COMPLETED | EventType.KICKED | EventType.ABANDONED:
                self._end(EndReason(event.cause or event.type.value))
            case EventType.GRANTED if event.cause is None and not self._pool.config_changed:
                self._hear_grant(event.fence or 0)
            case EventType.GRANTED if (event.fence or 0) > self.held.fence:
                self._doubt()  # how long it lasts is for the store to say
            case EventType.WAITING:
                self._doubt(unless=InterviewState.WAITING)
            case EventType.RELEASED | EventType.LEFT_LINE | EventType.TAKEN_OVER:
                self._doubt(unless=InterviewState.NONE)
            case EventType.OFFERED:
                self._doubt()
            case EventType.OFFER_MISSED:
                # The store waits for a sign of life: let the next one that says `visible` through to it.
                self.held.visible = None
                self._doubt()

    def _hear_grant(self, fence: int) -> None:
        """Said at once, without asking the store: somebody waits for it."""
        if self._inquiry.is_open:
            self._inquiry.hear()
        elif fence > self.held.fence:
            ends_in_ms = self._pool.longest_interview_ms
            self._show(Admission(InterviewState.GRANTED, fence=fence, ends_in_ms=ends_in_ms))

    def _doubt(self, unless: InterviewState | None = None) -> None:
        """Look the session up again, unless the event only says what we know already."""
        self._inquiry.hear()
        if not self._inquiry.is_open and self.held.standing.state is not unless:
            self._node.run_errand(self._look_again(), f"look {self.held.session_id}")

    async def _look_again(self) -> None:
        with self._node.unless_redis_is_away(), suppress(UnknownSessionError, SessionEndedError):
            self._learn(await self._settled(self._look))

    async def _look(self) -> Admission:
        look = Look(session_id=self.held.session_id)
        return (await self._node.store.look(self.held.pool, look)).admission

    async def _settled(self, ask: Ask) -> Admission:
        admission, has_missed = await self._inquiry.answer(ask, self._look)
        if has_missed:
            self._doubt()
        return admission

    def compare(self, state: InterviewState, fence: int | None) -> None:
        """See `Member`."""
        standing = self.held.standing
        if state is not standing.state or (fence or 0) > self.held.fence:
            self._doubt()

    # What the browser is told

    def send(self, message: ToBrowser) -> None:
        """Send a message."""
        self.send_text(encode(message))

    def send_text(self, frame: str) -> None:
        """See `Member`. A browser that reads too slowly is cut off."""
        if not self._transport.send_text(frame):
            self._refuse(RefusedError(Close.TOO_SLOW, TOO_SLOW, "The connection is too slow."))

    def welcome(self, connected: Connected, verified: Verified) -> None:
        """The answer to the hello, and a newer token if that of the hello is no longer right."""
        held = self.held
        shown = self._interview(connected.admission)
        self._remember(connected.admission, shown)
        self.send(
            Welcome(
                session_id=held.session_id,
                connection_id=held.connection_id,
                resumed=connected.resumed,
                heartbeat_s=self._node.settings.heartbeat_s,
                interview=shown,
                capacity=self._pool.capacity(connected.state),
            )
        )
        if verified.expired or verified.claims != held.claims():
            self.refresh_token()
        if self._pool.last_seq > connected.state.seq:
            # An event of ours may have come before we were here to hear it.
            self._doubt()

    def place(self, position: int, waiting: int) -> None:
        """See `Member`."""
        held = self.held
        if held.standing.state is not InterviewState.WAITING or self._inquiry.is_open:
            return
        if not is_due(position, held.standing.position, _now() - held.told_at):
            return
        admission = structs.replace(held.standing, position=position, waiting=waiting)
        shown = self._interview(admission)
        if told_of(shown) != held.told:
            self.send(shown)
            self._remember(admission, shown)

    def warn(self) -> None:
        """See `Member`."""
        held, now = self.held, _now()
        held.plan_warning(now)
        self.send(self._interview(held.standing_at(now)))

    def _learn(self, admission: Admission) -> None:
        held = self.held
        is_same = _substance(admission) == _substance(held.standing)
        if is_same and admission.state is InterviewState.OFFERED:
            ends_at = _now() + (admission.offer_expires_in_ms or 0) / 1000
            is_same = abs(ends_at - (held.offer_ends_at or 0.0)) < SAME_OFFER_S
        if not is_same:
            self._show(admission)

    def _show(self, admission: Admission) -> None:
        before = self.held.standing
        shown = self._interview(admission)
        self.send(shown)
        if admission.state is InterviewState.DENIED:
            return
        self._remember(admission, shown)
        # Also when a permit is gone: the newest token must never claim it.
        if (admission.fence, admission.ticket) != (before.fence, before.ticket):
            self.refresh_token()

    def _remember(self, admission: Admission, shown: Interview) -> None:
        now = _now()
        self.held.remember(admission, now)
        self.held.told, self.held.told_at = told_of(shown), now

    def _interview(self, admission: Admission) -> Interview:
        held = self.held
        return self._node.interview(held.pool, held.session_id, admission, held.language_code)

    def refresh_token(self) -> None:
        """See `Member`."""
        now_s = time.time()
        self.held.token_expires_at = now_s + self._node.tokens.ttl_s
        self.send(TokenMessage(self._node.tokens.issue(self.held.claims(), now_s)))

    # Standing with the store

    async def reconcile(self) -> None:
        """See `Member`. Raises RedisAwayError, UnknownPoolError: it may be tried again."""
        try:
            seen = await self._node.store.look(self.held.pool, Look(session_id=self.held.session_id))
        except SessionEndedError as ended:
            self._end(EndReason(ended.end_reason))
        except UnknownSessionError:
            await self.register_again()
        else:
            await self._settle_with(seen.record)

    async def _settle_with(self, record: SessionRecord) -> None:
        if record.end_reason is not None:
            self._end(record.end_reason)
        elif record.connection_id is not None and is_newer(record.connection_id, self.held.connection_id):
            self.replaced_by(record.tab)
        elif record.connection_id != self.held.connection_id:
            await self.register_again()

    async def register_again(self) -> None:
        """See `Member`."""
        held, store, heard = self.held, self._node.store, self._inquiry.heard
        try:
            connected = await store.connect(held.pool, registration(held, store.node))
        except StaleConnectionError:
            await self._give_way()
        except SessionEndedError as ended:
            self._end(EndReason(ended.end_reason))
        except (UnknownSessionError, BadTokenError) as error:
            self._refuse(refusal(error))
        else:
            self._learn(connected.admission)
            if heard != self._inquiry.heard:
                self._doubt()
            if not self._node.hub.holds(self):
                await self._drop(CLOSED)

    async def _give_way(self) -> None:
        with suppress(UnknownSessionError, SessionEndedError):
            seen = await self._node.store.look(self.held.pool, Look(session_id=self.held.session_id))
            self.replaced_by(seen.record.tab)

    # Ends

    def close(self, code: int, reason: str = "") -> None:
        """See `Member`."""
        self._transport.close(code, reason)

    def replaced_by(self, tab: str | None) -> None:
        """See `Member`."""
        self._node.hub.leave(self)
        if tab == self.held.tab:
            self.close(CloseCode.NORMAL_CLOSURE, "replaced")
        else:
            self.close(Close.TAKEN_OVER, "taken over by another tab")

    def _end(self, end_reason: EndReason) -> None:
        """The session has ended, and this connection with it."""
        self._node.hub.leave(self)
        reason = _REASON_OF_END.get(end_reason, Reason.EXPIRED)
        self.send(self._interview(Admission(InterviewState.NONE, reason=reason)))
        self.close(Close.ENDED, end_reason.value)

    def _refuse(self, refused: RefusedError) -> None:
        about = {"session_id": self.held.session_id, "connection_id": self.held.connection_id}
        refuse(self._transport, refused, self._node.measured.connections.refused, **about)


def _substance(admission: Admission) -> tuple[object, ...]:
    """What of an admission is news; times that run down by themselves are not."""
    return admission.state, admission.reason, admission.fence, admission.ticket, admission.position


def _now() -> float:
    return asyncio.get_running_loop().time()
