"""What a client saw, in the order in which it saw it: an append-only file, written from outside the platform."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from agent_core.types import Json


class History:
    """Appends and reads. `submit` is a try, `ack` an answer of 202 with the job's id, `saw` a status."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="utf-8")

    def write(self, what: str, order: str, **more: str) -> None:
        self._file.write(json.dumps({"what": what, "order": order, "at": time.time(), **more}) + "\n")
        self._file.flush()

    def read(self) -> Iterator[Json]:
        self._file.seek(0)
        yield from map(json.loads, self._file)

    def close(self) -> None:
        self._file.close()

    @property
    def orders(self) -> set[str]:
        """All that was asked for, acknowledged or not."""
        return {event["order"] for event in self.read()}

    def accepted(self) -> dict[str, set[str]]:
        """The ids under which each acknowledged order was accepted; more than one is a fault."""
        found: dict[str, set[str]] = defaultdict(set)
        for event in self.read():
            if event["what"] == "ack":
                found[event["order"]].add(event["job"])
        return dict(found)

    def seen(self) -> dict[str, list[str]]:
        """The statuses that were seen of each job, oldest first."""
        found: dict[str, list[str]] = defaultdict(list)
        for event in self.read():
            if event["what"] == "saw":
                found[event["job"]].append(event["status"])
        return dict(found)
