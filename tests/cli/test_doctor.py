from __future__ import annotations

import pytest

from cli import checks, settings
from cli.probe import RedisFacts
from jobs.settings import MemorySettings
from memory.store import StoreFacts
from tests.cli.harness import Up


def by_name(result) -> dict[str, dict]:
    assert all(set(check) == {"check", "ok", "detail", "fix"} for check in result.json)
    return {check["check"]: check for check in result.json}


def test_on_a_platform_that_runs_all_is_well(cli, platform: Up):
    done = cli("doctor", "--json")
    found = by_name(done)
    assert [check["check"] for check in done.json if not check["ok"]] == []
    assert done.status == 0
    assert "can lose up to the last second" in found["durability"]["detail"]
    assert "noeviction" in found["redis eviction"]["detail"]
    assert "1 live" in found["workers"]["detail"]
    assert found["agents"]["detail"] == "analyst"
    assert found["model"]["detail"].startswith("simulated")
    assert found["memory"]["detail"].startswith("Nightshift embedded memory 1.")
    assert cli("doctor").out.endswith("All is well.\n")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://platform.invalid"])
def test_the_redis_of_a_platform_elsewhere_is_not_checked(cli, running: Up, monkeypatch, url):
    monkeypatch.setenv("NIGHTSHIFT_URL", url)
    monkeypatch.setenv("PATH", "")
    for where in ("nothing", running.data_dir):
        found = by_name(cli("doctor", "--json", "--data-dir", where))
        assert found["redis"]["ok"]
        assert found["redis"]["detail"] == f"not checked: only the platform at {url} knows its Redis"
        assert found["redis-server"]["ok"]
        assert not found["api"]["ok"]


def test_agents_that_nobody_runs_are_told_from_those_that_run():
    idle, live = {"name": "idle", "workers": 0}, {"name": "live", "workers": 1}
    assert checks.agents([live, idle]) == checks.Check("agents", True, "live; no live worker runs idle")
    assert not checks.agents([idle]).ok
    assert not checks.agents([]).ok


@pytest.mark.parametrize(("version", "ok"), [("1.19.3", False), ("1.20.0", True), ("2.0.1", True), ("dev", True)])
async def test_a_qdrant_that_is_too_old_is_found(version, ok, monkeypatch, tmp_path):
    async def facts(settings: MemorySettings) -> StoreFacts:
        return StoreFacts("qdrant - vector search engine", version, 3)

    monkeypatch.setenv("NIGHTSHIFT_QDRANT_URL", "http://user:hunter2@qdrant:6333")
    monkeypatch.setattr("cli.qdrant.facts", facts)
    patient = checks.Patient(tmp_path, settings.connection(tmp_path), settings.surroundings())
    found = await checks.memory(patient)
    assert (found.ok, bool(found.fix)) == (ok, not ok)
    assert found.detail.startswith(f"qdrant - vector search engine {version} at http://***@qdrant:6333")


def test_with_nothing_running_it_says_how_to_start(cli, monkeypatch):
    done = cli("doctor", "--json")
    found = by_name(done)
    assert done.status == 1
    assert not found["redis"]["ok"]
    assert not found["api"]["ok"]
    assert "nightshift up" in found["api"]["fix"]
    assert found["python"]["ok"]
    plain = cli("doctor")
    assert plain.status == 1
    assert "api: start the platform with `nightshift up`" in plain.out


def test_a_wrong_setting_is_found_and_named(cli, platform: Up, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_LEASE_SECONDS", "soon")
    done = cli("doctor", "--json")
    assert done.status == 1
    assert "NIGHTSHIFT_LEASE_SECONDS is " in by_name(done)["settings"]["detail"]


def test_no_secret_is_shown(cli, platform: Up, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    shown = cli("doctor", "--json")
    assert "sk-very-secret" not in shown.out + shown.err
    assert platform.key not in shown.out + shown.err
    assert by_name(shown)["model"]["detail"] == "Anthropic's API, with the key in ANTHROPIC_API_KEY"


def test_a_key_that_is_not_valid_is_found(cli, platform: Up, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns_wrong")
    found = by_name(cli("doctor", "--json"))
    assert not found["api key"]["ok"]
    assert "401" in found["api key"]["detail"]


def test_an_admin_key_that_others_can_read_is_found(tmp_path):
    (tmp_path / "admin.key").write_text("ns_x")
    (tmp_path / "admin.key").chmod(0o640)
    found = checks.data_directory(tmp_path)
    assert not found.ok
    assert "chmod 600" in found.fix


def test_a_data_directory_that_cannot_be_made_is_found(tmp_path):
    (tmp_path / "file").write_text("")
    assert not checks.data_directory(tmp_path / "file" / "data").ok


@pytest.mark.parametrize(
    ("aof", "fsync", "ok", "words"),
    [
        (True, "always", True, "nothing acknowledged is lost"),
        (True, "everysec", True, "up to the last second"),
        (True, "no", False, "many seconds"),
        (True, "unknown", True, "may not be asked"),
        (False, "everysec", False, "since the last snapshot"),
    ],
)
def test_durability_is_told_as_it_is(aof, fsync, ok, words):
    found = checks.durability(RedisFacts("7.2.0", "noeviction", aof, fsync))
    assert (found.ok, bool(found.fix)) == (ok, not ok)
    assert words in found.detail


def test_a_redis_that_evicts_or_is_too_old_is_found(redis_url):
    facts = RedisFacts("5.0.14", "allkeys-lru", True, "always")
    assert "noeviction" in checks.eviction(facts).fix
    assert "6.2" in checks.version("redis://h", facts).fix


def test_a_redis_that_refuses_the_password_is_told_from_one_that_is_away(cli, monkeypatch, guarded_redis):
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", guarded_redis)
    found = by_name(cli("doctor", "--json"))["redis"]
    assert not found["ok"]
    assert "refuses its user or password" in found["detail"]
    assert found["fix"] == "correct NIGHTSHIFT_REDIS_URL"


def test_the_settings_of_a_redis_that_is_named_are_read(cli, monkeypatch, redis_url):
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", redis_url)
    monkeypatch.setenv("NIGHTSHIFT_URL", "http://127.0.0.1:9")
    found = by_name(cli("doctor", "--json"))
    assert found["redis"]["ok"]
    assert not found["durability"]["ok"]  # the tests' server keeps nothing
    assert not found["workers"]["ok"]


def test_a_sandbox_that_is_not_there_is_a_warning(cli, platform: Up, monkeypatch):
    monkeypatch.setattr("agent_core.sandbox.box.PLACES", "")
    done = cli("doctor", "--json")
    found = by_name(done)["sandbox"]
    assert found["ok"]
    assert found["detail"].startswith("off: ")
    assert "install it" in found["fix"]
    assert done.status == 0
    plain = cli("doctor").out
    assert "sandbox: there is no bubblewrap here" in plain
    assert plain.endswith("All is well.\n")
