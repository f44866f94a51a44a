"""What a worker reads from the environment."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from agent_core.targets import SERVER
from jobs.settings import CommonSettings, MemorySettings, is_web_address

CommaSeparated = Annotated[list[str], NoDecode]
SECRET_BYTES = range(24, 65)
"""What Standard Webhooks allows."""


class AlertSettings(CommonSettings):
    """Whom alerts reach: a webhook with the secret that signs its messages, an incoming webhook of Slack, a chat of a
    Telegram bot. And when they are raised: `jobs.conditions.Thresholds`.
    """

    alert_webhook_url: SecretStr | None = None
    alert_webhook_secret: SecretStr | None = Field(None, validate_default=True)
    alert_slack_url: SecretStr | None = None
    alert_telegram_token: SecretStr | None = None
    alert_telegram_chat: str | None = Field(None, validate_default=True)
    alert_telegram_url: str = "https://api.telegram.org"
    alert_daily_spend_usd: Decimal | None = Field(None, gt=0)
    alert_error_rate_percent: float = Field(5, ge=0, le=100)
    alert_error_rate_jobs: int = Field(20, ge=1)
    alert_spend_rate_times: float = Field(3, ge=1, allow_inf_nan=False)
    alert_spend_rate_floor_usd: Decimal = Field(Decimal(1), ge=0)

    @field_validator("alert_webhook_url", "alert_slack_url")
    @classmethod
    def _are_web_addresses(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not is_web_address(value.get_secret_value()):
            raise PydanticCustomError("alert_url", "expected a URL like https://host/path")
        return value

    @field_validator("alert_telegram_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not is_web_address(value):
            raise PydanticCustomError("alert_telegram_url", "expected a URL like https://host:port")
        return value

    @field_validator("alert_webhook_secret")
    @classmethod
    def _can_sign(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and not info.data.get("alert_webhook_url"):
            return None
        kind, _, text = (value.get_secret_value() if value else "").partition("_")
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            raw = b""
        if kind != "whsec" or len(raw) not in SECRET_BYTES:
            why = "expected whsec_ and the base64 of 24 to 64 bytes, with which the messages to the webhook are signed"
            raise PydanticCustomError("alert_webhook_secret", "{why}", {"why": why})
        return value

    @field_validator("alert_telegram_chat")
    @classmethod
    def _has_a_chat(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("alert_telegram_token"):
            raise PydanticCustomError("alert_telegram_chat", "expected the id of the chat that the bot writes into")
        return value


class Settings(AlertSettings, MemorySettings):
    """`agents` are modules or .py files that define agents; `concurrency` is jobs at once in one process.

    `lease_seconds` is how long a worker may be silent before its jobs are taken over; `drain_seconds` how long running
    jobs may go on after SIGTERM; `retention_days` how long a job is kept after its end and `audit_days` an entry of an
    audit log, 0 for ever; `memory_unused_days` after how many days what nobody said again and no job had a use for is
    forgotten, 0 for never; `model_base_url` a server that speaks the Messages API, `model_servers` others by the names
    that agents' targets have for them. `metrics_port` serves the process's own metrics on the address `metrics_host`.
    """

    agents: CommaSeparated = Field(default_factory=list)
    pools: CommaSeparated = Field(default_factory=lambda: ["default"])
    concurrency: int = Field(200, ge=1, le=10_000)
    lease_seconds: int = Field(15, ge=2, le=3600)
    drain_seconds: float = Field(20, ge=0, le=3600)
    retention_days: int = Field(7, ge=0, le=36_500)
    audit_days: int = Field(400, ge=0, le=36_500)
    memory_unused_days: int = Field(0, ge=0, le=36_500)
    model_base_url: str | None = None
    model_servers: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    model_server_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(default_factory=dict)
    simulate: bool = False
    metrics_port: int | None = Field(None, ge=1, le=65535)
    metrics_host: str = "127.0.0.1"
    anthropic_api_key: SecretStr | None = Field(None, validation_alias="ANTHROPIC_API_KEY")

    @field_validator("agents", "pools", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("model_servers", "model_server_keys", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        return {name.strip(): text.strip() for name, _, text in pairs}

    @field_validator("model_servers")
    @classmethod
    def _are_servers(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(SERVER.fullmatch(name) and is_web_address(url) for name, url in value.items()):
            why = "expected names and URLs, like second=https://host:port,local=http://localhost:11434"
            raise PydanticCustomError("model_servers", "{why}", {"why": why})
        return value

    @field_validator("model_base_url")
    @classmethod
    def _is_a_web_address(cls, value: str | None) -> str | None:
        if value and not is_web_address(value):
            raise PydanticCustomError("model_base_url", "expected a URL like https://host:port")
        return value


def environment() -> Mapping[str, str]:
    """The whole environment, for what agents name in it with `from_env`."""
    return os.environ
