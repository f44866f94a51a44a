"""`nightshift limits` against a running platform."""

from __future__ import annotations

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
