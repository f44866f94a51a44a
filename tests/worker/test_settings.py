"""What a worker reads from the environment, and how it refuses to start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from jobs.settings import SettingsError, load
from worker.errors import StartError
from worker.models import make_model
from worker.runtime import serve_metrics_if_asked
from worker.settings import Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AGENTS",
        "POOLS",
        "CONCURRENCY",
        "SIMULATE",
        "MODEL_BASE_URL",
        "METRICS_PORT",
        "METRICS_HOST",
        "REDIS_URL",
    ):
        monkeypatch.delenv(f"NIGHTSHIFT_{name}", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSHIFT_AGENTS", "shop.agents, ./more.py,")
    monkeypatch.setenv("NIGHTSHIFT_POOLS", "gpu,default")
    settings = load(Settings)
    assert settings.agents == ["shop.agents", "./more.py"]
    assert settings.pools == ["gpu", "default"]
    assert (settings.concurrency, settings.lease_seconds, settings.data_dir) == (200, 15, Path(".nightshift"))


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("CONCURRENCY", "0", "greater than or equal to 1"),
        ("CONCURRENCY", "many", "valid integer"),
        ("LEASE_SECONDS", "1", "greater than or equal to 2"),
        ("DRAIN_SECONDS", "-1", "greater than or equal to 0"),
        ("RETENTION_DAYS", "-1", "greater than or equal to 0"),
        ("RETENTION_DAYS", "0.5", "valid integer"),
        ("METRICS_PORT", "70000", "less than or equal to 65535"),
        ("SIMULATE", "perhaps", "valid boolean"),
        ("LOG_FORMAT", "xml", "'json' or 'console'"),
        ("REDIS_URL", "localhost:6379", "expected redis://host:port/db"),
        ("REDIS_URL", "foo", "expected redis://host:port/db"),
        ("MODEL_BASE_URL", "foo", "expected a URL like https://host:port"),
        ("MODEL_BASE_URL", "localhost:8090", "expected a URL like https://host:port"),
        ("MODEL_BASE_URL", "http://", "expected a URL like https://host:port"),
        ("MODEL_BASE_URL", "http://localhost:port", "expected a URL like https://host:port"),
        ("MODEL_BASE_URL", "http://[::1", "expected a URL like https://host:port"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable_and_what_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, accepted: str
):
    monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    with pytest.raises(SettingsError) as caught:
        load(Settings)
    message = str(caught.value)
    assert message.startswith(f"NIGHTSHIFT_{name} is ")
    assert repr(value) in message
    assert accepted in message
    assert "\n" not in message
    assert "sk-secret" not in message


@pytest.mark.parametrize("name", ["NIGHTSHIFT_REDIS_URL", "NIGHTSHIFT_MODEL_BASE_URL", "NIGHTSHIFT_FILES_URL"])
def test_a_wrong_url_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "odd://:hunter/2@localhost:6379/0")
    with pytest.raises(SettingsError) as caught:
        load(Settings)
    assert str(caught.value).startswith(f"{name} is 'odd://***@localhost:6379/0': expected ")


def test_the_metrics_of_a_process_are_for_its_machine_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch):
    assert load(Settings).metrics_host == "127.0.0.1"
    monkeypatch.setenv("NIGHTSHIFT_METRICS_HOST", "::1")
    assert load(Settings).metrics_host == "::1"


HOOK = "https://example.test/hush"
WHSEC = "whsec_" + "aHVz" * 8


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ({"WEBHOOK_URL": "hush"}, "expected a URL like https://host/path"),
        ({"SLACK_URL": "ftp://hush"}, "expected a URL like https://host/path"),
        ({"WEBHOOK_SECRET": "", "WEBHOOK_URL": HOOK}, "expected whsec_ and the base64 of 24 to 64 bytes"),
        ({"WEBHOOK_SECRET": "hush"}, "expected whsec_ and the base64 of 24 to 64 bytes"),
        ({"WEBHOOK_SECRET": WHSEC[:-8], "WEBHOOK_URL": HOOK}, "expected whsec_ and the base64 of 24 to 64 bytes"),
        ({"WEBHOOK_SECRET": WHSEC + "!", "WEBHOOK_URL": HOOK}, "expected whsec_ and the base64 of 24 to 64 bytes"),
        ({"WEBHOOK_SECRET": "whsec_" + "aHVz" * 22}, "expected whsec_ and the base64 of 24 to 64 bytes"),
        ({"TELEGRAM_CHAT": "", "TELEGRAM_TOKEN": "hush"}, "expected the id of the chat"),
        ({"TELEGRAM_URL": "telegram"}, "expected a URL like https://host:port"),
        ({"DAILY_SPEND_USD": "0"}, "greater than 0"),
        ({"DAILY_SPEND_USD": "nan"}, "finite"),
        ({"ERROR_RATE_PERCENT": "101"}, "less than or equal to 100"),
        ({"ERROR_RATE_PERCENT": "nan"}, "less than or equal to 100"),
        ({"ERROR_RATE_PERCENT": "-1"}, "greater than or equal to 0"),
        ({"ERROR_RATE_JOBS": "0"}, "greater than or equal to 1"),
        ({"SPEND_RATE_TIMES": "0.5"}, "greater than or equal to 1"),
        ({"SPEND_RATE_TIMES": "inf"}, "finite"),
        ({"SPEND_RATE_FLOOR_USD": "-1"}, "greater than or equal to 0"),
    ],
)
def test_a_wrong_setting_of_alerts_is_named_and_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], accepted: str
):
    for name, value in given.items():
        monkeypatch.setenv(f"NIGHTSHIFT_ALERT_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load(Settings)
    message = str(caught.value)
    assert message.startswith(f"NIGHTSHIFT_ALERT_{next(iter(given))} is ")
    assert accepted in message
    assert "hush" not in message
    assert WHSEC[6:20] not in message


def test_the_secrets_of_alerts_are_not_in_what_settings_show(monkeypatch: pytest.MonkeyPatch):
    given = {"WEBHOOK_URL": HOOK, "WEBHOOK_SECRET": WHSEC, "SLACK_URL": HOOK, "TELEGRAM_TOKEN": "hush"}
    for name, value in {**given, "TELEGRAM_CHAT": "1"}.items():
        monkeypatch.setenv(f"NIGHTSHIFT_ALERT_{name}", value)
    settings = load(Settings)
    assert settings.alert_webhook_secret is not None
    assert settings.alert_webhook_secret.get_secret_value() == WHSEC
    assert not {"hush", WHSEC} & set(f"{settings!r}".split("'"))
    assert "hush" not in f"{settings!r}"


def test_the_admin_key_is_no_setting_of_a_worker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSHIFT_ADMIN_KEY", "ns_secret")
    assert "ns_secret" not in str(load(Settings).model_dump())
    assert "admin_key" not in Settings.model_fields


def test_the_key_is_not_in_what_settings_show():
    settings = Settings(ANTHROPIC_API_KEY="sk-secret")  # type: ignore[call-arg]
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in f"{settings!r}"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch):
    for name in ("NIGHTSHIFT_MODEL_BASE_URL", "NIGHTSHIFT_CONCURRENCY", "NIGHTSHIFT_AGENTS", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "")
    settings = load(Settings)
    assert (settings.model_base_url, settings.concurrency, settings.agents) == (None, 200, [])
    assert settings.anthropic_api_key is None


def make(**fields: object) -> Settings:
    return Settings(**fields)  # type: ignore[arg-type]


def test_a_worker_without_a_model_says_what_to_do():
    for settings in (make(), make(simulate=True), make(simulate=True, ANTHROPIC_API_KEY="k")):
        with pytest.raises(StartError, match="ANTHROPIC_API_KEY"):
            make_model(settings)


async def test_the_simulated_model_never_gets_the_real_key():
    url = "http://127.0.0.1:9"
    for settings, key in (
        (make(model_base_url=url), "simulated"),
        (make(model_base_url=url, simulate=True, ANTHROPIC_API_KEY="sk-real"), "simulated"),
        (make(model_base_url=url, ANTHROPIC_API_KEY="sk-real"), "sk-real"),
    ):
        model = make_model(settings)
        assert (model.client.api_key, str(model.client.base_url).rstrip("/")) == (key, url)
        await model.aclose()


def test_a_metrics_port_that_is_taken_is_one_line():
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            serve_metrics_if_asked(make(metrics_port=port), None)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"NIGHTSHIFT_METRICS_PORT: {port} on 127.0.0.1 (NIGHTSHIFT_METRICS_HOST)")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of the machine")
def test_metrics_are_served_at_that_address_alone():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stop = serve_metrics_if_asked(make(metrics_port=port), None)  # type: ignore[arg-type]
    try:
        with socket.create_server(("127.0.0.2", port)):  # could not be had if it listened on every address
            pass
        socket.create_connection(("127.0.0.1", port)).close()
    finally:
        stop()
