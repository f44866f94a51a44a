"""Says that a price was not paid."""

from __future__ import annotations

from collections.abc import Sequence

from cli import output
from cli.client import Client, Json

NOTE = "the workers that are live ask a SIMULATED MODEL: what they run costs nothing, and is shown at list price"


async def say_if_simulated(client: Client, jobs: Sequence[Json]) -> None:
    """Adds to costs that were shown that workers of these jobs' agents ask the simulated model.

    It is what can be known: a job does not say who ran it, and an earlier worker may have asked a real model.
    """
    agents = {job["agent"] for job in jobs}
    page = await client.get("/v1/agents")
    if any(agent["simulated"] for agent in page["data"] if agent["name"] in agents):
        output.say(NOTE)
