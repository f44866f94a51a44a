"""How well recall finds things: 200 facts and 60 questions, written for it, before its figures were known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from memory.longterm import LongTermMemory
from memory.scope import Scope

GRADED = json.loads((Path(__file__).parent / "graded.json").read_text(encoding="utf-8"))
ADA = Scope("acme", "ada")


async def hits(memory: LongTermMemory, at: int) -> Counter[str]:
    """How many questions of each grade have their fact among the first `at`."""
    found: Counter[str] = Counter()
    for each in GRADED["questions"]:
        recalled = await memory.recall(ADA, each["question"], k=at)
        found[each["grade"]] += each["fact"] in [one.memory.text for one in recalled]
    return found


async def test_words_alone_find_what_shares_words(memory: LongTermMemory) -> None:
    """BM25 alone. What shares no word with its question, as the hard ones, it cannot find; docs/memory.md says so."""
    assert len(set(GRADED["facts"])) == 200
    assert Counter(each["grade"] for each in GRADED["questions"]) == {"easy": 20, "medium": 20, "hard": 20}
    for fact in GRADED["facts"]:
        await memory.remember(ADA, fact)
    first, fifth = await hits(memory, 1), await hits(memory, 5)
    print(f"hit@1 {dict(first)}, hit@5 {dict(fifth)}")
    assert first["easy"] == 20
    assert first["medium"] >= 15
    assert fifth["medium"] >= 18
