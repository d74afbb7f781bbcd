"""Four server processes and a crowd that comes, goes, reloads, crashes and waits, watched from outside."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

import pytest

from tests import witness
from tests.conftest import SpawnedServer, SpawnServer
from tests.node_api import Json, NodeApi
from tests.visitor import Visitor

NODES = 4
TICK_MS, SLACK_MS = 1000, 1000
# A crowd of whom many crash for good: with `resume_s` as usual the absent would fill the line.
SHORT_TIMES = {
    "offer_s": 2,
    "grace_s": 0.5,
    "permit_grace_min_s": 0.7,
    "permit_grace_max_s": 3,
    "resume_s": 30,
}
# By how much a message may come later than the event that it tells of.
UNDER_WAY_MS = 1000
EVERYBODY = 10_000
LOOK_AGAIN_S = 2.0
SETTLES_WITHIN_S = 30.0
IN_LINE = ("waiting", "offered")
STANDS = (*IN_LINE, "granted")


@dataclass(frozen=True, slots=True)
class Scale:
    """How many people come to how few places, and for how long this goes on."""

    people: int
    limits: tuple[int, int]
    lasts_s: float
    arrive_s: float
    interview_s: tuple[float, float]
    operator_s: tuple[float, float]
    seed: int


SHORT = Scale(
    people=100,
    limits=(8, 24),
    lasts_s=14,
    arrive_s=3,
    interview_s=(0.2, 1.5),
    operator_s=(0.5, 2.0),
    seed=31,
)


@dataclass
class Stage:
    """The nodes, and what all who are there share.

    `faults`: what went wrong as the people themselves saw it; `outlasted`: sessions that were away for longer than the
    grace in the moment of their admission, as they were told.
    """

    scale: Scale
    servers: list[SpawnedServer]
    apis: list[NodeApi]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    visitors: list[Visitor] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    outlasted: set[str] = field(default_factory=set)
    admitted: int = 0

    @property
    def sockets(self) -> list[str]:
        return [server.ws_url for server in self.servers]

    async def pause(self, seconds: float) -> None:
        """As long as this goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()


class Person:
    """Comes, waits, is interviewed and goes, each time as another user.

    One who is `patient` stays in view and in line, but for a reload, until let in; the others do as they like.
    """

    def __init__(self, stage: Stage, number: int) -> None:
        self.name = f"user-{number}"
        self.patient = number % 4 == 0
        self.visitor: Visitor | None = None
        self._stage = stage
        self._rng = random.Random(f"{stage.scale.seed} {number}")
        self._lives = count(1)

    @property
    def page(self) -> Visitor:
        assert self.visitor is not None
        return self.visitor

    async def live(self) -> None:
        """Until it is over; who then waits or holds a permit stays."""
        await self._stage.pause(self._rng.uniform(0, self._stage.scale.arrive_s))
        while not self._stage.over.is_set():
            user = f"{self.name}-{next(self._lives)}"
            await self._come(user)
            await self._stay(user)

    async def _come(self, user: str) -> None:
        opened = await self._rng.choice(self._stage.apis).open(user)
        first = self._rng.randrange(NODES)
        self.visitor = Visitor(self._stage.sockets, opened, first=first, rng=self._rng, accepts=True)
        self._stage.visitors.append(self.visitor)
        await self.visitor.arrive()
        await self._enter()

    async def _enter(self) -> None:
        if self.page.state not in STANDS:
            told = len(self.page.messages("interview"))
            await self.page.say("enter")
            await self.page.until(lambda: len(self.page.messages("interview")) > told)

    async def _stay(self, user: str) -> None:
        while self.visitor is not None and not self._stage.over.is_set():
            if self.page.state == "granted":
                await self._be_interviewed(user)
            elif self.page.state in IN_LINE:
                await self._wait(user)
            elif self.patient and self.page.interview.get("reason") == "expired":
                # Let in while the page reloaded, and on a busy machine that took too long. The observer knows.
                self._stage.outlasted.add(self.page.session_id)
                await self._enter()
            elif self.patient:
                self._stage.faults.append(f"{user} waited and was turned away: {self.page.interview}")
                await self._go()
            else:
                await self._stage.pause(0.2)
                await self._enter()

    # In the line

    async def _wait(self, user: str) -> None:
        await self._is_not_in_line(within_s=self._rng.uniform(0.2, LOOK_AGAIN_S))
        if self.page.state not in IN_LINE:
            return
        if self.patient:
            if self._rng.random() < 0.1:
                await self.page.reload(is_abrupt=self._rng.random() < 0.5)
            return
        deeds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (20, self._do_nothing),
            (4, self.page.reload),
            (3, lambda: self.page.reload(is_abrupt=True)),
            (8, self._look_away),
            (3, lambda: self._crash_and_return(user)),
            (1, self._crash),
            (1, self._leave),
            (1, self._go),
        ]
        weights, ways = zip(*deeds, strict=True)
        await self._rng.choices(ways, weights)[0]()

    async def _is_not_in_line(self, within_s: float) -> None:
        page = self.page
        with suppress(TimeoutError):
            await page.until(lambda: page.ended or page.state not in IN_LINE, within_s)

    async def _do_nothing(self) -> None:
        pass

    async def _look_away(self) -> None:
        """Miss an offer, perhaps."""
        await self.page.show(visible=False)
        await self._stage.pause(self._rng.uniform(0.5, 5))
        await self.page.show(visible=True)

    async def _leave(self) -> None:
        await self.page.say("leave")
        await self._is_not_in_line(within_s=10)
        await self._go()

    # Interviewed

    async def _be_interviewed(self, user: str) -> None:
        self._stage.admitted += 1
        await self._stage.pause(self._rng.uniform(*self._stage.scale.interview_s))
        mishap = self._rng.choices(("none", "reload", "crash"), (6, 3, 2))[0]
        if mishap == "reload":
            await self.page.reload(is_abrupt=self._rng.random() < 0.5)
            await self._enter()  # on a busy machine it may take longer than the grace
        elif mishap == "crash":
            await self._crash_and_return(user)
            return
        if not self._stage.over.is_set() and self.page.state == "granted":
            ways = (
                self._complete,
                self._complete_over_http,
                self._release,
                self._kicked,
                self._crash,
                self._go,
            )
            await self._rng.choice(ways)()

    async def _complete(self) -> None:
        await self.page.say("complete")
        await self._until_ended()

    async def _complete_over_http(self) -> None:
        answer = await self._api.complete(self.page.session_id, by=self.page.token)
        assert answer.status_code == 200, answer.text
        await self._until_ended()

    async def _kicked(self) -> None:
        assert (await self._api.kick(self.page.session_id)).status_code == 200
        await self._until_ended()

    async def _release(self) -> None:
        answer = await self._api.release(self.page.session_id, by=self.page.token)
        assert answer.status_code == 200, answer.text
        await self._go()

    @property
    def _api(self) -> NodeApi:
        return self._rng.choice(self._stage.apis)

    # Gone

    async def _until_ended(self) -> None:
        page = self.page
        await page.until(lambda: page.ended)
        self.visitor = None

    async def _go(self) -> None:
        await self.page.leave_politely()
        self.visitor = None

    async def _crash(self) -> None:
        await self.page.vanish()
        self.visitor = None

    async def _crash_and_return(self, user: str) -> None:
        """In time to keep what one has, or too late."""
        await self._crash()
        await self._stage.pause(self._rng.uniform(0.1, 3))
        if not self._stage.over.is_set():
            await self._come(user)


async def operate(stage: Stage) -> None:
    """Raise and lower the limit, and pause, now and then."""
    rng = random.Random(f"{stage.scale.seed} operator")
    while not stage.over.is_set():
        await stage.pause(rng.uniform(*stage.scale.operator_s))
        api = rng.choice(stage.apis)
        if rng.random() < 0.25:
            await api.configure(mode="paused")
            await stage.pause(rng.uniform(0.2, 1))
            await rng.choice(stage.apis).configure(mode="open")
        else:
            await api.configure(limit=rng.randint(*stage.scale.limits))


StartStage = Callable[[Scale], Awaitable[Stage]]


@pytest.fixture
async def start_stage(spawn_server: SpawnServer) -> AsyncIterator[StartStage]:
    """Start the nodes for a crowd; whoever is still there at the end goes with them."""
    async with AsyncExitStack() as stack:

        async def start(scale: Scale) -> Stage:
            limit = str(scale.limits[1])
            servers = await asyncio.gather(
                *(
                    asyncio.to_thread(lambda: spawn_server(PRESENCE_MAX_CONCURRENT=limit))
                    for _ in range(NODES)
                )
            )
            apis = [await stack.enter_async_context(NodeApi(server.url)) for server in servers]
            await apis[0].configure(**SHORT_TIMES)
            stage = Stage(scale, list(servers), apis)
            stack.push_async_callback(_all_go, stage)
            return stage

        yield start


async def _all_go(stage: Stage) -> None:
    await asyncio.gather(*(visitor.vanish() for visitor in stage.visitors))


async def perform(stage: Stage, redis_url: str) -> None:
    """The crowd does what it does; then nobody new comes, and all who wait are let in; then it is judged."""
    people = [Person(stage, number) for number in range(stage.scale.people)]
    async with witness.client(redis_url) as redis, witness.observing(redis_url) as observer:
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(person.live(), name=person.name)
            group.create_task(operate(stage), name="operator")
            await stage.pause(stage.scale.lasts_s)
            stage.over.set()
        await stage.apis[0].configure(mode="paused")
        staying = [person.page for person in people if person.visitor is not None]
        waiting = await all_are_in_line_in_order(stage, redis, staying)
        await stage.apis[1].configure(mode="open", limit=EVERYBODY, offer_s=0)
        for page in waiting:
            await page.show(visible=True)  # who was too slow for an offer sits out until then
            await page.until_state("granted", within_s=SETTLES_WITHIN_S)
    await judge(stage, observer, redis_url)
    print(
        f"\n{len(stage.visitors)} visits, {stage.admitted} admitted, {len(waiting)} waited at the end; "
        f"{observer.counts.total() - observer.counts['sample']} events, {observer.counts['sample']} samples, "
        f"a place idle for {observer.longest_idle_ms:.0f} ms at most, {len(observer.returned_at)} returns\n"
        f"{dict(observer.counts)}"
    )


async def all_are_in_line_in_order(stage: Stage, redis: Any, staying: list[Visitor]) -> list[Visitor]:  # noqa: ANN401
    """While nobody enters, everybody who waits has the place that is shown; returns who waits.

    Tickets of those who crashed may still run out meanwhile: a place lies between what it was before and after.
    """
    before = await witness.line(redis)
    holders = await witness.holders(redis)
    waiting = []
    for page in staying:
        told = await stage.apis[0].interview(page.session_id)
        after = await witness.line(redis)
        if page.session_id in after:
            latest, earliest = after.index(page.session_id) + 1, before.index(page.session_id) + 1
            assert told["state"] == "waiting"
            assert latest <= told["position"] <= earliest
            waiting.append(page)
        else:
            assert told["state"] == ("granted" if page.session_id in holders else "none"), told
        before = after
    return waiting


async def judge(stage: Stage, observer: witness.Observer, redis_url: str) -> None:
    """What the observer and the people saw."""
    assert observer.faults[:3] == []
    assert stage.faults[:3] == []
    assert stage.outlasted <= observer.ever_reclaimed
    assert observer.longest_idle_ms <= TICK_MS + SLACK_MS
    grown = [one for visitor in stage.visitors for one in growths(visitor, observer.returned_at)]
    assert grown[:3] == []
    async with witness.client(redis_url) as redis:
        for who, fence in observer.replay.holders.items():
            assert await redis.hget(f"{witness.POOL}session:{who}", "fence") == str(fence)
    # All that can go wrong was there to go wrong.
    for kind in (
        "offered",
        "offer_missed",
        "granted",
        "grace",
        "released",
        "left_line",
        "pool_changed",
        "kicked",
    ):
        assert observer.counts[kind] > 0, kind
    assert observer.returned_at
    assert observer.counts["sample"] > stage.scale.lasts_s * 5


def growths(visitor: Visitor, returned_at: list[int]) -> list[str]:
    """The times when the visitor was shown a later position than before, and not as many came to the front."""
    found, shown, shown_at = [], 0, 0.0
    epoch_s = time.time() - time.perf_counter()
    for heard_at, message in visitor.heard:
        told: Json = message["interview"] if message["type"] == "welcome" else message
        if "state" not in told or told["state"] == "offered":
            continue
        at, position = (epoch_s + heard_at) * 1000, told.get("position", 0)
        came = bisect_right(returned_at, at) - bisect_left(returned_at, shown_at - UNDER_WAY_MS)
        if shown and position > shown + came:
            found.append(
                f"{visitor.session_id} went from {shown} to {position} in {at - shown_at:.0f} ms, {came} returned"
            )
        shown, shown_at = position, at
    return found


async def test_however_a_crowd_comes_and_goes_the_limit_holds_no_place_idles_and_nobody_overtakes(
    start_stage: StartStage, redis_url: str
) -> None:
    await perform(await start_stage(SHORT), redis_url)


class Story:
    """A stream made up for the observer, one event after the other, in a pool with one place."""

    def __init__(self) -> None:
        self.observer = witness.Observer()
        self.tell("recovery_started")
        self.see()

    def tell(self, kind: str, who: str = "", **fields: object) -> None:
        """The next event."""
        told = {"type": kind, "session_id": who, "epoch": "e", "at": 0, **fields}
        told["seq"] = self.observer.replay.seq + 1
        self.observer.hear({name: str(value) for name, value in told.items()})

    def see(self, **differing: object) -> None:
        """A sample that is as the stream tells, but for this."""
        replay = self.observer.replay
        standing: dict[str, Any] = {
            "seq": replay.seq,
            "now": 10_000.0,
            "limit": self.observer.limit or 1,
            "mode": self.observer.mode,
            "grace_min_ms": 700.0,
            "here": len(replay.tickets),
            "interviews": dict.fromkeys([*replay.holders, *replay.offers], inf),
            "offers": replay.offers,
            "line": replay.tickets,
            "ready": dict(replay.tickets),
            "grace": {},
        }
        self.observer.see(witness.Sample(**{**standing, **differing}))

    @property
    def faults(self) -> list[str]:
        return self.observer.faults


@pytest.fixture
def story() -> Story:
    """`holder` has the one place; `first` and `second` wait."""
    story = Story()
    story.tell("granted", "holder", fence=1)
    story.tell("waiting", "first", ticket=11)
    story.tell("waiting", "second", ticket=12)
    story.see()
    return story


class TestTheObserver:
    def test_it_has_nothing_to_say_when_a_place_goes_to_the_first_who_waits(self, story: Story) -> None:
        story.tell("released", "holder", cause="released")
        story.tell("offered", "first", ticket=11)
        story.tell("granted", "first", fence=2)
        story.see()
        assert story.faults == []
        assert story.observer.longest_idle_ms == 0

    def test_it_sees_a_place_too_many(self, story: Story) -> None:
        story.tell("offered", "first", ticket=11)
        assert "2 places with 1 allowed" in story.faults[0]

    def test_it_sees_who_is_let_in_while_a_lowered_limit_drains(self, story: Story) -> None:
        story.tell("pool_changed", cause="limit=2")
        story.tell("granted", "first", fence=2)
        story.tell("pool_changed", cause="limit=1")
        story.see()
        assert story.faults == []
        story.tell("granted", "second", fence=3)
        assert "3 places with 2 allowed" in story.faults[0]

    def test_it_sees_who_overtakes(self, story: Story) -> None:
        story.tell("released", "holder", cause="released")
        story.tell("offered", "second", ticket=12)
        assert "overtook {'first': 11" in story.faults[0]

    def test_it_sees_who_comes_anew_and_overtakes(self, story: Story) -> None:
        story.tell("released", "holder", cause="released")
        story.tell("granted", "stranger", fence=2)
        assert "overtook" in story.faults[0]

    def test_it_lets_a_reclaimed_holder_come_back_to_the_front(self, story: Story) -> None:
        story.tell("released", "holder", cause="grace")
        story.tell("granted", "first", fence=2)
        story.tell("waiting", "holder", ticket=10, at=77)
        story.tell("released", "first", cause="released")
        story.tell("granted", "holder", fence=3)
        assert story.faults == []
        assert story.observer.returned_at == [77]

    def test_it_sees_who_is_put_in_front_for_no_reason(self, story: Story) -> None:
        story.tell("waiting", "stranger", ticket=10)
        assert "an old ticket, and no return" in story.faults[0]

    def test_it_sees_who_is_let_in_while_the_pool_is_paused(self, story: Story) -> None:
        story.tell("released", "holder", cause="released")
        story.tell("pool_changed", cause="mode=paused")
        story.tell("offered", "first", ticket=11)
        assert "let in while paused" in story.faults[0]

    def test_it_sees_a_fence_that_does_not_rise(self, story: Story) -> None:
        story.tell("released", "holder", cause="released")
        story.tell("granted", "first", fence=1)
        assert "the fence did not rise" in story.faults[0]

    def test_it_sees_what_the_stream_does_not_tell(self, story: Story) -> None:
        story.see(interviews={"somebody else": inf})
        assert "the stream tells" in story.faults[0]

    @pytest.mark.parametrize(
        "idle",
        [
            pytest.param({"interviews": {"holder": 9_000.0}}, id="a permit is over"),
            pytest.param({"grace": {"holder": 9_300.0}}, id="a grace is over"),
            pytest.param({"limit": 2}, id="nobody has it"),
        ],
    )
    def test_it_measures_for_how_long_a_place_is_idle(self, story: Story, idle: dict[str, object]) -> None:
        story.see(**idle)
        story.see(**idle, now=13_000.0)
        story.see(now=14_000.0)
        assert story.observer.longest_idle_ms == 3000

    def test_a_place_is_not_idle_while_nobody_is_ready(self, story: Story) -> None:
        story.see(here=0, interviews={"holder": 9_000.0})
        story.see(here=0, interviews={"holder": 9_000.0}, now=13_000.0)
        assert story.observer.longest_idle_ms == 0

    def test_a_position_may_grow_only_when_somebody_returned_to_the_front(self) -> None:
        visitor = Visitor([], {"session_id": "s", "token": "t", "interview": {"state": "none"}})
        now_s = time.perf_counter()
        shown = {"type": "interview", "state": "waiting"}
        visitor.heard = [(now_s, {**shown, "position": 3}), (now_s + 5, {**shown, "position": 4})]
        assert len(growths(visitor, [])) == 1
        assert growths(visitor, [int((time.time() + 4) * 1000)]) == []
