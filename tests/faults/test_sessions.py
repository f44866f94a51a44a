"""Workers that die while a session is summed up or written: no message is lost, and none is there twice."""

from __future__ import annotations

from agent_core.messages import text_of
from jobs.audit import audit
from memory.session import SessionMemory, SessionScope
from tests.faults.rig import Rig, killed
from tests.integration.harness import TENANT, says

FACTS = [f"FACT {number}: number {number} is {number * 7919}" for number in range(12)]
POINTS = (
    "before_reserve",
    "after_reserve",
    "after_settle",
    "before_session_append",
    "after_session_append",
    "before_end",
)


async def test_a_session_outlives_the_workers_that_sum_it_up_and_write_it(rig: Rig, report) -> None:
    scope, memory, kills = SessionScope(TENANT, "talk"), SessionMemory(rig.link), 0
    for number, fact in enumerate(FACTS):
        order = f"order-{number}"
        told = says(f"answer {number}\n{fact}\n{'and so on, ' * 100}")
        rig.ids[order] = await rig.client.submit(order, told, agent="quick_reader", session_id="talk")
        await killed([rig.start_worker(f"{POINTS[number % len(POINTS)]}=kill@1", concurrency=1)])
        kills += 1
        survivor = rig.start_worker()
        job = await rig.client.watch(order, rig.ids[order])
        assert job["status"] == "completed", job
        survivor.kill()
        rig.processes.workers.clear()

    found = await memory.read(scope)
    texts = [text_of(message) for message in found.messages]
    assert found.length == 2 * len(FACTS)
    assert found.generation >= 2
    assert [fact for fact in FACTS if fact in "\n".join(texts)] == FACTS
    answers = [text.partition("\n")[0] for text in texts if text.startswith("answer ")]
    assert answers == [f"answer {number}" for number in range(len(FACTS))][-len(answers) :]
    books = await audit(rig.link, TENANT)
    assert books.exact, books.differences
    report("a session over dying workers", kills=kills, summaries=found.generation, facts=len(FACTS), duplicates=0)
