"""What a wrong variable says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from jobs.settings import CommonSettings, SettingsError, load, without_secrets

ROOT = Path(__file__).parents[2]


class Some(CommonSettings):
    count: int = Field(5, ge=1)
    secret: SecretStr | None = Field(None, min_length=20)
    key: SecretStr | None = Field(None, min_length=20, validation_alias="OTHER_VENDOR_KEY")


def test_defaults_need_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHIFT_REDIS_URL", raising=False)
    monkeypatch.delenv("NIGHTSHIFT_COUNT", raising=False)
    found = load(Some)
    assert (found.redis_url, found.count) == ("redis://127.0.0.1:6379/0", 5)
    assert found.files_location.startswith("file:///")


def test_variables_have_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_COUNT", "7")
    monkeypatch.setenv("NIGHTSHIFT_FILES_URL", "memory://bucket")
    found = load(Some)
    assert (found.count, found.files_location) == (7, "memory://bucket")


@pytest.mark.parametrize("place", ["/srv/files", "file:///srv/files", "memory://x", "simplecache::file:///srv"])
def test_files_live_where_fsspec_reaches(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("NIGHTSHIFT_FILES_URL", place)
    assert load(Some).files_location == place


def test_prices_of_ones_own_stand_beside_the_published_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"our-own": {"input": 3, "output": 15}}')
    monkeypatch.setenv("NIGHTSHIFT_PRICES", str(file))
    prices = load(Some).price_list
    assert prices.worst_case("our-own", 0, 1000) > 15_000
    assert prices.worst_case("claude-sonnet-5-5", 0, 1000) > 0
    monkeypatch.delenv("NIGHTSHIFT_PRICES")
    assert not load(Some).price_list.own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "No such file or directory"),
        ("{", "Expecting property name"),
        ('{"m": {"input": 3}}', "'m': expected an object with input and output"),
        ('{"m": {"input": -3, "output": 1}}', "'m': input is -3; expected USD for a million tokens"),
    ],
)
def test_a_file_that_has_no_prices_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: str
) -> None:
    file = tmp_path / "prices.json"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("NIGHTSHIFT_PRICES", str(file))
    with pytest.raises(SettingsError) as caught:
        load(Some)
    assert str(caught.value).startswith(f"NIGHTSHIFT_PRICES is '{file}': expected a JSON file of prices: {expected}")


def test_settings_load_no_price_data_unless_asked_for_prices() -> None:
    """It takes longer to load than most commands run."""
    code = "import sys; from jobs.settings import *; load(CommonSettings); sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="the driver is installed")
@pytest.mark.parametrize("place", ["s3://bucket/prefix", "simplecache::s3://bucket"])
def test_a_missing_driver_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("NIGHTSHIFT_FILES_URL", place)
    with pytest.raises(SettingsError, match=r"its driver is not installed: pip install 'nightshift\[s3\]'"):
        load(Some)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NIGHTSHIFT_COUNT", "0", "NIGHTSHIFT_COUNT is '0': input should be greater than or equal to 1"),
        ("NIGHTSHIFT_COUNT", "many", "NIGHTSHIFT_COUNT is 'many': input should be a valid integer"),
        ("NIGHTSHIFT_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("NIGHTSHIFT_FILES_URL", "nope://x", "expected an fsspec URL"),
        ("NIGHTSHIFT_SECRET", "hunter2", "NIGHTSHIFT_SECRET is wrong: value should have at least 20 items"),
        ("OTHER_VENDOR_KEY", "hunter2", "OTHER_VENDOR_KEY is wrong: value should have at least 20 items"),
    ],
)
def test_a_wrong_value_is_told_in_one_line_and_a_secret_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(Some)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("foo", "foo"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis://user:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:hunter/2@host", "redis://***@host"),
        ("redis://:hunter@2@host", "redis://***@host"),
        (":hunter2@host:6379", "***@host:6379"),
        ("user:x://hunter2@host", "***@host"),
        ("redis://host?password=hunter2", "redis://host"),
        ("redis://host?password=hun@ter2", "redis://***@"),
        ("redis://:hun?ter2@host", "redis://***@"),
        ("redis://:hun#ter2@host", "redis://***@"),
        ("", ""),
        ("a\nhunter2@b", "***@b"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_secrets_are_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    class More(Some):
        headers: dict[str, list[SecretStr]] = Field(default_factory=dict)

    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", "redis://user:p%40ssword-1@127.0.0.1:6379/0")
    monkeypatch.setenv("NIGHTSHIFT_FILES_URL", "memory://bucket")
    monkeypatch.setenv("NIGHTSHIFT_SECRET", "a-secret-of-twenty-letters")
    monkeypatch.setenv("NIGHTSHIFT_HEADERS", '{"mcp": ["Bearer one", "two"]}')
    found = load(More).secrets
    assert sorted(found) == ["Bearer one", "a-secret-of-twenty-letters", "p%40ssword-1", "p@ssword-1", "two"]


def test_a_password_in_a_query_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", "unix:///run/redis.sock?password=hunter22&db=1")
    assert load(Some).secrets == ["hunter22"]
