"""How the measurements speak to the platform from outside: submits under load, and single requests."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from bench.agents import bench
from bench.process import BenchError, run_peer
from bench.stack import Stack

CONNECTIONS = 32


def script(turns: int) -> str:
    """An input that makes the simulated model call the tool in each of `turns` but the last, which answers."""
    calls: list[dict[str, Any]] = [
        {"tool": "lookup_order", "input": {"order_id": f"A-{1042 + n}"}} for n in range(turns - 1)
    ]
    return f"#sim {json.dumps({'turns': [*calls, {'text': 'The orders are shipped.'}]})}"


def submit_many(stack: Stack, api_url: str, jobs: int, text: str) -> dict[str, Any]:
    """Single submits over keep-alive connections by the load generator; its figures. Raises BenchError."""
    body = json.dumps({"agent": bench.name, "input": text})
    return load(f"{api_url}/v1/jobs", body, jobs, f"Authorization: Bearer {stack.key}")


def load(url: str, body: str, requests: int, *headers: str) -> dict[str, Any]:
    """POSTs the same body so many times. Raises BenchError when an answer is not 202."""
    given = [word for header in headers for word in ("--header", header)]
    answer = run_peer(
        "bench.peers.load", "--url", url, "--body", body, "--requests", requests, "--connections", CONNECTIONS, *given
    )
    if answer["statuses"] != {"202": requests}:
        raise BenchError(f"POST {url}: of {requests} requests the answers by status were {answer['statuses']}")
    return answer


def client(stack: Stack, url: str) -> httpx2.Client:
    """A client of the API, or of the simulated model, that keeps its connection."""
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=30)
