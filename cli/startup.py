"""What `nightshift up` says and which agents it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cli import datadir, output
from cli.client import Client
from cli.invocation import command
from cli.settings import Surroundings
from cli.supervisor import Plan, Platform

EXAMPLE = Path("examples") / "analyst" / "agent.py"


def example_agent() -> Path | None:
    """The example agent of the source tree, or None when we were installed without it."""
    path = Path(__file__).parent.parent / EXAMPLE
    return path if path.is_file() else None


def choose_agents(option: str | None, around: Surroundings) -> str:
    """The agents to run: the option, else NIGHTSHIFT_AGENTS, else the example, else none with a hint."""
    if option is not None:
        return option
    if around.agents is not None:
        return around.agents
    example = example_agent()
    if example is None:
        output.say("no agents: name modules or .py files that define some in NIGHTSHIFT_AGENTS or --agents")
    return str(example or "")


async def stay_up(platform: Platform) -> int:
    """Says that the platform is ready, and stays until it is told to stop."""
    async with Client(platform.connection) as client:
        page = await client.get("/v1/agents")
        stopped = [switch["scope"] for switch in (await client.get("/v1/kill_switch"))["data"]]
    agents = [agent["name"] for agent in page["data"] if agent["workers"]]  # earlier ones are published too
    output.line(banner(platform, agents))
    for scope in stopped:
        output.say(f"STOPPED: the kill switch is on; `{command(f'kill-switch off --scope {scope}')}` lets jobs go on")
    await asyncio.Event().wait()
    return 0


def banner(platform: Platform, agents: list[str]) -> str:
    """Where it is, how to get in, which model answers and how to begin."""
    plan = platform.plan
    key = "NIGHTSHIFT_ADMIN_KEY" if plan.around.admin_key else str(plan.data_dir / datadir.ADMIN_KEY)
    option = "" if str(plan.data_dir) == ".nightshift" else f" --data-dir {plan.data_dir}"
    submit = f"submit{option} {agents[0] if agents else 'AGENT'} 'what to do' --file FILE --follow"
    jobs_elsewhere = ", jobs in the Redis of NIGHTSHIFT_REDIS_URL" if plan.around.redis_url else ""
    return "\n".join(
        (
            f"Nightshift is up at {platform.url} (API: {platform.url}/docs)",
            f"  key     {key}",
            f"  data    {plan.data_dir}{jobs_elsewhere}",
            f"  model   {describe_model(plan)}",
            f"  agents  {', '.join(agents) or 'none; name some in NIGHTSHIFT_AGENTS'}",
            f"  submit  {command(submit)}",
            "Ctrl-C stops it.",
        )
    )


def describe_model(plan: Plan) -> str:
    """Which model answers, said plainly when it is the simulated one."""
    around = plan.around
    if plan.simulated:
        why = "NIGHTSHIFT_SIMULATE is set" if around.simulate else "no key in ANTHROPIC_API_KEY"
        return f"SIMULATED MODEL: {why}, answers come from a local stand-in and cost nothing"
    if around.model_base_url:
        return f"the server at {around.model_base_url} (NIGHTSHIFT_MODEL_BASE_URL)"
    return "Anthropic's API with the key in ANTHROPIC_API_KEY; jobs cost money"
