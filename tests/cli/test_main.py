from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.harness import ROOT, environment

COMMANDS = (
    "up", "api", "worker", "simulator", "demo", "submit", "jobs", "show", "follow", "cancel", "pause", "resume",
    "retry", "fork", "explain", "ledger", "artifacts", "keys", "agents", "kill-switch", "doctor",
)  # fmt: skip


def test_help_names_every_command_and_what_the_exit_status_means(cli):
    shown = cli("--help")
    assert shown.status == 0
    listed = {line.split()[0] for line in shown.out.splitlines() if line.startswith("  ") and line.strip()}
    assert set(COMMANDS) <= listed
    assert "3 the platform can't" in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(cli, command):
    shown = cli(command, "--help")
    assert shown.status == 0
    assert shown.out.startswith(f"Usage: nightshift {command}")


@pytest.mark.parametrize(
    "words",
    [
        ["jbos"],
        ["submit", "analyst"],
        ["jobs", "--limit", "0"],
        ["submit", "analyst", "x", "--file", "missing.csv"],
        ["up", "--workers", "0"],
        ["keys"],
    ],
)
def test_wrong_usage_exits_2_and_says_why_on_standard_error(cli, words):
    refused = cli(*words)
    assert refused.status == 2
    assert refused.err or refused.out.startswith("Usage:")


def test_help_imports_neither_servers_nor_clients():
    heavy = "{'api', 'worker', 'simulator', 'redis', 'httpx2', 'pydantic', 'rich', 'asyncio'}"
    code = f"import sys, cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_platform_that_is_not_there_exits_3_with_one_line_that_says_what_to_do(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_URL", "http://127.0.0.1:9")
    refused = cli("jobs", "--json")
    assert (refused.status, refused.out) == (3, "")
    assert len(refused.err.splitlines()) == 1
    assert "nightshift up" in refused.err
    assert "NIGHTSHIFT_URL" in refused.err


def test_a_wrong_setting_is_one_line_that_names_it(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_CONCURRENCY", "many")
    refused = cli("worker")
    assert refused.status == 2
    assert refused.err.startswith("nightshift: NIGHTSHIFT_CONCURRENCY is ")
    assert len(refused.err.splitlines()) == 1


def test_a_wrong_url_is_one_line_that_names_it(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_URL", "localhost")
    refused = cli("jobs")
    assert refused.status == 2
    assert "NIGHTSHIFT_URL is 'localhost'" in refused.err
