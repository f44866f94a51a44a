"""The function that a ticket names."""

from __future__ import annotations


def run_job(job_id: str) -> None:
    """Refuses: jobs run as coroutines of `nightshift worker`. A stock RQ worker that takes a ticket ends up here."""
    raise RuntimeError(
        f"{job_id} is a Nightshift job; stop this RQ worker, which cannot run it, and start `nightshift worker`"
    )
