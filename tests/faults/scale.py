"""How long an experiment is: short with every run of the tests, long with `make chaos MINUTES=…`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest

MINUTES = float(os.environ.get("CHAOS_MINUTES", "5"))


@dataclass(frozen=True, slots=True)
class Scale:
    """`jobs` of one round, and the seconds between two faults; a round is begun until `seconds` are over."""

    jobs: int
    every: tuple[float, float]
    least_rounds: int = 1
    seconds: float = 0.0


def scales(short: Scale, long: Scale, share: float) -> pytest.MarkDecorator:
    """Parametrises a test with both; the long one takes this share of the minutes."""
    timed = Scale(long.jobs, long.every, long.least_rounds, share * MINUTES * 60)
    return pytest.mark.parametrize(
        "scale", [pytest.param(short, id="short"), pytest.param(timed, id="long", marks=pytest.mark.chaos)]
    )


class Rounds:
    """Counts rounds: at least so many, and further ones until the time is over."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._begun = time.monotonic()
        self.number = 0

    def another(self) -> bool:
        """Whether there is time for one more round; counts it."""
        over = time.monotonic() - self._begun >= self._scale.seconds
        if over and self.number >= self._scale.least_rounds:
            return False
        self.number += 1
        return True
