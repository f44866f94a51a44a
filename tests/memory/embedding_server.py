"""A server with OpenAI's `/v1/embeddings` that answers as told, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class EmbeddingServer:
    """Vectors of two numbers, 7 tokens a call."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[dict, str | None]] = []
        self.status = 200
        self.answer: object = None
        self.asking = asyncio.Event()
        """Set by each request."""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((body, request.headers.get("Authorization")))
        self.asking.set()
        await self.may_answer.wait()
        rows = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(body["input"])]
        sound = {"data": rows[::-1], "usage": {"total_tokens": 7}}
        text = json.dumps(sound if self.answer is None else self.answer)
        return web.Response(text=text, status=self.status, content_type="application/json")


@asynccontextmanager
async def embedding_server() -> AsyncIterator[EmbeddingServer]:
    """One on a free port of loopback."""
    made = EmbeddingServer()
    app = web.Application()
    app.router.add_post("/v1/embeddings", made.embed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield made
    finally:
        made.may_answer.set()
        await runner.cleanup()
