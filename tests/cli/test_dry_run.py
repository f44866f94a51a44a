"""`nightshift submit --dry-run`: what a job would cost, and no job."""

from __future__ import annotations

from typing import Any

import pytest

from cli import estimating
from jobs.estimate import LEAST_JOBS
from tests.cli.harness import Up, script

HELLO = script({"text": "Hello."})
BASED_ON = {"method": "limits", "detail": "the budget job stops it at 1 USD; 3 jobs like it are known"}


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        (("0.01", "0.018", "1"), ["$0.01, half of", "$0.018, nine in ten", "$1, it cannot"]),
        ((None, None, None), ["unknown"] * 3),
    ],
)
def test_the_amounts_and_how_they_are_known(capsys, amounts: Any, expected: list[str]):
    names = ("p50_usd", "p90_usd", "worst_case_usd")
    estimating.print_estimate({**dict(zip(names, amounts, strict=True)), "based_on": BASED_ON})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["p50", "p90", "worst case", "known by"]
    assert all(text in line for text, line in zip([*expected, BASED_ON["detail"]], lines, strict=True))


def test_nothing_is_submitted_and_files_count(cli, platform: Up, tmp_path):
    file = tmp_path / "big.csv"
    file.write_bytes(b"x" * 70_000)
    done = cli(
        "submit", "analyst", "hello", "--file", file, "--tag", "dry", "--budget-usd", "0.25", "--dry-run", "--json"
    )
    assert done.status == 0
    assert (done.json["input_bytes"], done.json["worst_case_usd"]) == (70_005, "0.25")
    assert cli("jobs", "--tag", "dry", "--json").json["data"] == []


def test_a_person_sees_what_jobs_like_it_have_cost(cli, platform: Up):
    for _ in range(LEAST_JOBS):
        assert cli("submit", "analyst", HELLO, "--wait").status == 0
    done = cli("submit", "analyst", HELLO, "--dry-run")
    assert done.status == 0
    assert "nine in ten cost no more" in done.out
    assert "SIMULATED" in done.err
    assert cli("submit", "analyst", HELLO, "--dry-run", "--json").json["based_on"]["method"] == "like_jobs"


def test_it_is_refused_as_the_submission_would_be(cli, platform: Up):
    dry, wet = cli("submit", "nobody", "hello", "--dry-run"), cli("submit", "nobody", "hello")
    assert (dry.status, dry.err) == (wet.status, wet.err)
    assert dry.status == 2


@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_there_is_nothing_to_wait_for(cli, option: str):
    done = cli("submit", "analyst", "hello", "--dry-run", option)
    assert done.status == 2
    assert "--dry-run submits nothing" in done.err
