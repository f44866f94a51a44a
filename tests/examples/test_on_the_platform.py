"""The agents of examples/ on one platform of real processes, with the simulated model."""

from __future__ import annotations

import io
import secrets
import sqlite3
import sys
import unittest
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agent_core.sandbox import Sandbox
from cli.client import Client
from cli.settings import Connection
from tests.cli.harness import ROOT, Up

Json = dict[str, Any]
AGENTS = ("code_fixer", "research", "support_desk")
EXAMPLES = ROOT / "examples"
DOCUMENTS = sorted((EXAMPLES / "research" / "documents").glob("*.md"))
PROJECT = sorted((EXAMPLES / "code_fixer" / "project").glob("*.py"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("examples")
    agents = ",".join(str(EXAMPLES / name / "agent.py") for name in AGENTS)
    up = Up(folder / "data", "--agents", agents, SUPPORT_DESK_DATABASE=str(folder / "shop" / "orders.db"))
    try:
        up.wait_until_up()
        yield up
    finally:
        up.close()


@pytest.fixture
async def client(up: Up) -> AsyncIterator[Client]:
    async with Client(Connection(up.url, up.key, "the test")) as client:
        yield client


class Done:
    """A job that has ended, and its events."""

    def __init__(self, job: Json, seen: list[Json]) -> None:
        self.id, self.output, self.job = job["id"], job["output"], job
        self.seen = seen

    def data(self, type_: str) -> list[Json]:
        return [event["data"] for event in self.seen if event["type"] == type_]

    def called(self) -> list[str]:
        return [call["name"] for call in self.data("tool.requested")]


async def run(
    client: Client, agent: str, text: str, *, files: list[Path] | None = None, ruling: Json | None = None, **more: Any
) -> Done:
    """Runs a job to its end; `ruling` is decided about each call and question that waits for a person."""
    uploaded = [(await client.upload(path))["id"] for path in files or []]
    job = await client.post("/v1/jobs", {"agent": agent, "input": text, "files": uploaded, **more})
    seen = []
    async with aclosing(client.events(job["id"])) as stream:
        async for event in stream:
            seen.append(event)
            if event["type"] == "approval.requested":
                assert ruling is not None, event
                await client.post(f"/v1/approvals/{event['data']['approval_id']}/decide", ruling)
    done = await client.get(f"/v1/jobs/{job['id']}")
    assert done["status"] == "completed", done
    return Done(done, seen)


# ---- research


async def test_research_reads_each_document_by_a_job_of_its_own_and_cites_what_stands_there(client: Client) -> None:
    question = "Why is the ferry Alma late so often, what would a repair cost, and is there money for it?"
    done = await run(client, "research", question, files=DOCUMENTS)
    children = [await client.get(f"/v1/jobs/{started['job_id']}") for started in done.data("child.started")]
    assert {child["agent"] for child in children} == {"reader"}
    read = {child["input"].rpartition("Document: ")[2] for child in children}
    assert read == {path.name for path in DOCUMENTS} - {"staff_newsletter.md"}
    cited = [citation for finding in done.output["findings"] for citation in finding["citations"]]
    assert {citation["file"] for citation in cited} == read
    lines = {path.name: path.read_text().splitlines() for path in DOCUMENTS}
    for citation in cited:
        assert citation["quote"] in lines[citation["file"]][citation["line"] - 1]
    for fact in ("starboard engine", "18,400 euros", "22,000 euros"):
        assert fact in str(cited)


async def test_research_says_so_when_the_documents_say_nothing(client: Client) -> None:
    done = await run(client, "research", "Which volcanoes erupted?", files=DOCUMENTS)
    assert (done.output["findings"], done.called()) == ([], ["search_files"])
    assert "say nothing" in done.output["answer"]


# ---- code fixer


def passes(folder: Path) -> bool:
    """Whether the project in a folder passes its tests, run as any user would."""
    found = set(sys.modules)
    path, written = [*sys.path], sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        return unittest.TextTestRunner(io.StringIO()).run(unittest.TestLoader().discover(str(folder))).wasSuccessful()
    finally:
        sys.path[:], sys.dont_write_bytecode = path, written
        for name in set(sys.modules) - found:
            del sys.modules[name]


async def test_the_code_fixer_is_done_when_its_validator_has_seen_the_tests_pass(
    client: Client, tmp_path: Path
) -> None:
    if why := await Sandbox().available():
        pytest.skip(why)
    done = await run(client, "code_fixer", "The tests of this project fail. Mend the code.", files=PROJECT)
    phases = [change["state"] for change in done.data("state.changed")]
    assert phases == ["planning", "executing", "validating"] * 2, "the first mending left a fault to the validator"
    last = max(i for i, event in enumerate(done.seen) if event["type"] == "state.changed")
    run_last = [event["data"] for event in done.seen[last:] if event["type"] == "tool.completed"]
    assert [(ran["name"], "exit status 0" in ran["content"]) for ran in run_last] == [("run_python", True)]
    artifacts = (await client.get(f"/v1/jobs/{done.id}/artifacts"))["data"]
    assert [artifact["name"] for artifact in artifacts] == ["basket.py"]
    for path in PROJECT:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert not passes(tmp_path)
    await client.download(artifacts[0]["id"], tmp_path / "basket.py")
    assert passes(tmp_path)


# ---- support desk


def refunds(up: Up) -> list[tuple[str, int]]:
    with sqlite3.connect(up.data_dir.parent / "shop" / "orders.db") as store:
        found = store.execute("SELECT order_id, cents FROM refunds ORDER BY order_id").fetchall()
    store.close()
    return found


async def test_the_support_desk_asks_a_person_before_it_pays_much_and_knows_the_conversation(
    client: Client, up: Up
) -> None:
    session = secrets.token_hex(4)
    text = "The chair of order A-1077 squeaks. I want my money back."
    denied = await run(
        client,
        "support_desk",
        text,
        session_id=session,
        ruling={"decision": "deny", "reason": "we send a new one"},
    )
    assert "we send a new one" in denied.output
    assert refunds(up) == []
    paid = await run(client, "support_desk", text, session_id=session, ruling={"decision": "approve"})
    assert "paid back $215.00" in paid.output
    assert refunds(up) == [("A-1077", 21_500)]
    known = await run(client, "support_desk", "How much was that again?", session_id=session)
    assert "A-1077" in known.output
    assert "$215.00 of it" in known.output
    stranger = await run(client, "support_desk", "How much was that again?")
    assert "Which order is it about?" in stranger.output


async def test_the_support_desk_leaves_to_a_person_what_the_rules_do_not_cover(client: Client, up: Up) -> None:
    text = "May I still return the lamp of order A-0987?"
    before = refunds(up)
    refused = await run(client, "support_desk", text, ruling={"decision": "approve", "answer": "no"})
    assert refused.called() == ["lookup_order"]
    assert "I am sorry" in refused.output
    assert refunds(up) == before
    granted = await run(client, "support_desk", text, ruling={"decision": "approve", "answer": "yes, as an exception"})
    assert [asked["name"] for asked in granted.data("approval.requested")] == ["ask_human"], "$45 need no approval"
    assert refunds(up) == [("A-0987", 4_500), *before]
