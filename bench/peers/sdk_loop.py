"""The floor: an agent loop over the bare SDK, with no queue, no journal and no limits. It dies with its process."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from typing import Any

import uvloop
from anthropic import AsyncAnthropic, DefaultAioHttpClient

from bench.agents import INSTRUCTIONS, MAX_TOKENS, MODEL, lookup_order

TOOLS: Any = [lookup_order.to_json()]


async def run_job(client: AsyncAnthropic, text: str, stream: bool) -> int:
    """One job to its end; how many model calls it took."""
    messages: list[Any] = [{"role": "user", "content": text}]
    calls = 0
    while True:
        request: dict[str, Any] = {
            "model": MODEL, "max_tokens": MAX_TOKENS, "system": INSTRUCTIONS, "messages": messages, "tools": TOOLS,
        }  # fmt: skip
        if stream:
            async with client.messages.stream(**request) as events:
                reply = await events.get_final_message()
        else:
            reply = await client.messages.create(**request)
        calls += 1
        if reply.stop_reason != "tool_use":
            return calls
        messages.append({"role": "assistant", "content": reply.content})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": block.id,
                "content": json.dumps(await lookup_order.function(**block.input)),
            }
            for block in reply.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


async def measure(args: argparse.Namespace) -> dict[str, float]:
    """Runs all jobs, `in_flight` at once: seconds, CPU seconds and model calls."""
    http = DefaultAioHttpClient() if args.client == "aiohttp" else None
    client = AsyncAnthropic(api_key="none", base_url=args.url, max_retries=0, http_client=http)
    slots = asyncio.Semaphore(args.in_flight)

    async def one() -> int:
        async with slots:
            return await run_job(client, args.text, args.stream)

    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    calls = sum(await asyncio.gather(*(one() for _ in range(args.jobs))))
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    await client.close()
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "calls": calls}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--client", choices=["httpx", "aiohttp"], default="httpx")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    run = uvloop.run if args.uvloop else asyncio.run
    print(json.dumps(run(measure(args))))


if __name__ == "__main__":
    main()
