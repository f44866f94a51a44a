"""Failpoints: off by default, listed in one place, and doing what their plan says."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_core.failpoints import EXIT_STATUS, FAILPOINTS, FailpointError, Plan, arm, failpoint

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent_core", "api", "cli", "jobs", "memory", "worker")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def fired(name: str, visits: int) -> list[int]:
    """On which of so many visits the failpoint raised."""
    found = []
    for visit in range(1, visits + 1):
        try:
            failpoint(name)
        except FailpointError:
            found.append(visit)
    return found


def placed() -> Iterator[str]:
    """The names of the failpoints in the code; each must be a plain text."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                    (argument,) = node.args
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}"
                    yield str(argument.value)


def test_each_is_listed_and_stands_in_one_place() -> None:
    assert Counter(placed()) == Counter(FAILPOINTS.keys())


def test_off_they_do_nothing() -> None:
    assert fired("after_claim", 3) == []
    arm("  ")
    assert fired("after_claim", 3) == []


def test_a_plan_is_for_its_failpoints_alone() -> None:
    arm("after_claim=raise, before_end=raise@2")
    assert fired("after_claim", 2) == [1, 2]
    assert fired("before_end", 4) == [2]
    assert fired("after_end", 4) == []


def test_a_share_of_visits_is_drawn_from_the_seed() -> None:
    def draw(seed: int) -> list[int]:
        arm(f"seed={seed},after_claim=raise:0.3")
        return fired("after_claim", 200)

    assert 30 < len(draw(1)) < 90
    assert draw(1) == draw(1) != draw(2)


def test_sleep_delays() -> None:
    arm("after_claim=sleep(0.05)")
    begun = time.monotonic()
    failpoint("after_claim")
    assert time.monotonic() - begun >= 0.05


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("exit", EXIT_STATUS)])
def test_the_process_ends(action: str, status: int) -> None:
    with run(action) as process:
        assert process.wait(10) == status
        assert process.communicate()[0] == b"before\n"


@pytest.mark.parametrize("action", ["stop", "hang"])
def test_the_process_stands_still_until_it_is_killed(action: str) -> None:
    with run(action) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"before\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        assert process.communicate()[0] == b""
        assert process.returncode == -signal.SIGKILL


def run(action: str) -> subprocess.Popen[bytes]:
    """A process that visits a failpoint with this action."""
    visit = "print('before', flush=True); failpoint('after_claim'); print('after', flush=True)"
    code = f"from agent_core.failpoints import arm, failpoint; arm('after_claim={action}'); {visit}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("after_claim", "'after_claim' is no fault; expected name=kill|stop|"),
        ("after_claim=explode", "is no fault"),
        ("after_claim=sleep", "is no fault"),
        ("after_claim=kill:1.5", "is no fault"),
        ("after_claim=kill@0", "is no fault"),
        ("after_claim=kill:0.5@2", "is no fault"),
        ("no_such_place=kill", "there is no failpoint 'no_such_place'; there are api_after_submit, "),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        Plan(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
