"""Named places at which the fault suite kills, stops or delays a process. Off, a place costs one look at a name.

A plan is a comma-separated text, `name=action` with, if wanted, `:share` (fires on that share of its visits) or `@n`
(fires on its n-th visit alone), and `seed=n`: "after_claim=kill:0.2,before_settle=sleep(0.5)@3,seed=7". Actions:

    kill      SIGKILL to this process           raise     FailpointError where it stands
    stop      SIGSTOP to this process           hang      blocks the thread for ever
    exit      leaves with status 86             sleep(s)  blocks the thread for s seconds

This is for tests of the platform and no feature of it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass

FAILPOINTS = {
    "api_after_submit": "the API wrote the job and pushed its ticket, and has not answered",
    "after_slots": "slots of a schedule are in its ledger, and their jobs are not submitted",
    "after_slot_submit": "the job of a slot is submitted, and the ledger does not say so",
    "after_claim": "the worker owns jobs and has started none of them",
    "after_restore": "the conversation is restored, the loop has not begun",
    "before_reserve": "a model call is priced, and not reserved",
    "after_reserve": "a model call is reserved, and not sent",
    "after_submit": "a batch has a model call, and the journal does not say so",
    "before_settle": "the model has replied, and the reply is not recorded",
    "after_settle": "the reply is recorded",
    "before_intent": "a tool call may run, and its intent is not recorded",
    "after_intent": "the intent is recorded, and the tool is not called",
    "before_tool": "the tool's function is about to be entered",
    "after_tool": "the tool has run, and its result is not recorded",
    "after_result": "the tool's result is recorded",
    "before_session_append": "the answer is there, and not added to the session",
    "after_session_append": "the session has the answer, and the job has not ended",
    "before_end": "the run is over, and its end is not written",
    "after_end": "the end is written",
    "before_hand_back": "a drained job is about to go back to its queue",
    "after_hand_back": "a drained job is back in its queue",
    "before_beat": "the worker is about to renew its leases",
    "after_ruling": "a person has decided about a call, and the job is not moved",
    "before_delivery": "a webhook is claimed, and not sent",
    "after_delivery": "the receiver has answered, and what it said is not recorded",
    "before_rescue": "a reaper saw a lease that has ended, and has not moved the job",
    "after_rescue": "a reaper moved the job",
}
"""Every failpoint there is, and what is true at it."""
ENTRY = re.compile(
    r"(?P<name>\w+)=(?:(?P<action>kill|stop|exit|raise|hang)|sleep\((?P<seconds>\d+(?:\.\d+)?)\))"
    r"(?::(?P<share>[01]|0?\.\d+)|@(?P<visit>[1-9]\d*))?"
)
SEED = re.compile(r"seed=(\d+)")
EXIT_STATUS = 86


class FailpointError(Exception):
    """Raised by a failpoint whose action is `raise`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a failpoint: on its n-th `visit` alone, or on a `share` of its visits."""

    action: str
    seconds: float = 0.0
    share: float = 1.0
    visit: int | None = None


class Plan:
    """Which faults a process has. Its failpoints may be visited from several threads."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, with one line that says what is wrong, for a plan that cannot be read."""
        self._faults: dict[str, Fault] = {}
        self._visits: Counter[str] = Counter()
        self._lock = threading.Lock()
        seed: int | None = None
        for entry in filter(None, map(str.strip, text.split(","))):
            if found := SEED.fullmatch(entry):
                seed = int(found[1])
            else:
                name, fault = _parse(entry)
                self._faults[name] = fault
        self._random = random.Random(seed)  # noqa: S311

    def visit(self, name: str) -> None:
        """Does what the plan has for the failpoint, if this visit is one to do it on."""
        fault = self._faults.get(name)
        if fault is None:
            return
        with self._lock:
            self._visits[name] += 1
            fires = self._visits[name] == fault.visit if fault.visit else self._random.random() < fault.share
        if fires:
            _act(name, fault)


_plan: Plan | None = None


def arm(text: str) -> None:
    """Puts a plan into effect for this process; an empty one takes it back. Raises ValueError."""
    global _plan
    _plan = Plan(text) if text.strip() else None


def failpoint(name: str) -> None:
    """A place at which the process may be made to fail."""
    if _plan is not None:
        _plan.visit(name)


def _parse(entry: str) -> tuple[str, Fault]:
    found = ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(
            f"{entry!r} is no fault; expected name=kill|stop|exit|raise|hang|sleep(seconds), then :share or @visit"
        )
    if found["name"] not in FAILPOINTS:
        raise ValueError(f"there is no failpoint {found['name']!r}; there are {', '.join(FAILPOINTS)}")
    visit = int(found["visit"]) if found["visit"] else None
    return found["name"], Fault(
        found["action"] or "sleep", float(found["seconds"] or 0), float(found["share"] or 1), visit
    )


def _act(name: str, fault: Fault) -> None:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(EXIT_STATUS)
        case "raise":
            raise FailpointError(f"the failpoint {name}")
        case "hang":
            threading.Event().wait()
        case _:
            time.sleep(fault.seconds)
