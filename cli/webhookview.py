"""How webhook endpoints and their deliveries look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli import output

Json = dict[str, Any]


def print_endpoints(endpoints: Sequence[Json]) -> None:
    """The table of `nightshift webhooks`."""
    rows = [(one["id"], one["url"], ", ".join(one["events"] or ["a job's life"]), _state(one)) for one in endpoints]
    output.print_table(("endpoint", "url", "events", "state"), rows)


def print_deliveries(deliveries: Sequence[Json]) -> None:
    """The table of `nightshift webhooks deliveries`."""
    rows = [
        (one["id"], one["type"], one["job_id"], one["status"], len(one["tries"]), _answer(one), one["created_at"])
        for one in deliveries
    ]
    output.print_table(("delivery", "event", "job", "status", "tries", "last answer", "written"), rows)


def print_test(delivery: Json) -> None:
    """What came of a test."""
    if not delivery["tries"]:
        output.line("not sent yet: no worker has come to it")
        return
    output.line(f"{'delivered' if delivery['status'] == 'delivered' else 'not delivered'}: {_answer(delivery)}")


def _state(endpoint: Json) -> str:
    if not endpoint["enabled"]:
        return f"disabled ({endpoint['disabled_reason']})"
    return f"failing since {endpoint['failing_since']}" if endpoint["failing_since"] else "enabled"


def _answer(delivery: Json) -> str:
    if not delivery["tries"]:
        return ""
    last = delivery["tries"][-1]
    what = last["error"] or f"answered {last['status']} after {last['seconds']:.3f} s"
    return output.one_line(what, 120)
