"""Workers that die while a session is summed up or written: no message is lost, and none is there twice."""

from __future__ import annotations

from agent_core.messages import text_of
from agent_core.types import Json
from jobs.audit import audit
from memory.session import SessionMemory, SessionScope
from tests.faults.rig import Rig, killed
from tests.integration.harness import TENANT, says

FACTS = [f"FACT {number}: number {number} is {number * 7919}" for number in range(20)]
LONG: list[Json] = [
    {"role": role, "content": f"{fact}\n{'and so on, ' * 40}"} for fact in FACTS for role in ("user", "assistant")
]
POINTS = ("after_reserve", "after_settle", "before_session_append", "after_session_append", "before_end")


async def test_sessions_outlive_the_workers_that_sum_them_up_and_write_them(rig: Rig, report) -> None:
    memory, orders = SessionMemory(rig.link), [f"order-{number}" for number in range(len(POINTS))]
    for order in orders:
        assert await memory.append(SessionScope(TENANT, order), 0, LONG)
        answer = says(f"the answer to {order}")
        rig.ids[order] = await rig.client.submit(order, answer, agent="quick_reader", session_id=order)
    await killed([rig.start_worker(f"{point}=kill@1", concurrency=1) for point in POINTS])
    rig.start_worker()
    for order in orders:
        job = await rig.client.watch(order, rig.ids[order])
        assert job["status"] == "completed", job
        found = await memory.read(SessionScope(TENANT, order))
        texts = [text_of(message) for message in found.messages]
        assert (found.length, len(texts)) == (len(LONG) + 2, found.length - found.base)
        assert found.generation > 0
        assert all(any(fact in text for text in texts) for fact in FACTS)
        assert texts[-1] == f"the answer to {order}"
        assert texts[1:-2] == [message["content"] for message in LONG[found.base + 1 :]]
    books = await audit(rig.link, TENANT)
    assert books.exact, books.differences
    report("a session over dying workers", kills=len(POINTS), facts_lost=0, messages_twice=0)
