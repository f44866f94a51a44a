"""What workers forget by themselves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from memory.errors import MemoryUnavailableError
from memory.scope import Scope
from tests.memory.embedded_server import EmbeddedServer
from tests.worker.remembering import NOWHERE, memory_at, memory_by
from worker import memory_pruner
from worker.memory_pruner import pruning, sweep

ADA = Scope("pruned", "ada")


async def test_what_is_over_goes_and_what_was_of_no_use_only_if_asked(embedded: EmbeddedServer) -> None:
    lazy = memory_at(embedded)
    memory = await lazy.get()
    long_ago = memory.as_of(datetime.now(UTC) - timedelta(days=40))
    await long_ago.remember(ADA, "Is on holiday.", expires_at=datetime.now(UTC) - timedelta(days=1))
    await long_ago.remember(ADA, "Has a cat.")
    await memory.remember(ADA, "Likes tea.")
    for days, left in ((0, ["Likes tea.", "Has a cat."]), (50, ["Likes tea.", "Has a cat."]), (30, ["Likes tea."])):
        await sweep(lazy, days)
        assert [each.text for each in await memory.browse(ADA, past=True)] == left
    await lazy.aclose()


async def test_it_goes_on_while_memory_is_away_and_ends_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_pruner, "SWEEP_SECONDS", 0.001)
    lazy, looked = memory_by(qdrant_url=NOWHERE), asyncio.Queue[None]()

    async def get() -> None:
        looked.put_nowait(None)
        raise MemoryUnavailableError("away")

    monkeypatch.setattr(lazy, "get", get)
    async with pruning(lazy, 0):
        for _ in range(3):
            await looked.get()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "prune memory"] == []
