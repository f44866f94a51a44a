"""What every process of the platform reads from the environment, and how it refuses a wrong value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec  # type: ignore[import-untyped]
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from agent_core.failpoints import Plan

if TYPE_CHECKING:
    from agent_core.pricing import Prices

PREFIX = "NIGHTSHIFT_"
SHOWABLE = re.compile(r"([a-z][a-z0-9+.-]*://)?(.*@)?([^?#]*).*", re.DOTALL | re.IGNORECASE)
"""The scheme, the credentials, and what is before a query."""
BEHIND_HTTP = ("openai", "voyage")
"""Embedders that are servers; the others run in the process, with a model of their own that they have by default."""
LARGEST_VECTOR = 65_536
"""Numbers in one, as Qdrant takes them."""


class CommonSettings(BaseSettings):
    """Settings that the API and the workers share. `redis_url` also takes `unix:///path` and `rediss://`.

    `webhook_allow_private` lets webhooks go to loopback and private addresses, and to any port.
    `prices` is a JSON file of prices (`agent_core.pricing.Prices.from_json`) beside the published ones.
    `failpoints` is for the fault suite alone; see `agent_core.failpoints`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    redis_url: str = "redis://127.0.0.1:6379/0"
    data_dir: Path = Path(".nightshift")
    files_url: str | None = None
    prices: Path | None = None
    webhook_allow_private: bool = False
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    failpoints: str = ""

    @field_validator("redis_url")
    @classmethod
    def _can_be_parsed(cls, value: str) -> str:
        try:
            parse_url(value)  # type: ignore[no-untyped-call]
        except ValueError:  # its text can hold a part of the password
            accepted = "expected redis://host:port/db, rediss://host:port/db or unix:///path"
            raise PydanticCustomError("redis_url", accepted) from None
        return value

    @field_validator("failpoints")
    @classmethod
    def _is_a_plan(cls, value: str) -> str:
        try:
            Plan(value)
        except ValueError as exc:
            raise PydanticCustomError("failpoints", "{why}", {"why": str(exc)}) from None
        return value

    @field_validator("files_url")
    @classmethod
    def _has_a_driver(cls, value: str | None) -> str | None:
        protocol = value.partition("://")[0] if value and "://" in value else "file"
        try:
            for part in protocol.split("::"):  # fsspec's chained URLs, as simplecache::s3://bucket
                fsspec.get_filesystem_class(part)
        except ImportError:
            s3 = part in ("s3", "s3a")
            what = "pip install 'nightshift[s3]'" if s3 else f"install the fsspec driver of {part}"
            raise PydanticCustomError("files_url", "its driver is not installed: {what}", {"what": what}) from None
        except ValueError:
            raise PydanticCustomError(
                "files_url", "expected an fsspec URL, as file:///srv/files or s3://bucket"
            ) from None
        return value

    @field_validator("prices")
    @classmethod
    def _has_prices(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                _read_prices(value)
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise PydanticCustomError("prices", "expected a JSON file of prices: {why}", {"why": why}) from None
        return value

    @property
    def price_list(self) -> Prices:
        """The published prices and those of the file `prices`."""
        return _read_prices(self.prices)

    @property
    def secrets(self) -> list[str]:
        """What no log and no journal may show: every SecretStr, and the passwords of URLs."""
        return [secret for name in type(self).model_fields for secret in _secrets_of(getattr(self, name))]

    @property
    def files_location(self) -> str:
        """Where uploaded files and artifacts live, as an fsspec URL."""
        return self.files_url or f"file://{(self.data_dir / 'files').absolute()}"


class MemorySettings(CommonSettings):
    """Settings that the API and the workers share, and nobody else needs: where long-term memory is, and what turns its
    texts into vectors.

    `embedder_url` ends before `/embeddings`; `embedder_size` is how many numbers the vectors of `embedder_model` have.
    """

    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    embedder: Literal["openai", "voyage", "fastembed", "sentence-transformers"] | None = None
    embedder_model: str | None = Field(default=None, validate_default=True)
    embedder_size: int | None = Field(default=None, ge=1, le=LARGEST_VECTOR, validate_default=True)
    embedder_url: str | None = None
    embedder_api_key: SecretStr | None = Field(default=None, validate_default=True)

    @field_validator("qdrant_url", "embedder_url")
    @classmethod
    def _are_addresses(cls, value: str | None) -> str | None:
        if value is not None and not is_web_address(value):
            raise PydanticCustomError("server_url", "expected a URL like https://host:port")
        return value

    @field_validator("embedder")
    @classmethod
    def _is_installed(cls, value: str | None) -> str | None:
        if value and value not in BEHIND_HTTP and find_spec(value.replace("-", "_")) is None:
            why = f"it is not installed: pip install 'nightshift[{value}]'"
            raise PydanticCustomError("embedder", "{why}", {"why": why})
        return value

    @field_validator("embedder_model", "embedder_size", "embedder_url", "embedder_api_key")
    @classmethod
    def _fits_the_embedder(cls, value: object, info: ValidationInfo) -> object:
        if "embedder" in info.data and (why := _misfit(str(info.field_name), value, info.data)):
            raise PydanticCustomError("embedder_setting", "{why}", {"why": why})
        return value


def is_web_address(url: str) -> bool:
    """Whether it is a URL of a web server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of the brackets around an IPv6 address
        return False


def _misfit(name: str, value: object, known: dict[str, object]) -> str | None:
    """Why a setting of an embedder does not go with the ones before it."""
    embedder = known["embedder"]
    given, over_http = value is not None, embedder in BEHIND_HTTP
    if embedder is None:
        return "it needs NIGHTSHIFT_EMBEDDER" if given else None
    if name in ("embedder_url", "embedder_api_key") and not over_http:
        return f"the embedder {embedder} runs in the process and has none" if given else None
    needed = {
        "embedder_model": over_http,
        "embedder_size": over_http or known.get("embedder_model") is not None,
        "embedder_api_key": embedder == "voyage",
    }
    if needed.get(name) and not given:
        return f"the embedder {embedder} needs it"
    if name == "embedder_size" and given and not over_http and known.get("embedder_model") is None:
        return "it needs NIGHTSHIFT_EMBEDDER_MODEL"
    return None


def _read_prices(path: Path | None) -> Prices:
    """Raises OSError, ValueError."""
    from agent_core.pricing import PUBLISHED, Prices  # takes long to load, and most commands need no price

    return PUBLISHED if path is None else Prices.from_json(path.read_text("utf-8"))


def _secrets_of(value: object) -> Iterator[str]:
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case str() if "://" in value:
            credentials, query = value.partition("://")[2].rpartition("@")[0], value.partition("?")[2]
            password = credentials.partition(":")[2] or parse_qs(query).get("password", [""])[0]
            yield from {password, unquote(password)} - {""}
        case dict():
            yield from (secret for item in value.values() for secret in _secrets_of(item))
        case list() | tuple():
            yield from (secret for item in value for secret in _secrets_of(item))


Settings = TypeVar("Settings", bound=BaseSettings)


class SettingsError(Exception):
    """A variable holds a wrong value; the message is one line that names it and what is accepted."""


def load(cls: type[Settings]) -> Settings:
    """The settings from the environment. Raises SettingsError."""
    try:
        return cls()
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = str(first["loc"][0])
        field = cls.model_fields.get(place)
        name = place if field is None else f"{PREFIX}{place.upper()}"  # a variable with a name of its own has that here
        telling = field is not None and "Secret" not in str(field.annotation)
        value = without_secrets(str(first["input"])) if place.endswith("url") else first["input"]
        held = repr(value) if telling else "wrong"
        raise SettingsError(f"{name} is {held}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def without_secrets(url: str) -> str:
    """A URL, or what was meant as one, as it may be shown: without credentials, and without its query."""
    found = SHOWABLE.fullmatch(url)
    assert found is not None
    scheme, secret, place = found.groups(default="")
    if "?" in secret or "#" in secret:  # the @ may stand in the query, and so may the password
        place = ""
    return f"{scheme}{'***@' if secret else ''}{place}"
