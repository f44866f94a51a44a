"""The command that hints tell the user to type."""

from __future__ import annotations

import sys

import pytest

from cli.invocation import command


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "my venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "nightshift").write_text("#!/bin/sh\n")
    (folder / "nightshift").chmod(0o755)
    return folder / "nightshift"


def test_a_path_that_was_typed_is_told_again_and_quoted(monkeypatch, script):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(sys, "argv", [".venv/bin/nightshift", "up"])
    assert command("up --port 0") == ".venv/bin/nightshift up --port 0"
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert command("up") == f"'{script}' up"


def test_what_is_on_path_goes_by_its_name(monkeypatch, script):
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert command("up") == "nightshift up"


def test_a_module_goes_by_the_name_of_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/cli/__main__.py"])
    assert command() == "nightshift"


def test_hints_use_it(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", "/usr/bin")
    refused = cli("jobs", program=".venv/bin/nightshift")
    assert "start one with `.venv/bin/nightshift up`" in refused.err
