"""The tool that reads from the web, over a real server on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_core import DefinitionError, Tool
from agent_core.egress import Egress
from agent_core.toolbox import http_get
from agent_core.types import Json
from tests.agent_core.toolbox.web import Names, Web, call, dials, error


class Shelf:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def save(self, job_id: str, name: str, data: bytes) -> Json:
        self.files[name] = data
        return {"artifact": name}

    async def load(self, job_id: str, name: str) -> bytes:
        raise NotImplementedError


def tool_for(web: Web, *more: str, **limits: Any) -> Tool:
    return http_get([f"127.0.0.1:{web.port}", *more], egress=Egress(allow_private=True, **limits))


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "hello", "hello"),
        ("application/json", '{"a": 1}', '{"a": 1}'),
        ("text/html; charset=utf-8", "<p>ünï</p>", "<p>ünï</p>"),
        ("application/problem+json", "{}", "{}"),
        ("text/plain; charset=iso-8859-1", "é", "Ã©"),
        ("text/plain; charset=punycode", "é", "é"),
        ("text/plain; charset=zlib", "é", "é"),
    ],
)
async def test_texts_come_as_they_are(web: Web, tmp_path: Path, kind: str, body: str, text: str) -> None:
    url = f"http://127.0.0.1:{web.port}/page?type={kind.replace('+', '%2B').replace(';', '%3B')}&body={body}"
    result = await call(tool_for(web), tmp_path, url=url)
    assert (result.is_error, result.content) == (False, text)


async def test_anything_else_is_kept_with_the_job(web: Web, tmp_path: Path) -> None:
    shelf = Shelf()
    result = await call(tool_for(web), tmp_path, shelf, url=f"http://127.0.0.1:{web.port}/bytes?count=9")
    ((name, data),) = shelf.files.items()
    assert (name.startswith("download-"), name.endswith(".png"), data) == (True, True, bytes(9))
    assert json.loads(result.content) == {"content_type": "image/png", "bytes": 9, "artifact": {"artifact": name}}
    without = await call(tool_for(web), tmp_path, url=f"http://127.0.0.1:{web.port}/bytes?count=9")
    assert error(without)["code"] == "no_artifact_store"


async def test_only_allowed_hosts_are_asked(web: Web, tmp_path: Path) -> None:
    names = Names(evil_test=[["127.0.0.1"]])
    made = http_get(["127.0.0.1:1"], egress=Egress(allow_private=True, resolve=names))
    with dials() as seen:
        for url in (f"http://127.0.0.1:{web.port}/page", "http://evil.test/", "file:///etc/passwd"):
            assert error(await call(made, tmp_path, url=url))["code"] == "forbidden_target"
    assert (names.asked, seen, web.requests) == ([], [], [])


async def test_private_addresses_stay_shut_even_when_they_are_listed(web: Web, tmp_path: Path) -> None:
    made = http_get([f"127.0.0.1:{web.port}", "169.254.169.254"])
    with dials() as seen:
        for host in (f"127.0.0.1:{web.port}", "169.254.169.254"):
            assert error(await call(made, tmp_path, url=f"http://{host}/"))["code"] == "forbidden_target"
    assert seen == []


async def test_redirects_are_followed_within_the_list(web: Web, tmp_path: Path) -> None:
    base = f"http://127.0.0.1:{web.port}"
    assert (await call(tool_for(web), tmp_path, url=f"{base}/redirect?to=/page")).content == "hello"
    found = error(await call(tool_for(web), tmp_path, url=f"{base}/redirect?to=http://localhost:{web.port}/page"))
    assert found["code"] == "forbidden_target"


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (403, 1), (429, 3), (500, 3), (503, 3)])
async def test_a_failing_server_is_asked_again_and_then_reported(
    web: Web, tmp_path: Path, code: int, tries: int
) -> None:
    found = error(await call(tool_for(web), tmp_path, url=f"http://127.0.0.1:{web.port}/status?code={code}"))
    assert found == {
        "code": "http_error",
        "message": f"the server answered {code}: no such page",
        "retryable": tries > 1,
    }
    assert len(web.requests) == tries


async def test_limits_hold(web: Web, tmp_path: Path) -> None:
    long = await call(tool_for(web, max_bytes=100), tmp_path, url=f"http://127.0.0.1:{web.port}/endless")
    assert error(long)["code"] == "too_large"
    silent = await call(tool_for(web, seconds=0.1), tmp_path, url=f"http://127.0.0.1:{web.port}/silent")
    assert (error(silent)["code"], len(web.requests)) == ("timeout", 4)  # a timeout is tried again


def test_what_the_model_sees() -> None:
    made = http_get(["api.example.com", "*.example.org"])
    assert made.description.endswith("The allowed hosts are: api.example.com, *.example.org.")
    assert (made.name, made.effect) == ("http_get", "read")


@pytest.mark.parametrize("allow", [[], "api.example.com", ["https://api.example.com"], ["*"]])
def test_a_list_that_is_none(allow: Any) -> None:
    with pytest.raises(DefinitionError, match="allow"):
        http_get(allow)
