"""The experiments that long-term memory must pass: duplicates and contradictions. Small here; `-m chaos` runs them at
full size. Isolation has a file of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from memory.longterm import LongTermMemory
from memory.scope import Scope
from tests.memory.conftest import Clock
from tests.memory.embedded_server import EmbeddedServer

ADA = Scope("acme", "ada")


# ---- duplicates


async def write_at_once(server: EmbeddedServer, collection: str, processes: int, count: int, kind: str) -> None:
    """Processes that begin at the same moment."""
    words = [sys.executable, "-m", "tests.memory.writers", server.url, server.api_key, collection, str(count), kind]
    started = [
        await asyncio.create_subprocess_exec(*words, str(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    assert all(b'"done"' in out for out, _ in answers)


async def test_the_same_from_many_processes_is_kept_once(
    memory: LongTermMemory, embedded_server: EmbeddedServer, collection: str
) -> None:
    await write_at_once(embedded_server, collection, 3, 10, "same")
    assert await memory.store.count(ADA.within()) == 10


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_eight_processes_with_fifty_identical_adds_keep_fifty(
    memory: LongTermMemory, embedded_server: EmbeddedServer, collection: str
) -> None:
    await write_at_once(embedded_server, collection, 8, 50, "same")
    assert await memory.store.count(ADA.within()) == 50


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_rivals_of_eight_processes_leave_one_winner_in_each_slot(
    memory: LongTermMemory, embedded_server: EmbeddedServer, collection: str
) -> None:
    await write_at_once(embedded_server, collection, 8, 50, "rival")
    assert await memory.store.count(ADA.within()) == 400
    current = await memory.browse(ADA, limit=400)
    assert sorted(str(each.slot) for each in current) == sorted(f"slot.{number}" for number in range(50))


# ---- contradictions


SUBJECTS = (
    "the standup", "the retro", "the demo", "the gym class", "the school run", "the team lunch", "the backup job",
    "the piano lesson", "the market", "the ferry", "the night train", "the newsletter", "the audit", "the board call",
    "the book club", "the swim", "the release", "the survey", "the dentist", "the yoga hour",
)  # fmt: skip
CHANGES = (
    ("starts at nine", "starts at ten from now on"),
    ("is on Monday", "is on Friday this year"),
    ("costs 20 euros", "costs 35 euros in all"),
)


async def contradictions(memory: LongTermMemory, clock: Clock, pairs: int) -> tuple[int, int, int]:
    """Old and new facts, of which the old match a little better; then superseded; then said again.

    How often the current one came first each time, and how often a superseded one was shown as current.
    """
    said = [
        (f"For Ada {s} {old}.", f"For Ada {s} {new}.", f"When or what is {s}?")
        for s in SUBJECTS
        for old, new in CHANGES
    ]
    newer = slotted = back = 0
    for number, (old, new, question) in enumerate(said[:pairs]):
        scope = Scope("acme", f"user-{number}")
        first = await memory.remember(scope, old)
        clock.forward(days=7)
        second = await memory.remember(scope, new)
        newer += (await memory.recall(scope, question))[0].memory.id == second.id
        slot = Scope("acme", f"user-{number}", "slots")
        for text in (old, new):
            await memory.remember(slot, text, slot="the.fact")
        found = await memory.recall(slot, question)
        assert len(found) == 1, "never a superseded one as current"
        slotted += found[0].memory.text == new
        await memory.remember(slot, old, slot="the.fact")
        found = await memory.recall(slot, question)
        assert len(found) == 1
        back += found[0].memory.text == old
        assert first.id != second.id
    return newer, slotted, back


async def test_the_current_fact_comes_first(memory: LongTermMemory, clock: Clock) -> None:
    assert await contradictions(memory, clock, 9) == (9, 9, 9)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_the_current_fact_comes_first_in_sixty_pairs(memory: LongTermMemory, clock: Clock) -> None:
    assert await contradictions(memory, clock, 60) == (60, 60, 60)
