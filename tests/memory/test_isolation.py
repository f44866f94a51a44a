"""Tenants never see each other, whatever they call with what. Small here; `-m chaos` runs it at full size."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from qdrant_client import models

from memory.longterm import LongTermMemory
from memory.points import Memory
from tests.memory.embedded_server import EmbeddedServer
from tests.memory.isolation import BYSTANDER, MARK, NOT_OF_A_SCOPE, TEXTS, call_at_random, mark, public_functions

ROOT = Path(__file__).parents[2]
PROCESSES = 4


async def remember_a_bystander(memory: LongTermMemory) -> list[Memory]:
    """One whose memories everybody can guess the ids of."""
    for text in TEXTS:
        await memory.remember(BYSTANDER, f"{text} 0 {mark(BYSTANDER)}", slot="user.city")
    return await memory.browse(BYSTANDER, past=True)


async def isolated(memory: LongTermMemory, before: list[Memory], seen: Iterable[str]) -> None:
    """Nobody saw, wrote to or superseded what is another's, and the bystander's memories are as they were."""
    assert list(seen) == []
    assert await memory.browse(BYSTANDER, past=True) == before
    everything = {each.id: each async for each in memory.store.all(models.Filter())}
    for each in everything.values():
        assert set(MARK.findall(each.text)) <= {mark(each.scope)}, each
        by = everything.get(each.superseded_by or "", each)
        assert (by.scope.tenant, by.scope.user) == (each.scope.tenant, each.scope.user)
    assert len({each.scope.tenant for each in everything.values()}) > 2


def called_all(calls: Counter[str]) -> None:
    """Every public function was called, and calls found something, or were refused, each way there is."""
    assert set(calls) >= set(public_functions()) - NOT_OF_A_SCOPE
    assert set(calls) >= {"MemoryNotFoundError", "InvalidMemoryError", "ScopeError", "TypeError"}
    assert calls["get"] + calls["supersede"] > calls["MemoryNotFoundError"] / 4


async def test_tenants_never_see_each_other(memory: LongTermMemory) -> None:
    before = await remember_a_bystander(memory)
    callers = await call_at_random(memory, range(4), tenants=4, calls=100)
    called_all(sum((caller.calls for caller in callers), Counter()))
    await isolated(memory, before, (each for caller in callers for each in caller.seen))


@pytest.mark.chaos
@pytest.mark.timeout(1200)
async def test_twenty_tenants_never_see_each_other_in_ten_thousand_calls_each(
    memory: LongTermMemory, embedded_server: EmbeddedServer, collection: str
) -> None:
    before = await remember_a_bystander(memory)
    tenants, calls = 20, 10_000
    where = (embedded_server.url, embedded_server.api_key, collection)
    started = []
    for first in range(0, tenants, tenants // PROCESSES):
        numbers = map(str, (first, tenants // PROCESSES, tenants, calls))
        words = [sys.executable, "-m", "tests.memory.isolation", *where, *numbers]
        started.append(await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE))
    answers = [json.loads(out) for out, _ in await asyncio.gather(*(each.communicate() for each in started))]
    called: Counter[str] = sum((Counter(each["calls"]) for each in answers), Counter())
    called_all(called)
    assert sum(called[name] for name in public_functions()) == tenants * calls
    await isolated(memory, before, (each for answer in answers for each in answer["seen"]))
    print(dict(called))
