"""An embedding model for tests: words of the same topic point in the same direction, so that paraphrases are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memory.embedding.port import Embedder, Purpose, Vectors

TOPICS = (
    ("city", "lives", "home", "town", "moved", "reside", "oslo", "paris"),
    ("food", "eats", "meal", "vegetarian", "diet", "meat", "dinner"),
    ("work", "job", "employer", "company", "office", "career"),
)


class ToyModel:
    """Counts what it is asked."""

    name = "toy"
    size = len(TOPICS) + 1
    most_texts = 16

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        self.calls.append(list(texts))
        return Vectors([self._vector(text) for text in texts], tokens=sum(len(text.split()) for text in texts))

    async def aclose(self) -> None:
        pass

    def _vector(self, text: str) -> list[float]:
        words = text.lower().replace(".", "").replace("?", "").split()
        counts = [0.1, *(float(sum(word in topic for word in words)) for topic in TOPICS)]
        length = math.hypot(*counts)
        return [count / length for count in counts]


def toy_embedder() -> Embedder:
    return Embedder(ToyModel())
