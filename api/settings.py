"""What the API process reads from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from jobs.settings import MemorySettings


class Settings(MemorySettings):
    """`metrics` serves `/metrics`, which needs no key; `docs` serves the interactive documentation at `/docs`.

    `max_connections` may be open at once; one more is answered with 503.

    `wait_replicas` replicas of Redis must have a submission before it is answered with 202; 0 asks none.
    `max_file_mb` bounds one upload; `drain_seconds` is how long requests may go on after SIGTERM; `admin_key` is the
    bootstrap key of the default tenant.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    metrics: bool = True
    docs: bool = True
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    wait_replicas: Annotated[int, Field(ge=0, le=10)] = 0
    max_file_mb: Annotated[int, Field(ge=1, le=100_000)] = 100
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 10
    admin_key: SecretStr | None = None
