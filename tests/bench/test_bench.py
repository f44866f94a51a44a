"""The bench runs and its table is whole; what it measures on a busy test machine says nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import NAMES
from bench.measures.queue import ARQ_PYTHON
from bench.report import Figure, Goal, Report, Section, percentile

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the bench reads /proc")
ASKED = {
    "reaction": {"submit → first model call, p50"},
    "density": {"jobs held at once", "worker PSS, peak", "a waiting job"},
    "overhead": {"ours against the bare SDK loop", "ours", "bare loop, default client", "makespan, ours"},
    "submit": {"rate against the bare route", "ours", "bare route"},
    "queue": {"jobs/s against arq", "ours", "arq"},
    "fairness": {"p95 of the wait, beside ÷ alone", "claim, CPU of Redis, tenants: 100"},
    "ledger": {"worker", "Redis"},
    "money": {"reserve and settle, of a model call's CPU", "round trips of reserve and settle", "a model call"},
    "storage": {"steps 80 to 100 against 20 to 40", "a step, from step 80 to 100"},
    "memory": {"recall, 1,000 points, 4 processes, p95 of the slowest"},
    "takeover": {"lease of 2 s: p50", "lease of 2 s: p99 in leases"},
}


@linux
@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_gives_the_whole_table(name: str, tmp_path: Path) -> None:
    if name == "queue" and not ARQ_PYTHON.exists():
        pytest.skip("arq has an environment of its own, which `make bench` makes")
    command = [sys.executable, "-m", "bench", name, "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "latest.json").read_text())
    [section] = report["sections"]
    assert (section["name"], report["quick"]) == (name, True)
    figures = {figure["name"]: figure for figure in section["figures"]}
    assert ASKED[name] <= figures.keys()
    assert all(figures[asked]["value"] > 0 and figures[asked]["unit"] for asked in ASKED[name])
    assert done.stdout.strip() == (tmp_path / "latest.md").read_text().strip()


def test_a_measurement_that_there_is_not() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "there is no measurement speed; there are: reaction, density" in done.stderr


def test_the_table_says_which_goals_are_met() -> None:
    section = Section("queue", "How.")
    section.add("against", 1.75, "×", Goal(">=", 1.5))
    section.add("memory", 201, "MiB", Goal("<=", 200, aim=100))
    section.add("rate", 5178.4, "jobs/s")
    rows = Report(quick=False, redis="7.0", sections=[section]).to_markdown().splitlines()
    assert "| against | 1.75 × | ≥ 1.5: met |" in rows
    assert "| memory | 201.0 MiB | ≤ 200 (aim ≤ 100): **missed** |" in rows
    assert "| rate | 5,178 jobs/s |  |" in rows


def test_a_figure_as_json() -> None:
    goal = {"text": "≤ 20", "met": True}
    assert Figure("p50", 7.34567, "ms", Goal("<=", 20)).to_json() == {
        "name": "p50", "value": 7.3457, "unit": "ms", "goal": goal,
    }  # fmt: skip


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 3), (0.95, 5), (1, 5)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([5, 1, 4, 2, 3], share) == expected
