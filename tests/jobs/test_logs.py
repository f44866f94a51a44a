"""What is logged, by whoever, without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from agent_core.redaction import Redactor
from jobs.logs import configure_logging

SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def logging_of_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_shows_a_secret(log_format: Literal["json", "console"], capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format, "info", Redactor([SECRET]))
    structlog.get_logger("test").warning("asked", url=f"redis://u:{SECRET}@h", error=ValueError(SECRET), n=1)
    logging.getLogger("library").warning("key %s", "sk-ant-api03-0123456789abcdef")
    try:
        raise ValueError(f"bad\n{SECRET}")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert "sk-ant-" not in shown
    assert "redis://[redacted:userinfo]@h" in shown or "redis://u:[redacted:secret]@h" in shown
    assert shown.count("[redacted:secret]") == 3
    if log_format == "json":
        assert all(json.loads(line)["event"] for line in shown.splitlines())
