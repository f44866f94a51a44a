from __future__ import annotations

from pathlib import Path

import pytest

from cli import settings
from worker.settings import Settings


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "admin.key").write_text("ns_from_file\n")
    (tmp_path / "api.url").write_text("http://127.0.0.1:4321\n")
    return tmp_path


def test_the_platform_of_the_data_directory_is_found(data_dir):
    found = settings.connection(data_dir)
    assert (found.url, found.key) == ("http://127.0.0.1:4321", "ns_from_file")


def test_the_environment_comes_first(data_dir, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_URL", "http://127.0.0.1:99/")
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns_from_environment")
    found = settings.connection(data_dir)
    assert (found.url, found.key, found.url_from) == ("http://127.0.0.1:99", "ns_from_environment", "NIGHTSHIFT_URL")


def test_without_anything_it_is_the_default_port(tmp_path):
    found = settings.connection(tmp_path / "nothing")
    assert (found.url, found.key) == ("http://127.0.0.1:8080", None)


@pytest.mark.parametrize("url", ["http://example.test:8080", "https://127.0.0.1.example.test", "http://10.0.0.1"])
def test_the_local_admin_key_is_not_sent_to_another_machine(data_dir, monkeypatch, url):
    monkeypatch.setenv("NIGHTSHIFT_URL", url)
    monkeypatch.setenv("NIGHTSHIFT_ADMIN_KEY", "ns_bootstrap")
    assert settings.connection(data_dir).key is None


@pytest.mark.parametrize("url", ["http://localhost:1", "http://[::1]:1", "http://127.0.0.1:1"])
def test_the_local_admin_key_is_sent_to_this_machine(data_dir, monkeypatch, url):
    monkeypatch.setenv("NIGHTSHIFT_URL", url)
    assert settings.connection(data_dir).key == "ns_from_file"


def test_the_bootstrap_key_of_the_environment_is_the_one_that_a_platform_here_has(data_dir, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_ADMIN_KEY", "ns_bootstrap")
    assert settings.connection(data_dir).key == "ns_bootstrap"


def test_children_get_the_models_key_only_when_they_need_it(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns_mine")
    assert "sk-secret" not in settings.child_environment().values()
    monkeypatch.setenv("NIGHTSHIFT_ADMIN_KEY", "ns_bootstrap")
    assert settings.child_environment(*settings.MODEL_SECRETS)["ANTHROPIC_API_KEY"] == "sk-secret"
    for environment in (settings.child_environment(), settings.child_environment(*settings.MODEL_SECRETS)):
        assert not {"NIGHTSHIFT_API_KEY", "NIGHTSHIFT_ADMIN_KEY"} & set(environment)


def test_only_workers_learn_whom_to_alert(monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_ALERT_SLACK_URL", "https://hooks.example.test/hush")
    monkeypatch.setenv("NIGHTSHIFT_ALERT_DAILY_SPEND_USD", "5")
    assert "NIGHTSHIFT_ALERT_SLACK_URL" not in settings.child_environment()
    assert settings.child_environment()["NIGHTSHIFT_ALERT_DAILY_SPEND_USD"] == "5"
    assert settings.child_environment(*settings.ALERT_SECRETS)["NIGHTSHIFT_ALERT_SLACK_URL"].endswith("/hush")


def test_every_secret_of_the_workers_is_known_as_one():
    fields = Settings.model_fields.items()
    found = {f"NIGHTSHIFT_{name.upper()}" for name, field in fields if "SecretStr" in str(field.annotation)}
    assert found - {"NIGHTSHIFT_ANTHROPIC_API_KEY"} <= set(settings.SECRETS)


def test_surroundings_tell_a_redis_that_was_named_from_the_default(monkeypatch):
    assert settings.surroundings().redis_url is None
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", "redis://127.0.0.1:6379/0")
    assert settings.surroundings().redis_url == "redis://127.0.0.1:6379/0"
