"""The client commands against a running platform."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.harness import Up, environment, nightshift, script

HELLO = script({"text": "Hello, **you**."})
REFUSAL = script({"text": "no", "stop_reason": "refusal"})
CONTRACT_FIELDS = {"id", "agent", "agent_version", "status", "stop_reason", "input", "output", "usage", "created_at"}


@pytest.fixture
def job(cli, platform: Up) -> dict:
    return cli("submit", "analyst", HELLO, "--wait", "--json").json


def test_submit_prints_the_id_alone(cli, platform: Up):
    done = cli("submit", "analyst", HELLO)
    assert done.status == 0
    assert done.out.startswith("job_")
    assert len(done.out.split()) == 1


def test_submit_and_wait_prints_the_result_alone_on_standard_output(cli, platform: Up):
    done = cli("submit", "analyst", HELLO, "--wait")
    assert (done.status, done.out) == (0, "\nHello, **you**.\n")
    assert "completed" in done.err


def test_submit_and_follow_prints_a_line_for_each_event(cli, platform: Up):
    done = cli("submit", "analyst", HELLO, "--follow")
    assert done.status == 0
    types = [line.split()[1] for line in done.out.split("\n\n")[0].splitlines()]
    assert types == ["job.queued", "job.started", "model.started", "model.completed", "job.completed"]


@pytest.mark.parametrize("how", ["--follow", "--wait"])
def test_with_json_there_is_the_job_and_nothing_else(cli, platform: Up, how):
    done = cli("submit", "analyst", HELLO, how, "--json")
    assert done.json.keys() >= CONTRACT_FIELDS
    assert (done.json["status"], done.json["output"]) == ("completed", "Hello, **you**.")
    assert done.err == ""


@pytest.mark.parametrize("words", [["--wait"], ["--follow"], ["--wait", "--json"]])
def test_a_job_that_does_not_complete_exits_1(cli, platform: Up, words):
    done = cli("submit", "analyst", REFUSAL, *words)
    assert done.status == 1
    assert "refusal" in done.out + done.err


def test_follow_shows_a_job_that_has_ended_from_its_beginning(cli, job):
    done = cli("follow", job["id"])
    assert done.status == 0
    assert "job.queued" in done.out
    assert done.out.endswith("Hello, **you**.\n")
    assert cli("follow", job["id"], "--json").json["id"] == job["id"]


def test_the_input_may_come_from_standard_input(cli, platform: Up):
    assert cli("submit", "analyst", "-", "--wait", "--json", stdin=HELLO).json["input"] == HELLO


def test_every_option_of_submit_reaches_the_job(cli, platform: Up, tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b c.csv").write_text("y\n2\n")
    job = cli(
        "submit", "analyst", HELLO, "--file", "a.csv", "--file", "b c.csv", "--budget-usd", "0.25", "--max-steps", "3",
        "--session", "s1", "--user", "u1", "--priority", "high", "--service", "standard", "--tag", "t1", "--tag", "t2",
        "--wait", "--json",
    ).json  # fmt: skip
    assert len(job["files"]) == 2
    assert (job["budget"]["usd"], job["budget"]["steps"]) == ("0.25", 3)
    assert (job["session_id"], job["user"], job["priority"], job["tags"]) == ("s1", "u1", "high", ["t1", "t2"])
    assert job["service"] == "standard"


def test_an_idempotency_key_submits_once(cli, platform: Up):
    words = ("submit", "analyst", HELLO, "--idempotency-key", "once")
    assert cli(*words).out == cli(*words).out
    refused = cli("submit", "analyst", REFUSAL, "--idempotency-key", "once")
    assert refused.status == 2
    assert "Idempotency-Key" in refused.err


def test_jobs_lists_the_newest_first_and_page_by_page(cli, platform: Up):
    ids = [cli("submit", "analyst", HELLO, "--tag", "listed", "--wait", "--json").json["id"] for _ in range(3)]
    plain = cli("jobs", "--tag", "listed", "--limit", "2")
    assert [line.split("\t")[0] for line in plain.out.splitlines()] == ["job", *reversed(ids[1:])]
    page = cli("jobs", "--tag", "listed", "--limit", "2", "--json").json
    assert [job["id"] for job in page["data"]] == [*reversed(ids[1:])]
    assert page["next_cursor"] in plain.err
    rest = cli("jobs", "--tag", "listed", "--after", page["next_cursor"], "--json").json
    assert [job["id"] for job in rest["data"]] == ids[:1]


def test_show_explain_and_ledger_tell_the_same_story(cli, job):
    shown = cli("show", job["id"])
    assert "completed (end_turn)" in shown.out
    assert shown.out.endswith("Hello, **you**.\n")
    assert cli("show", job["id"], "--json").json == job
    assert cli("explain", job["id"]).out.startswith("completed, ended:")
    assert "SIMULATED MODEL" in shown.err
    assert "SIMULATED MODEL" in cli("jobs").err
    assert cli("show", job["id"], "--json").err + cli("jobs", "--json").err == ""
    assert cli("explain", job["id"], "--json").json["gate"] == "ended"
    total = cli("ledger", job["id"]).out.splitlines()[-1].split("\t")
    assert total[0] == "total"
    assert job["usage"]["cost_usd"] in total
    assert cli("ledger", job["id"], "--json").json["data"][0]["settled_usd"] == job["usage"]["cost_usd"]


def test_a_waiting_job_is_paused_resumed_cancelled_retried_and_forked(cli, platform: Up):
    slow = script({"text": "late", "latency": 600})
    job = cli("submit", "analyst", slow).out.strip()
    assert cli("cancel", job, "--json").json["id"] == job
    assert cli("follow", job).status == 1
    assert cli("show", job, "--json").json["status"] == "cancelled"
    assert cli("retry", job, "--budget-usd", "0.40").out.split()[0] == job
    assert cli("show", job, "--json").json["budget"]["usd"] == "0.4"
    cli("cancel", job)
    fork = cli("fork", job, "--step", "0", "--input", HELLO, "--tag", "forked", "--json").json
    assert (fork["forked_from"]["job_id"], fork["tags"]) == (job, ["forked"])
    assert cli("follow", fork["id"], "--json").json["output"] == "Hello, **you**."
    refused = cli("resume", job)
    assert refused.status == 2
    assert "resume needs it to be paused" in refused.err
    assert cli("pause", fork["id"]).status == 2


def test_a_running_job_is_explained_and_its_worker_asked_to_stop(cli, platform: Up):
    job = cli("submit", "analyst", script({"text": "late", "latency": 600})).out.strip()
    while (explained := cli("explain", job)).out.startswith("queued") or "between two calls" in explained.out:
        pass
    assert explained.out.startswith("running: attempt 1 runs on ")
    assert "doing:         waits for claude-" in explained.out
    assert "{" not in explained.out
    paused = cli("pause", job)
    assert paused.out == f"{job} running (its worker was asked to pause it; `nightshift show {job}` says when it has)\n"
    cancelled = cli("cancel", job).out  # the worker may be done before the answer is
    assert cancelled.startswith((f"{job} running (its worker was asked to cancel it;", f"{job} cancelled\n"))
    assert cli("follow", job).status == 1


def test_artifacts_are_listed_and_saved(cli, platform: Up, tmp_path):
    turns = {"tool": "save_artifact", "input": {"name": "note.md", "content": "# é\n"}}, {"text": "saved"}
    job = cli("submit", "analyst", script(*turns), "--wait", "--json").json
    listed = cli("artifacts", job["id"], "--save-to", "out")
    assert listed.out.splitlines()[1].split("\t")[:2] == ["note.md", "5"]
    assert (tmp_path / "out" / "note.md").read_text() == "# é\n"


def test_agents_are_listed_and_shown(cli, platform: Up):
    assert "analyst" in cli("agents").out
    assert cli("agents", "list", "--json").json["data"][0]["name"] == "analyst"
    assert cli("agents", "show", "analyst", "--json").json["definition"]["tools"]
    assert cli("agents", "show", "analyst").out.startswith("name:")


def test_options_of_a_group_hold_before_and_after_the_command(cli, running: Up):
    directory = ("--data-dir", running.data_dir)
    for words in (["agents", *directory, "show", "analyst"], ["agents", "show", "analyst", *directory]):
        assert cli(*words).out.startswith("name:")
    assert cli("agents", "--json", *directory, "list").json["data"][0]["workers"] == 1
    for words in (["keys", *directory, "list"], ["keys", "list", *directory]):
        assert cli(*words).out.startswith("key\t")
    assert cli("agents", "--data-dir", "nothing", "show", "analyst").status == 3


def test_a_wrong_field_is_told_once(cli, platform: Up):
    said = cli("submit", "analyst", "hello", "--priority", "top", "--budget-usd", "lots").err
    assert said.count("priority: ") == said.count("budget.usd: ") == 1


def test_a_key_is_made_used_and_revoked(cli, platform: Up, monkeypatch):
    made = cli("keys", "create", "robot", "--scope", "jobs:read", "--json").json
    assert made["id"] in cli("keys", "list").out
    assert made["secret"] not in cli("keys", "list").out
    with monkeypatch.context() as as_robot:
        as_robot.setenv("NIGHTSHIFT_API_KEY", made["secret"])
        assert cli("jobs").status == 0
        refused = cli("submit", "analyst", HELLO)
        assert refused.status == 2
        assert "jobs:write" in refused.err
    assert cli("keys", "revoke", made["id"]).status == 0
    assert made["id"] not in cli("keys", "list").out
    bare = cli("keys", "create", "another")
    assert bare.out.startswith("ns_")
    assert len(bare.out.split()) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["show", "job_none"], "there is no job"),
        (["follow", "job_none"], "there is no job"),
        (["show", "job none?"], "there is no job"),
        (["submit", "nobody", "hello"], "there are: analyst"),
        (["submit", "analyst", "hello", "--budget-usd", "lots"], "usd"),
        (["submit", "analyst", "hello", "--priority", "top"], "priority"),
        (["submit", "analyst", "hello", "--service", "express"], "service"),
        (["jobs", "--status", "odd"], "status"),
        (["jobs", "--after", "nonsense"], "cursor"),
    ],
)
def test_what_the_api_refuses_is_one_line_and_exit_status_2(cli, platform: Up, words, reason):
    refused = cli(*words)
    assert (refused.status, refused.out) == (2, "")
    assert reason in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_a_key_that_is_not_valid_is_refused_with_what_to_do(cli, platform: Up, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns_wrong")
    refused = cli("jobs")
    assert refused.status == 2
    assert "NIGHTSHIFT_API_KEY" in refused.err


def test_a_pipe_that_is_closed_early_is_no_error(platform: Up, tmp_path):
    environ = environment(NIGHTSHIFT_DATA_DIR=str(platform.data_dir))
    command = [sys.executable, "-m", "cli", "jobs", "--json"]
    process = subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in errors


def test_ctrl_c_leaves_the_job_and_no_trace(platform: Up, tmp_path):

    environ = environment(NIGHTSHIFT_DATA_DIR=str(platform.data_dir))
    slow = script({"text": "late", "latency": 600})
    command = [sys.executable, "-m", "cli", "submit", "analyst", slow, "--follow"]
    with subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "model.started" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    job_id = errors.rsplit("nightshift follow ", 1)[1].strip()
    shown = json.loads(
        nightshift("show", job_id, "--json", cwd=tmp_path, NIGHTSHIFT_DATA_DIR=str(platform.data_dir)).out
    )
    assert shown["status"] == "running"
    nightshift("cancel", job_id, cwd=tmp_path, NIGHTSHIFT_DATA_DIR=str(platform.data_dir))
