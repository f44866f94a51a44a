"""A step costs the same however many came before it, and however long the session is."""

from __future__ import annotations

import pytest

from bench.measures.storage import EARLY, LATE, RESULT_CHARS, STEPS, growth, sizes_by_step


@pytest.mark.timeout(120)
async def test_bytes_of_a_step_are_flat_on_a_long_history(redis_url: str) -> None:
    sizes = await sizes_by_step(redis_url)
    assert len(sizes) == STEPS + 1
    early, late = growth(sizes, EARLY), growth(sizes, LATE)
    assert 0.8 < late / early < 1.2
    assert RESULT_CHARS < late < 2 * RESULT_CHARS
    assert sizes[0] < 10_000  # the session is not copied into the job
