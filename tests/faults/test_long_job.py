"""A job of many more words than its model has room for, and workers that die under it: nothing early is forgotten."""

from __future__ import annotations

import pytest

from jobs.audit import audit
from tests.faults.agents import FACTS
from tests.faults.rig import Rig
from tests.integration.harness import TENANT, WorkerProcess, calls, eventually, says

PLANTED = [f"FACT {page}: number {page} is {page * 7919}" for page in range(1, FACTS + 1)]


@pytest.mark.parametrize(
    ("agent", "window", "steps", "kills"),
    [
        ("quick_reader", 6_000, 40, 1),
        pytest.param("reader", 40_000, 300, 3, marks=[pytest.mark.chaos, pytest.mark.timeout(600)]),
    ],
)
async def test_a_conversation_longer_than_the_window_keeps_what_was_learned_early(
    rig: Rig, report, agent: str, window: int, steps: int, kills: int
) -> None:
    pages = [calls("read_page", folder=str(rig.folder), page=page) for page in range(1, steps)]
    rig.ids["book"] = await rig.client.submit("book", *pages, says("I learned:\n{{facts}}"), agent=agent)
    for number in range(1, kills + 1):
        worker = rig.start_worker()
        await read_so_far(rig, worker, number * steps // (kills + 1))
        worker.kill()
    rig.start_worker()

    job = await rig.client.watch("book", rig.ids["book"])
    assert job["status"] == "completed", job
    assert job["output"].splitlines() == ["I learned:", *PLANTED]
    books = await audit(rig.link, TENANT)
    assert books.exact, books.differences

    lines = await rig.store.lines(rig.ids["book"])
    turns = [line.data for line in lines if line.type == "model.completed" and line.data["role"] == "executor"]
    assert [turn["step"] for turn in turns] == list(range(1, steps + 1))
    assert list(dict.fromkeys(pages_read(rig))) == [str(page) for page in range(1, steps)]
    summaries = [line for line in lines if line.type == "context.compacted"]
    prompts = [tokens_of(turn["usage"]) for turn in turns]
    assert len(summaries) > 1
    assert not [line for line in lines if line.type == "context.cleared"]
    assert (
        max(prompts)
        < window
        < sum(tokens_of(turn["usage"], "output_tokens") for turn in turns)
        + sum(len(line.data["content"]) // 4 for line in lines if line.type == "tool.completed")
    )
    report(f"{steps} steps in {window:,} tokens", summaries=len(summaries), largest_prompt=max(prompts), kills=kills)


async def read_so_far(rig: Rig, worker: WorkerProcess, pages: int) -> None:
    """Returns once so many pages were read."""
    await eventually(lambda: len(pages_read(rig)) >= pages, lambda: f"{pages} pages{worker.tail()}", within=45)


def pages_read(rig: Rig) -> list[str]:
    path = rig.folder / "pages"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


def tokens_of(usage, *names: str) -> int:
    """Tokens of a reply's usage, by default those of its prompt."""
    prompt = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(name) or 0 for name in names or prompt)
