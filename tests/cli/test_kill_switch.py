"""`nightshift kill-switch` against a running platform."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.harness import Up, script

HELLO = script({"text": "Hello."})
SLOW = script({"text": "late", "latency": 600})
SCOPES = ["global", "tenant", "agent:analyst"]


@pytest.fixture(autouse=True)
def _off_again(cli, platform: Up) -> Iterator[None]:
    yield
    for scope in SCOPES:
        assert cli("kill-switch", "off", "--scope", scope).status == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_a_submission_is_refused_until_the_switch_is_off(cli, scope):
    turned = cli("kill-switch", "on", "--scope", scope, "--reason", "it mails customers", "--json").json
    assert (turned["scope"], turned["on"], turned["by"]) == (scope, True, "key_bootstrap")
    refused = cli("submit", "analyst", HELLO)
    assert refused.status == 3
    for told in ("kill switch", turned["since"], "it mails customers", f"--scope {scope}"):
        assert told in refused.err
    assert cli("kill-switch", "off", "--scope", scope).out.startswith(f"kill switch:   {scope} is off\n")
    assert cli("submit", "analyst", HELLO, "--wait").status == 0


def test_without_a_scope_it_stops_everything(cli):
    assert cli("kill-switch", "status").out == "no kill switch is on\n"
    assert cli("kill-switch", "on").out.startswith("kill switch:   global is ON\n")
    doctor = cli("doctor")
    assert doctor.status != 0
    assert "kill switch" in doctor.out
    listed = cli("kill-switch", "status", "--json").json["data"]
    assert [switch["scope"] for switch in listed] == ["global"]
    assert cli("kill-switch", "off").out.startswith("kill switch:   global is off\n")


def test_it_waits_for_the_calls_to_be_closed_and_shows_that_they_are(cli):
    job_id = cli("submit", "analyst", SLOW).out.strip()
    while (cli("explain", job_id, "--json").json.get("doing") or {}).get("kind") != "model":
        pass
    shown = cli("kill-switch", "on", "--scope", "agent:analyst", "--reason", "runaway")
    assert "0 open, 0 begun since" in shown.out
    assert "runaway" in shown.out
    assert shown.err == ""
    assert cli("kill-switch", "status").out == shown.out
    explained = cli("explain", job_id, "--json").json
    assert (explained["status"], explained["gate"]) == ("queued", "kill_switch")
    cli("cancel", job_id)


def test_an_agent_that_is_not_there_is_refused(cli):
    refused = cli("kill-switch", "on", "--scope", "agent:anallyst")
    assert refused.status == 2
    assert "analyst" in refused.err
