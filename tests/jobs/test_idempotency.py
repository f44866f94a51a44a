from __future__ import annotations

import asyncio

import pytest

from agent_core.types import Budget
from jobs import keys
from jobs.errors import ConflictError, IdempotencyError
from jobs.idempotency import Answer, abandon, begin, keep
from jobs.moves import Idempotency
from jobs.records import JobSpec

ANSWER = Answer(201, {"location": "/x"}, b'{"a": "\xc3\xbc"}')
MARKED = Idempotency("key", "body")


async def test_the_first_request_goes_on_and_later_ones_get_its_answer(link):
    assert await begin(link, "t", MARKED) is None
    await keep(link, "t", MARKED, ANSWER)
    assert await begin(link, "t", MARKED) == ANSWER
    assert await begin(link, "other", MARKED) is None
    assert 86_000 < await link.command("TTL", keys.idempotency("t", "key")) <= 86_400


async def test_of_many_at_once_one_goes_on_and_the_others_are_told_to_wait(link):
    results = await asyncio.gather(*(begin(link, "t", MARKED) for _ in range(50)), return_exceptions=True)
    assert results.count(None) == 1
    refused = [result for result in results if result is not None]
    assert all(isinstance(result, ConflictError) and result.code == "idempotency_in_progress" for result in refused)


async def test_another_body_is_refused_before_and_after_the_answer(link):
    await begin(link, "t", MARKED)
    for _ in range(2):
        with pytest.raises(IdempotencyError):
            await begin(link, "t", Idempotency("key", "other"))
        await keep(link, "t", MARKED, ANSWER)


async def test_a_request_that_came_to_nothing_may_be_sent_again(link):
    await begin(link, "t", MARKED)
    await abandon(link, "t", MARKED)
    assert await begin(link, "t", Idempotency("key", "other")) is None


async def test_a_key_is_taken_for_submissions_and_for_other_requests_alike(link, store):
    spec = JobSpec(agent="a", input="x")
    await store.submit("t", spec, Budget(), idempotency=Idempotency("of a job", "f"))
    with pytest.raises(IdempotencyError):
        await begin(link, "t", Idempotency("of a job", "other"))
    await begin(link, "t", MARKED)
    with pytest.raises(IdempotencyError):
        await store.submit("t", spec, Budget(), idempotency=Idempotency("key", "f"))
    assert await link.command("ZCARD", keys.all_jobs("t")) == 1


async def test_an_earlier_submission_is_found_by_its_key(store):
    marked = Idempotency("k", "f")
    assert await store.earlier("t", marked) is None
    first = await store.submit("t", JobSpec(agent="a", input="x"), Budget(), idempotency=marked)
    found = await store.earlier("t", marked)
    assert found is not None
    assert found.replayed
    assert found.job.id == first.job.id
    with pytest.raises(IdempotencyError):
        await store.earlier("t", Idempotency("k", "other"))
