"""Recall from long-term memory on the embedded server, by several processes at once, over few and over many points."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.process import run_peer
from bench.report import Goal, Section
from bench.stack import Stack

FEW, MANY = 10_000, 100_000
ASKED = 400
PROCESSES = 4


def measure(stack: Stack, scale: float) -> Section:
    """BM25, similarity over vectors of 384 numbers, and recency, in one request of `recall`."""
    few, many, asked = int(FEW * scale), int(MANY * scale), int(ASKED * scale)
    section = Section(
        "memory",
        f"One `recall` with BM25, similarity (384 numbers, from the cache) and recency, of one of 20 users, through "
        f"HTTP to the embedded memory; {asked} of each process. The ratio is that of {PROCESSES} processes at once to "
        "one alone.",
    )
    url, key = stack.memory()
    there = 0
    for points in (few, many):
        peer(url, key, "fill", there, points - there)
        there = points
        alone = peer(url, key, "ask", 0, asked)
        with ThreadPoolExecutor(PROCESSES) as pool:
            found = list(pool.map(lambda seed: peer(url, key, "ask", seed, asked), range(1, PROCESSES + 1)))
        p95 = max(each["p95"] for each in found)
        goal = Goal("<=", 30) if points == few else None
        section.add(f"recall, {points:,} points, {PROCESSES} processes, p95 of the slowest", p95, "ms", goal)
        section.add(f"against one process, {points:,} points", p95 / alone["p95"], "×")
        section.add(f"recall, {points:,} points, one process, p50", alone["p50"], "ms")
        section.add(f"recall, {points:,} points, one process, p95", alone["p95"], "ms")
        if points == few:
            changed = peer(url, key, "reembed", 0, few)
            section.add(f"a change of the embedder, {changed['points']:,} points", changed["seconds"], "s")
    return section


def peer(url: str, key: Path, do: str, first: int, count: int) -> dict[str, Any]:
    """Fills the memory with points, or asks it questions; `first` is the number of the first point, or a seed."""
    words = ("--url", url, "--key-file", key, "--do", do, "--first", first, "--count", count)
    return run_peer("bench.peers.recalls", *words, seconds=600)
