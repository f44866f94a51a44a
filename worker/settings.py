"""What a worker reads from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from jobs.settings import CommonSettings

CommaSeparated = Annotated[list[str], NoDecode]


class Settings(CommonSettings):
    """`agents` are modules or .py files that define agents; `concurrency` is jobs at once in one process.

    `lease_seconds` is how long a worker may be silent before its jobs are taken over; `drain_seconds` how long running
    jobs may go on after SIGTERM; `retention_days` how long a job is kept after its end, 0 for ever; `model_base_url` a
    server that speaks the Messages API; `prices` a JSON file of prices (`agent_core.pricing.Prices.from_json`), for
    models that have no published one. `metrics_port` serves the process's own metrics on the address `metrics_host`.
    """

    agents: CommaSeparated = Field(default_factory=list)
    pools: CommaSeparated = Field(default_factory=lambda: ["default"])
    concurrency: int = Field(200, ge=1, le=10_000)
    lease_seconds: int = Field(15, ge=2, le=3600)
    drain_seconds: float = Field(20, ge=0, le=3600)
    retention_days: int = Field(7, ge=0, le=36_500)
    model_base_url: str | None = None
    prices: Path | None = None
    simulate: bool = False
    metrics_port: int | None = Field(None, ge=1, le=65535)
    metrics_host: str = "127.0.0.1"
    anthropic_api_key: SecretStr | None = Field(None, validation_alias="ANTHROPIC_API_KEY")

    @field_validator("agents", "pools", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("model_base_url")
    @classmethod
    def _is_a_web_address(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "http://default")
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # of the port, or of the brackets around an IPv6 address
            known = False
        if not known:
            raise PydanticCustomError("model_base_url", "expected a URL like https://host:port")
        return value
