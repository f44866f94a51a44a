"""What the agents of examples/ do in special cases, run without a platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent_core import ClaudeModel, run_agent
from agent_core.agent import Agent
from agent_core.approvals import Policy
from agent_core.outcomes import Completed, Suspended
from agent_core.sandbox import box
from agent_core.standalone import Result
from agent_core.testing import ScriptedModel, calls, says
from examples.code_fixer.agent import code_fixer
from examples.support_desk.agent import is_large, support_desk
from simulator.server import create_app

PROJECT = Path(__file__).parents[2] / "examples" / "code_fixer" / "project"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where a simulated model answers."""
    runner = web.AppRunner(create_app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def ask(agent: Agent, text: str, url: str, workspace: Path) -> Result:
    async with aclosing(ClaudeModel.connect(api_key="any", base_url=url)) as model:
        return await run_agent(agent, text, model=model, workspace=workspace)


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(box, "PLACES", str(tmp_path / "nowhere"))


@pytest.mark.usefixtures("no_sandbox")
async def test_without_a_sandbox_the_code_fixer_says_that_nothing_was_run_and_ends_well(
    url: str, tmp_path: Path
) -> None:
    for path in PROJECT.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    result = await ask(code_fixer, "The tests of this project fail. Mend the code.", url, tmp_path)
    assert isinstance(result.outcome, Completed)
    assert result.outcome.output.startswith("THE TESTS WERE NOT RUN, this goes by reading alone")
    assert "bubblewrap" in result.outcome.output
    mended: dict[str, Any] = {}
    exec(compile((tmp_path / "basket.py").read_text(), "basket.py", "exec"), mended)
    assert (mended["discount"](10_000), mended["split"](1_000, 3)) == (1_000, [334, 333, 333])


@pytest.mark.parametrize(("amount", "waits"), [("100.00", False), ("100.01", True), ("999999.99", True)])
async def test_a_refund_above_the_limit_waits_for_a_person(
    amount: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPPORT_DESK_DATABASE", str(tmp_path / "orders.db"))
    asked = {"order_id": "A-1042", "amount": amount, "reason": "a test"}
    model = ScriptedModel([calls(("refund", asked)), says("Done.")])
    result = await run_agent(support_desk, "Pay me back.", model=model, approver=Policy(support_desk))
    assert isinstance(result.outcome, Suspended) is waits
    assert is_large(asked) is waits


async def test_no_more_is_paid_back_than_an_order_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPPORT_DESK_DATABASE", str(tmp_path / "orders.db"))
    once = ("refund", {"order_id": "A-0987", "amount": "30.00", "reason": "a test"})
    model = ScriptedModel([calls(once), calls(once), says("Done.")])
    result = await run_agent(support_desk, "Pay me back, twice.", model=model, approver=Policy(support_desk))
    contents = [message["content"] for message in result.state.messages if message["role"] == "user"]
    first, second = (blocks[0] for blocks in contents if isinstance(blocks, list))
    assert not first.get("is_error")
    assert second["is_error"]
    assert "15.00 can be paid back, not 30.00" in second["content"]
