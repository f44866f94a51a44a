"""`nightshift limits` and `nightshift audit` against a running platform."""

from __future__ import annotations

import json

import pytest

from tests.cli.harness import Up


@pytest.fixture
def lifted(cli, platform: Up):
    yield
    for limit in ("--running", "--requests-per-minute", "--burst"):
        assert cli("limits", "set", "tenant", limit, "none").status == 0


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.usefixtures("lifted")
def test_limits_are_set_listed_and_lifted(cli):
    made = cli("limits", "set", "tenant", "--running", "50", "--requests-per-minute", "60000", "--json").json
    assert (made["running"], made["requests_per_minute"], made["burst"]) == (50, 60_000, None)
    cli("limits", "set", "agent:analyst", "--running", "5")
    assert rows(cli("limits").out) == [
        ["scope", "running", "requests per minute", "burst"],
        ["tenant", "50", "60000", "none"],
        ["agent:analyst", "5", "none", "none"],
    ]
    assert rows(cli("limits", "set", "agent:analyst", "--running", "none").out)[1][1] == "none"
    assert cli("limits", "--json").json["data"] == [made]
    assert cli("limits", "list", "--tenant", "acme", "--json").json["data"][0]["running"] is None


@pytest.mark.parametrize("options", [[], ["--running", "many"], ["--burst", "-1"]])
def test_what_is_no_limit_is_refused(cli, platform: Up, options):
    assert cli("limits", "set", "tenant", *options).status == 2


def test_the_audit_log_is_shown_and_exported_as_lines(cli, platform: Up):
    keys = [cli("keys", "create", f"k{n}", "--expires-at", "2099-01-01T00:00:00Z", "--json").json for n in range(3)]
    assert keys[0]["expires_at"] == "2099-01-01T00:00:00.000Z"
    newest, *others = rows(cli("audit", "--action", "create_key").out)[1:]
    assert len(others) >= 2
    assert newest[1:5] == ["key_bootstrap", "create_key", keys[-1]["id"], "201"]
    assert len(rows(cli("audit", "-n", "2").out)) == 3
    exported = [json.loads(line) for line in cli("audit", "--json", "--since", keys[0]["created_at"]).out.splitlines()]
    assert [entry["target"] for entry in exported][-2:] == [keys[1]["id"], keys[0]["id"]]
    assert cli("audit", "--json", "--until", keys[0]["created_at"], "--target", keys[0]["id"]).out == ""
    assert cli("audit", "--since", "yesterday").status == 2
    assert cli("audit", "--without-key", "--json").status == 0
    for key in keys:
        cli("keys", "revoke", key["id"])
    assert [entry[3] for entry in rows(cli("audit", "-n", "3").out)[1:]] == [key["id"] for key in reversed(keys)]
