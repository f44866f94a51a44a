"""A client that does not give up: it tries again with the same idempotency key until it is answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_core.types import Json
from jobs.status import ENDED
from tests.faults.history import History

KEY = "ns_key-of-the-fault-suite"
RETRY_SECONDS = 0.05
MOST_TRIES = 2_000
STOPS = ENDED | {"requires_action"}


class Client:
    """Submits orders and watches their jobs over HTTP; every try and every answer goes into the history."""

    def __init__(self, url: str, history: History, log: Path) -> None:
        self.history = history
        self._log = log
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=10,
            limits=httpx2.Limits(max_connections=50),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(self, order: str, *turns: Json, **body: Any) -> str:
        """Submits a job that plays these turns until it is accepted; its id."""
        script = f"#sim {json.dumps({'turns': turns, 'key': order})}"
        for _ in range(MOST_TRIES):
            self.history.write("submit", order)
            answer = await self._ask("POST", "/v1/jobs", {"agent": "payer", "input": script, **body}, order)
            if answer is not None:
                assert answer.status_code == 202, answer.text
                job_id: str = answer.json()["id"]
                self.history.write("ack", order, job=job_id)
                return job_id
            await asyncio.sleep(RETRY_SECONDS)
        pytest.fail(f"{order} was never accepted")

    async def watch(self, order: str, job_id: str) -> Json:
        """The job once it has ended or waits for a person; every status on the way is written down."""
        for _ in range(MOST_TRIES):
            answer = await self._ask("GET", f"/v1/jobs/{job_id}?wait=5")
            if answer is not None:
                assert answer.status_code == 200, answer.text
                job: Json = answer.json()
                self.history.write("saw", order, job=job_id, status=job["status"])
                if job["status"] in STOPS:
                    return job
            else:
                await asyncio.sleep(RETRY_SECONDS)
        pytest.fail(f"{order} ({job_id}) never ended")

    async def post(self, path: str, body: Json) -> Json:
        """Sends something until it is answered."""
        return await self.send("POST", path, body)

    async def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Asks for something until it is answered."""
        for _ in range(MOST_TRIES):
            answer = await self._ask(method, path, body)
            if answer is not None:
                assert answer.status_code < 300, answer.text
                found: Json = answer.json()
                return found
            await asyncio.sleep(RETRY_SECONDS)
        pytest.fail(f"{path} was never answered")

    async def refusal(self, path: str, body: Json) -> Json:
        """The problem with which something is refused."""
        answer = await self._http.post(path, json=body)
        assert answer.status_code >= 400, answer.text
        problem: Json = answer.json()
        return problem

    async def status(self, method: str, path: str, body: Json) -> int:
        """The status of an answer."""
        for _ in range(MOST_TRIES):
            if (answer := await self._ask(method, path, body)) is not None:
                return answer.status_code
            await asyncio.sleep(RETRY_SECONDS)
        pytest.fail(f"{path} was never answered")

    async def hang_up(self, path: str, body: Json, *, after: float) -> None:
        """Sends something and closes the connection after so many seconds, answered or not."""
        for _ in range(MOST_TRIES):
            try:
                await self._http.post(path, json=body, timeout=httpx2.Timeout(10, read=after))
            except httpx2.ReadTimeout:
                return
            except httpx2.ConnectError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def tagged(self, tag: str) -> str | None:
        """The id of the newest job with a tag, if there is one."""
        answer = await self._ask("GET", f"/v1/jobs?tag={tag}")
        found = answer.json()["data"] if answer is not None else []
        return found[0]["id"] if found else None

    async def _ask(self, method: str, path: str, body: Json | None = None, key: str = "") -> httpx2.Response | None:
        """The answer; None when there is none, or the platform asks for another try."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError:
            return None
        if answer.status_code == 500:
            pytest.fail(f"{method} {path} answered 500: {self._log.read_text()[-5000:]}")
        return None if answer.status_code == 503 else answer
