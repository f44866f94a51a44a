"""What the command line reads from the environment; nothing else in this package does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cli import datadir
from cli.errors import UsageError
from memory.embedded.key import ensure_key

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from jobs.settings import MemorySettings

T = TypeVar("T", bound="BaseSettings")
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_DATA_DIR = Path(".nightshift")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MODEL_SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "NIGHTSHIFT_MODEL_SERVER_KEYS")
"""What a worker needs for the real model."""
ALERT_SECRETS = (
    "NIGHTSHIFT_ALERT_WEBHOOK_URL",
    "NIGHTSHIFT_ALERT_WEBHOOK_SECRET",
    "NIGHTSHIFT_ALERT_SLACK_URL",
    "NIGHTSHIFT_ALERT_TELEGRAM_TOKEN",
)
"""What a worker needs to tell people of alerts."""
MEMORY_SECRETS = ("NIGHTSHIFT_QDRANT_API_KEY", "NIGHTSHIFT_EMBEDDER_API_KEY")
"""What the API and a worker need for long-term memory."""
SECRETS = (*MODEL_SECRETS, *ALERT_SECRETS, *MEMORY_SECRETS, "NIGHTSHIFT_API_KEY", "NIGHTSHIFT_ADMIN_KEY")
"""Variables that no process of the platform gets from here unless it needs them: tools run in some."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is and the key to use; `url_from` says where the URL was found."""

    url: str
    key: str | None
    url_from: str

    @property
    def local(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the environment says about a platform to start. `agents` is as NIGHTSHIFT_AGENTS holds it."""

    redis_url: str | None
    qdrant_url: str | None
    admin_key: str | None
    agents: str | None
    model_base_url: str | None
    model_key: bool
    simulate: bool
    drain_seconds: float
    metrics_port: int | None


def data_dir(option: Path | None) -> Path:
    """The data directory: the option, else NIGHTSHIFT_DATA_DIR, else `.nightshift` here."""
    return option or Path(os.environ.get("NIGHTSHIFT_DATA_DIR") or DEFAULT_DATA_DIR)


def connection(data_dir_option: Path | None = None) -> Connection:
    """The API to speak to. Raises UsageError for a URL that is none.

    The keys of the platform on this machine are sent to this machine only.
    """
    directory = data_dir(data_dir_option)
    url, url_from = os.environ.get("NIGHTSHIFT_URL"), "NIGHTSHIFT_URL"
    if not url:
        url, url_from = datadir.read_api_url(directory), str(directory / datadir.API_URL)
    if not url:
        url, url_from = DEFAULT_URL, "the default"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"NIGHTSHIFT_URL is {url!r}; expected something like {DEFAULT_URL}")
    key = os.environ.get("NIGHTSHIFT_API_KEY")
    if not key and parts.hostname in LOOPBACK:
        key = os.environ.get("NIGHTSHIFT_ADMIN_KEY") or datadir.read_admin_key(directory)
    return Connection(url.rstrip("/"), key or None, url_from)


def load(cls: type[T]) -> T:
    """A process's settings. Raises UsageError with the line that names the wrong variable."""
    from jobs import settings

    try:
        return settings.load(cls)
    except settings.SettingsError as exc:
        raise UsageError(str(exc)) from None


def surroundings() -> Surroundings:
    """What the environment says about a platform to start here. Raises UsageError."""
    from api.settings import Settings as ApiSettings
    from worker.settings import Settings

    settings, api = load(Settings), load(ApiSettings)
    return Surroundings(
        redis_url=settings.redis_url if "redis_url" in settings.model_fields_set else None,
        qdrant_url=settings.qdrant_url,
        admin_key=api.admin_key.get_secret_value() if api.admin_key else None,
        agents=os.environ.get("NIGHTSHIFT_AGENTS"),
        model_base_url=settings.model_base_url,
        model_key=settings.anthropic_api_key is not None,
        simulate=settings.simulate,
        drain_seconds=settings.drain_seconds,
        metrics_port=settings.metrics_port,
    )


def memory(data_dir_option: Path | None = None) -> MemorySettings:
    """Where long-term memory is: as the environment says, else the embedded one of the platform that runs in the data
    directory. Raises UsageError.
    """
    from jobs.settings import MemorySettings

    directory, found = data_dir(data_dir_option), load(MemorySettings)
    url = datadir.holder(directory).get("qdrant_url")
    if found.qdrant_url is not None or url is None:
        return found
    from pydantic import SecretStr

    key = SecretStr(ensure_key(directory / datadir.MEMORY))
    return found.model_copy(update={"qdrant_url": url, "qdrant_api_key": key})


def child_environment(*secrets: str) -> dict[str, str]:
    """The environment for a process that this one starts: no secret but those that are named."""
    environment = {k: v for k, v in os.environ.items() if k in secrets or k not in SECRETS}
    root = Path(__file__).parent.parent
    if (root / "pyproject.toml").is_file():  # a source tree that may not be installed
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *([known] if known else [])])
    return environment


def search_path() -> str | None:
    """PATH."""
    return os.environ.get("PATH")
