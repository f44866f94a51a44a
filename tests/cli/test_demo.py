"""`nightshift demo`, and that its figures are those of the file."""

from __future__ import annotations

import csv
import random
import stat
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from tests.cli.harness import nightshift

ROWS = 50_000


def tables(report: str) -> list[list[list[str]]]:
    """The Markdown tables of a report, as rows of cells."""
    found: list[list[list[str]]] = []
    inside = False
    for line in report.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = line.startswith("|")
    return found


def table_with(report: str, *columns: str) -> list[dict[str, str]]:
    """The rows of the table that has these columns."""
    for head, _, *rows in tables(report):
        if set(columns) <= set(head):
            return [dict(zip(head, row, strict=True)) for row in rows]
    raise AssertionError(f"no table with {columns} in:\n{report}")


def ledger(out: str) -> list[list[str]]:
    lines = out.split("Cost ledger\n")[1].splitlines()
    return [line.split("\t") for line in lines[: lines.index(next(x for x in lines if "\t" not in x))]]


def test_by_default_it_reports_on_the_packages_here_and_leaves_nothing_running(tmp_path: Path):
    before = {p.pid for p in psutil.process_iter()}
    done = nightshift("demo", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "SIMULATED MODEL" in done.out
    with (tmp_path / ".nightshift" / "demo" / "python_packages.csv").open(newline="") as file:
        packages = list(csv.DictReader(file))
    assert f"the {len(packages)} Python packages" in done.out
    largest = table_with(done.out, "name", "size_bytes")
    expected = sorted((int(p["size_bytes"]) for p in packages), reverse=True)
    assert [float(row["size_bytes"]) for row in largest] == expected[: len(largest)]
    for word in ("job.started", "tool.completed", "job.completed", "report.md", "/openapi.json"):
        assert word in done.out
    *calls, total = ledger(done.out)[1:]
    assert [sum(int(row[i]) for row in calls) for i in range(2, 6)] == [int(cell) for cell in total[2:6]]
    assert "The totals are the job's own usage" in done.out
    running = psutil.process_iter(["cmdline"])
    mine = [p for p in running if p.pid not in before and str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert mine == []
    saved = list((tmp_path / ".nightshift" / "demo" / "artifacts").glob("*/report.md"))
    assert len(saved) == 1
    made = (tmp_path / ".nightshift", tmp_path / ".nightshift" / "demo")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700, 0o700]


@pytest.mark.timeout(120)
def test_on_a_file_of_its_users_own_the_figures_are_right(tmp_path: Path):
    rng = random.Random(2026)
    path = tmp_path / "sales 2026.csv"
    sums: defaultdict[str, int] = defaultdict(int)
    counts: defaultdict[str, int] = defaultdict(int)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order_id", "region", "amount_cents"])
        for number in range(ROWS):
            region, amount = rng.choice(["north", "south", "east", "west, far"]), rng.randrange(1, 90_000)
            sums[region] += amount
            counts[region] += 1
            writer.writerow([f"A-{number}", region, amount])
    question = "What is the sum of amount_cents by region?"
    done = nightshift("demo", "--file", path, "--question", question, "--data-dir", tmp_path / "d", cwd=tmp_path)
    assert done.status == 0, done.err
    rows = table_with(done.out, "region", "sum of amount_cents", "number of rows")
    assert {row["region"]: (int(row["sum of amount_cents"]), int(row["number of rows"])) for row in rows} == {
        region: (sums[region], counts[region]) for region in sums
    }
    overview = {row["figure"]: row["value"] for row in table_with(done.out, "figure", "value")}
    assert int(overview["number of rows"]) == ROWS
    numbers = {row["column"]: row for row in table_with(done.out, "column", "sum")}
    assert int(numbers["amount_cents"]["sum"]) == sum(sums.values())


def test_a_file_that_is_not_there_is_wrong_usage(cli, tmp_path: Path):
    refused = cli("demo", "--file", "missing.csv")
    assert refused.status == 2
    assert "missing.csv" in refused.err
    assert not (tmp_path / ".nightshift").exists()


def test_a_job_that_does_not_complete_exits_1_and_is_shown_all_the_same(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    refusal = '#sim {"turns": [{"text": "I will not.", "stop_reason": "refusal"}]}'
    done = nightshift("demo", "--file", "a.csv", "--question", refusal, cwd=tmp_path)
    assert done.status == 1
    assert "failed: refusal" in done.out
    assert "I will not." in done.out
    assert "Cost ledger" in done.out


def test_it_plays_the_person_whom_the_support_desk_waits_for(tmp_path: Path):
    done = nightshift("demo", "--example", "support_desk", cwd=tmp_path)
    assert done.status == 0, done.err
    asked, _, told = done.out.partition("PARKED, and no worker holds the job: may refund run with")
    assert "question: The standing desk of order A-1042" in asked
    assert "The demo approves it by the API, as a person would with" in told
    assert "$389.00 of it have been paid back" in told.partition("question: Thanks! How much was that again?")[2]
    assert "The demo answers 'yes, as an exception' by the API" in told
    assert "I have paid back $45.00 for A-0987" in told
    assert len(list((tmp_path / ".nightshift" / "demo").glob("demo-*.db"))) == 1, "each demo has a shop of its own"
    assert not (tmp_path / ".nightshift" / "orders.db").exists()


def test_it_brings_the_documents_of_the_research_along(tmp_path: Path):
    done = nightshift("demo", "--example", "research", "--question", "What does the pump cost?", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "files:    budget_memo.md, harbour_log.md" in done.out
    assert "question: What does the pump cost?" in done.out
    assert "The pump costs 18,400 euros" in done.out.partition("Cost ledger")[0].partition("completed after")[2]


def test_an_example_that_is_none_is_wrong_usage(cli, tmp_path: Path):
    refused = cli("demo", "--example", "poet")
    assert refused.status == 2
    assert "expected one of analyst, code_fixer, research, support_desk" in refused.err
    assert not (tmp_path / ".nightshift").exists()
