"""A job that a limit pauses while someone raises that limit."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.testing import says
from jobs.budgets import Budgets, ScopeBudget
from tests.worker.conftest import TENANT, Bench


async def test_a_limit_that_is_raised_between_its_refusal_and_the_hold_holds_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets, move = Budgets(bench.store), bench.store.move
    await budgets.put(TENANT, ScopeBudget("tenant", "total", 10, None, "pause"))

    async def raised_first(job: Any, action: str, *rest: Any, **options: Any) -> Any:
        if action == "hold":
            await budgets.put(TENANT, ScopeBudget("tenant", "total", 1_000_000, None, "pause"))
        return await move(job, action, *rest, **options)

    monkeypatch.setattr(bench.store, "move", raised_first)
    await bench.submit()
    assert (await bench.run([])).status == "queued"
    assert (await bench.run([says("done")])).status == "completed"
