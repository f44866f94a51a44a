"""The plainest submit: a FastAPI route that validates a body and does one XADD, on the API's server settings."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis


class Submission(BaseModel):
    agent: str
    input: str


def serve(redis_url: str, port: int) -> None:
    """Serves POST /jobs until SIGTERM."""
    app = FastAPI()
    redis = Redis.from_url(redis_url)

    @app.post("/jobs", status_code=202)
    async def submit(submission: Submission) -> dict[str, bytes | str]:
        entry = await redis.xadd("bare", {"agent": submission.agent, "input": submission.input})
        return {"id": entry}

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
