"""What the API reads from the environment."""

from __future__ import annotations

import pytest

from api.settings import Settings
from jobs.settings import SettingsError, load


def test_half_a_second_of_drain_is_valid_as_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DRAIN_SECONDS", "0.5")
    assert load(Settings).drain_seconds == 0.5


def test_the_admin_key_is_not_in_what_settings_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ADMIN_KEY", "ns_secret")
    found = load(Settings)
    assert "ns_secret" not in repr(found)
    assert found.admin_key is not None
    assert found.admin_key.get_secret_value() == "ns_secret"


def test_a_wrong_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PORT", "many")
    with pytest.raises(SettingsError, match="NIGHTSHIFT_PORT is 'many'"):
        load(Settings)
