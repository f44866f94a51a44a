"""The commands on budgets and usage against a running platform."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pytest

from cli.client import Client
from tests.cli.harness import Up, script

HELLO = script({"text": "Hello."})


@pytest.fixture
def job(cli, platform: Up) -> dict:
    return cli("submit", "analyst", HELLO, "--user", "payer", "--wait", "--json").json


def test_a_budget_is_set_listed_and_lifted(cli, job):
    made = cli("budgets", "set", "user:payer", "--usd", "5", "--tokens", "900000", "--period", "day", "--json").json
    assert (made["usd"], made["tokens"], made["at_limit"]) == ("5", 900_000, "stop")
    assert Decimal(made["spent_usd"]) >= Decimal(job["usage"]["cost_usd"])
    assert made["remaining_usd"] == str(5 - Decimal(made["spent_usd"]))
    columns, row = [line.split("\t") for line in cli("budgets").out.splitlines()]
    shown = dict(zip(columns, row, strict=True))
    assert (shown["scope"], shown["window"], shown["limit $"]) == ("user:payer", made["window"], "5")
    assert (shown["spent $"], shown["at limit"]) == (made["spent_usd"], "stop")
    assert cli("budgets", "list", "--json").json["data"] == [made]
    lifted = cli("budgets", "remove", "user:payer", "--period", "day")
    assert (lifted.status, lifted.out) == (0, "the budget of user:payer for the period day is lifted\n")
    assert cli("budgets").out.count("\n") == 1


def test_a_default_shows_its_period_and_no_figures(cli, platform: Up):
    cli("budgets", "set", "user:*", "--usd", "5", "--period", "month", "--at-limit", "warn")
    row = cli("budgets").out.splitlines()[1].split("\t")
    assert row == ["user:*", "month", "5", "", "", "", "", "", "", "warn"]
    assert cli("budgets", "remove", "user:*", "--period", "month").status == 0


def test_a_job_that_a_budget_stopped_is_told_of_in_its_words(cli, platform: Up):
    cli("budgets", "set", "user:poor", "--usd", "0.000001")
    refused = cli("submit", "analyst", HELLO, "--user", "poor", "--wait")
    assert refused.status == 1
    assert "the user:poor budget" in refused.err
    assert cli("budgets", "remove", "user:poor").status == 0


def test_a_job_that_its_budget_pauses_is_resumed_with_a_higher_one(cli, platform: Up):
    cli("budgets", "set", "user:patient", "--usd", "0.000001", "--at-limit", "pause")
    job = cli("submit", "analyst", HELLO, "--user", "patient").out.strip()
    while (shown := cli("show", job, "--json").json)["status"] != "paused":
        assert shown["status"] in ("queued", "running")
    assert shown["stop_reason"] == "budget_exceeded"
    resumed = cli("resume", job, "--budget-usd", "0.75", "--json").json
    assert resumed["budget"]["usd"] == "0.75"
    cli("budgets", "set", "user:patient", "--usd", "5", "--at-limit", "pause")
    done = cli("follow", job, "--json").json
    assert (done["status"], done["output"]) == ("completed", "Hello.")
    assert cli("budgets", "remove", "user:patient").status == 0


def test_usage_is_shown_by_what_is_asked_for_with_its_total(cli, job):
    shown = cli("usage", "--by", "user", "--by", "model", "--user", "payer")
    columns, *rows, total = [line.split("\t") for line in shown.out.splitlines()]
    assert columns == ["user", "model", "calls", "input", "output", "cache read", "cache write", "cached %", "cost $"]
    assert [row[0] for row in rows] == ["payer"]
    assert total == ["total", "", *rows[0][2:7], "", rows[0][8]]
    assert "SIMULATED MODEL" in shown.err
    page = cli("usage", "--by", "user,model", "--user", "payer", "--json")
    assert [row["cost_usd"] for row in page.json["data"]] == [rows[0][8]]
    assert page.err == ""
    assert cli("usage", "--to", "2026-01-31").out.splitlines()[-1].startswith("total\t0\t")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_row_of_the_ledger_can_be_exported(cli, job, form):
    text = cli("usage", "--export", form).out
    rows = list(csv.DictReader(io.StringIO(text))) if form == "csv" else [json.loads(x) for x in text.splitlines()]
    own = [row["settled_usd"] for row in rows if row["job_id"] == job["id"]]
    assert own == [job["usage"]["cost_usd"]]


def test_the_check_finds_every_total_to_be_the_sum_of_its_rows(cli, job):
    done = cli("usage", "--check")
    assert done.status == 0
    assert done.out.startswith("every total is the sum of its rows (")
    assert cli("usage", "--check", "--json").json["exact"] is True


def test_a_check_that_finds_a_difference_exits_1(cli, platform: Up, monkeypatch):
    found = {
        "exact": False,
        "jobs": 1,
        "rows": 2,
        "figures": 9,
        "differences": [{"key": "ns:job:j", "figure": "cost_usd", "recorded": "0.2", "rows": "0.1"}],
        "unchecked": [{"what": "total", "why": "a job is pruned"}],
    }

    async def get(self: Client, path: str, **rest: object) -> dict:
        assert path == "/v1/usage/check"
        return found

    monkeypatch.setattr(Client, "get", get)
    done = cli("usage", "--check")
    assert done.status == 1
    assert done.out.splitlines()[1:] == [
        "ns:job:j\tcost_usd\t0.2\t0.1",
        "1 totals are NOT the sum of their rows (9 figures, 1 jobs, 2 ledger rows)",
    ]
    assert done.err == "not checked: total: a job is pruned\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["budgets", "set", "user:x"], "usd, tokens or both"),
        (["budgets", "set", "everyone", "--usd", "1"], "no scope; there are tenant"),
        (["budgets", "set", "tenant", "--usd", "1", "--period", "week"], "period"),
        (["budgets", "remove", "user:none"], "there is no budget of 'user:none'"),
        (["usage", "--by", "colour"], "there are: day, agent"),
        (["usage", "--from", "yesterday"], "expected a day like"),
        (["usage", "--export", "xml"], "format"),
        (["usage", "--check", "--by", "user"], "--check"),
        (["usage", "--export", "csv", "--user", "u"], "--export"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_status_2(cli, platform: Up, words, reason):
    refused = cli(*words)
    assert (refused.status, refused.out) == (2, "")
    assert reason in refused.err
    assert len(refused.err.strip().splitlines()) == 1
