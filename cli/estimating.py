"""What `nightshift submit --dry-run` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import billing, output, running
from cli.client import Client, Json

MEANINGS = {
    "p50_usd": ("p50", "half of such jobs cost no more"),
    "p90_usd": ("p90", "nine in ten cost no more"),
    "worst_case_usd": ("worst case", "it cannot cost more"),
}


async def dry_run(client: Client, body: Json, files: Sequence[Path], *, as_json: bool) -> int:
    """Uploads the files, because their size counts, and prints what the submission would cost; the exit status."""
    estimate = await client.post("/v1/jobs/estimate", await running.with_files(client, body, files))
    if as_json:
        output.print_json(estimate)
        return 0
    print_estimate(estimate)
    await billing.say_if_simulated(client, [estimate])
    return 0


def print_estimate(estimate: Json) -> None:
    """The amounts, and how they are known."""
    for field, (name, meaning) in MEANINGS.items():
        amount = estimate[field]
        output.print_fields([(name, "unknown" if amount is None else f"${amount}, {meaning}")])
    output.print_fields([("known by", estimate["based_on"]["detail"])])
