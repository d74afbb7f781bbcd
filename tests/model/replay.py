"""Holders and line as somebody knows them who only reads the event stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENDS = ("released", "left_line", "taken_over", "completed", "abandoned", "kicked")


@dataclass
class Replay:
    """`holders` maps sessions to fences; `offers` and `tickets` (the waiters') map them to tickets."""

    epoch: str | None = None
    seq: int = 0
    holders: dict[str, int] = field(default_factory=dict)
    offers: dict[str, int] = field(default_factory=dict)
    tickets: dict[str, int] = field(default_factory=dict)

    def apply(self, event: Mapping[str, str]) -> None:
        """The next event of the stream. Raises AssertionError at a gap."""
        if event["epoch"] != self.epoch:
            assert event["type"] == "recovery_started", f"a new epoch begins with {event['type']}"
            self.epoch, self.seq = event["epoch"], 0
        assert int(event["seq"]) == self.seq + 1, f"event {event['seq']} comes after {self.seq}"
        self.seq += 1
        self._move(event.get("session_id", ""), event)

    def _move(self, session_id: str, event: Mapping[str, str]) -> None:
        match event["type"]:
            case "granted":
                self._forget(session_id)
                self.holders[session_id] = int(event["fence"])
            case "offered":
                self._forget(session_id)
                self.offers[session_id] = int(event["ticket"])
            case "waiting" | "offer_missed":
                self._forget(session_id)
                self.tickets[session_id] = int(event["ticket"])
            case kind if kind in ENDS:
                self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        for group in (self.holders, self.offers, self.tickets):
            group.pop(session_id, None)
