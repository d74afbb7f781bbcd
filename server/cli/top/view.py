"""What is known of a pool at this moment, from the messages of `/v1/events`. No I/O; times are Unix seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVENTS_KEPT = 200
LISTED = 200  # as many interviews as the server names

Message = Mapping[str, Any]


@dataclass(slots=True)
class View:
    """The last that the server said. `trouble`: why it says nothing at present."""

    pool: str
    capacity: Message | None = None
    line: Message | None = None
    events: deque[Message] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    trouble: str | None = "connecting"

    def take(self, kind: str, message: Message) -> None:
        """Learn from a message of the stream; those of other kinds are the pool's events."""
        self.trouble = None
        match kind:
            case "capacity":
                self.capacity = message
            case "line":
                self.line = message
            case "reset":
                self.events.clear()
            case _:
                self.events.appendleft(message)

    @property
    def is_complete(self) -> bool:
        """Whether all that is drawn has been heard of."""
        return self.capacity is not None and self.line is not None

    @property
    def is_consistent(self) -> bool:
        """Whether counts and names are of the same moment: the names come once a second."""
        if self.capacity is None or self.line is None:
            return False
        listed = (len(self.line["interviews"]), self.line["waiting"], self.line["offered"])
        counted = (min(self.capacity["active"], LISTED), self.capacity["waiting"], self.capacity["offered"])
        return listed == counted
