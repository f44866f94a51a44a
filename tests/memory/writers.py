"""`python -m tests.memory.writers URL KEY COLLECTION COUNT KIND`: a process that writes what seven others write too."""

from __future__ import annotations

import asyncio
import json
import sys

from memory.client import connect
from memory.longterm import LongTermMemory
from memory.scope import Scope

ADA = Scope("acme", "ada")


async def main(url: str, key: str, collection: str, count: int, kind: str, name: str) -> None:
    """Remembers `count` facts, the same in every process ("same"), or its own in shared slots ("rival")."""
    memory = LongTermMemory(connect(url, key), collection=collection)
    await memory.open()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(count):
        if kind == "same":
            await memory.remember(ADA, f"Fact number {number} is known to all.")
        else:
            await memory.remember(ADA, f"Writer {name} says {number}.", slot=f"slot.{number}")
    await memory.aclose()
    sys.stdout.write(json.dumps({"done": count}) + "\n")


if __name__ == "__main__":
    url, key, collection, count, kind, name = sys.argv[1:]
    asyncio.run(main(url, key, collection, int(count), kind, name))
