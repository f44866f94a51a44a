"""The table: figures with their goals, as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of a figure; `aim` is a second, harder one that is only shown."""

    relation: Literal["<=", ">="]
    bound: float
    aim: float | None = None

    def met(self, value: float) -> bool:
        return value <= self.bound if self.relation == "<=" else value >= self.bound

    def __str__(self) -> str:
        sign = {"<=": "≤", ">=": "≥"}[self.relation]
        aim = "" if self.aim is None else f" (aim {sign} {self.aim:g})"
        return f"{sign} {self.bound:g}{aim}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `unit` is "×" for a ratio of two numbers of the same run."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None

    def to_json(self) -> dict[str, Any]:
        goal = None if self.goal is None else {"text": str(self.goal), "met": self.goal.met(self.value)}
        return {"name": self.name, "value": round(self.value, 4), "unit": self.unit, "goal": goal}

    def to_row(self) -> str:
        goal = "" if self.goal is None else f"{self.goal}: {'met' if self.goal.met(self.value) else '**missed**'}"
        return f"| {self.name} | {_number(self.value)} {self.unit} | {goal} |"


@dataclass(slots=True)
class Section:
    """The figures of one measurement; `how` says what exactly was measured."""

    name: str
    how: str
    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, goal: Goal | None = None) -> None:
        self.figures.append(Figure(name, value, unit, goal))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "how": self.how, "figures": [figure.to_json() for figure in self.figures]}

    def to_markdown(self) -> str:
        rows = "\n".join(figure.to_row() for figure in self.figures)
        return f"## {self.name}\n\n{self.how}\n\n| figure | measured | goal |\n|---|---|---|\n{rows}\n"


@dataclass(slots=True)
class Report:
    """One run: where and when, and a section for each measurement."""

    quick: bool
    redis: str
    sections: list[Section] = field(default_factory=list)
    begun: float = field(default_factory=time.time)
    load: tuple[float, float, float] = field(default_factory=os.getloadavg)
    """The machine's load before the run: what others did at the same time."""

    def to_json(self) -> dict[str, Any]:
        return {**self._where(), "sections": [section.to_json() for section in self.sections]}

    def to_markdown(self) -> str:
        where = self._where()
        size = ", a tenth of the size: good for a smoke test, not for a comparison" if self.quick else ""
        head = (
            f"# Bench\n\n{where['at']}, {where['cpus']} CPUs ({where['machine']}), Python {where['python']}, "
            f"Redis {where['redis']}, load before the run {self.load[0]:.2f}{size}.\n"
        )
        return "\n".join([head, *(section.to_markdown() for section in self.sections)])

    def write(self, directory: Path) -> None:
        """Writes latest.md and latest.json."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "latest.md").write_text(self.to_markdown(), encoding="utf-8")
        (directory / "latest.json").write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")

    def _where(self) -> dict[str, Any]:
        return {
            "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.begun)),
            "quick": self.quick,
            "cpus": os.cpu_count(),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "redis": self.redis,
            "load": list(self.load),
        }


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
