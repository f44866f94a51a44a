"""Long-term memory by itself: fills it with points of many users, asks it questions one by one, or re-embeds it."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from qdrant_client import models

from agent_core.types import Json
from bench.report import percentile
from bench.stack import TENANT
from memory import bm25
from memory.client import connect
from memory.embedding.port import Embedder, Purpose, Vectors
from memory.ids import point_id
from memory.longterm import LongTermMemory
from memory.points import Memory
from memory.scope import Scope

USERS = 20
SIZE = 384
AT_ONCE = 500
WARM_UP = 20
WORDS = [f"{a}{b}" for a in ("river", "stone", "night", "paper", "silver", "garden") for b in range(50)]


class RandomModel:
    """Vectors of the usual size that say nothing, at once: what is measured is not the embedder."""

    size = SIZE
    most_texts = AT_ONCE

    def __init__(self, name: str = "random") -> None:
        self.name = name

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        return Vectors([vector(random.Random(text)) for text in texts])

    async def aclose(self) -> None:
        return None


def vector(rng: random.Random) -> list[float]:
    return [rng.random() - 0.5 for _ in range(SIZE)]


def sentence(number: int) -> str:
    chosen = random.Random(number)
    return f"Note {number}: " + " ".join(chosen.choice(WORDS) for _ in range(12))


def scope(number: int) -> Scope:
    return Scope(TENANT, f"user-{number % USERS}")


async def fill(memory: LongTermMemory, first: int, points: int) -> Json:
    """Adds points in batches, which `remember` does not: that is one at a time."""
    await memory.open()
    begun = time.perf_counter()
    now = memory._now()
    rng = random.Random(first)
    for start in range(first, first + points, AT_ONCE):
        structs = []
        for number in range(start, min(start + AT_ONCE, first + points)):
            made = Memory.new(scope(number), sentence(number), now)
            vectors: Any = {"text": bm25.of_document(made.text), "random": vector(rng)}
            structs.append(models.PointStruct(id=point_id(made.id), vector=vectors, payload=made.to_payload()))
        upsert = models.UpsertOperation(upsert=models.PointsList(points=structs))
        await memory.store.apply(upsert)
    return {"points": points, "seconds": time.perf_counter() - begun}


async def ask(memory: LongTermMemory, questions: int, seed: int) -> Json:
    """One recall after another; the milliseconds that each took, without the first."""
    rng = random.Random(seed)
    asked = [" ".join(rng.choice(WORDS) for _ in range(6)) for _ in range(questions + WARM_UP)]
    embedder = memory.store.embedder
    assert embedder is not None
    await embedder.embed(asked, "query")  # cached from now on
    taken = []
    for number, text in enumerate(asked):
        begun = time.perf_counter()
        await memory.recall(scope(number), text)
        taken.append(1000 * (time.perf_counter() - begun))
    taken = taken[WARM_UP:]
    return {"p50": percentile(taken, 0.5), "p95": percentile(taken, 0.95)}


async def reembed(memory: LongTermMemory) -> Json:
    """Gives every point a vector of another embedder, and takes it away again."""
    await memory.open()
    begun = time.perf_counter()
    done = {"points": await memory.store.reembed(), "seconds": time.perf_counter() - begun}
    await memory.store.drop_embedder("another")
    return done


async def run(url: str, key: str, do: str, first: int, count: int) -> Json:
    model = RandomModel("another" if do == "reembed" else "random")
    memory = LongTermMemory(connect(url, key, timeout=60), Embedder(model))
    try:
        match do:
            case "fill":
                return await fill(memory, first, count)
            case "ask":
                return await ask(memory, count, first)
            case _:
                return await reembed(memory)
    finally:
        await memory.aclose()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--do", choices=("fill", "ask", "reembed"), required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    args = parser.parse_args()
    key = args.key_file.read_text(encoding="ascii")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(args.url, key, args.do, args.first, args.count))))


if __name__ == "__main__":
    main()
