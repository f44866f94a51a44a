from __future__ import annotations

import asyncio

import pytest

from jobs.files import FileStore, JobArtifacts
from tests.api.conftest import submitted, until


async def uploaded(api, name: str, content: bytes, **headers: str):
    return await api.post("/v1/files", params={"name": name}, content=content, headers=headers)


@pytest.mark.parametrize("name", ["a.csv", "über uns.txt", 'q"u;o.txt', "..."])
async def test_a_file_comes_back_as_it_was_sent(api, name):
    content = bytes(range(256)) * 100
    answer = await uploaded(api, name, content, **{"Content-Type": "text/html"})
    file = answer.json()
    assert answer.status_code == 201
    assert (file["name"], file["bytes"]) == (name, len(content))
    download = await api.get(answer.headers["location"])
    assert download.content == content
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert download.headers["x-content-type-options"] == "nosniff"


async def test_an_empty_file_is_a_file(api):
    answer = await uploaded(api, "empty", b"")
    assert (await api.get(answer.headers["location"])).content == b""


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a\\b", "a\x00b", "a\nb", "ü" * 128, "x" * 256])
async def test_a_name_that_is_a_path_is_refused(api, name):
    assert (await uploaded(api, name, b"x")).status_code == 422


async def test_a_file_beyond_the_limit_is_refused_and_leaves_nothing(api, settings):
    async def chunks():
        for _ in range(20):
            yield b"x" * 100_000

    for content in (b"x" * (2 << 20), chunks()):
        answer = await api.post("/v1/files", params={"name": "big"}, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()] == []


async def test_an_upload_is_kept_once_for_its_key(api):
    first, again = [await uploaded(api, "a", b"1", **{"Idempotency-Key": "u"}) for _ in range(2)]
    assert first.json() == again.json()
    for name, content in (("b", b"1"), ("a", b"2")):
        other = await uploaded(api, name, content, **{"Idempotency-Key": "u"})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_client_that_goes_away_in_an_upload_leaves_nothing(url, settings, link):
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/files?name=a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.format(settings.admin_key.get_secret_value()).encode() + b"part")
    await writer.drain()
    drafts = settings.data_dir / "files" / "drafts"

    async def drafted() -> bool:
        return drafts.exists() and any(drafts.iterdir())

    async def cleared() -> bool:
        return not any(drafts.iterdir())

    await until(drafted)
    writer.close()
    await until(cleared)
    assert await link.command("KEYS", "ns:file:*") == []


async def test_what_a_jobs_tools_kept_is_listed_and_downloaded(api, echo, link, settings):
    job = await submitted(api)
    artifacts = JobArtifacts(FileStore(link, settings.files_location), "default")
    saved = [await artifacts.save(job["id"], name, name.encode()) for name in ("plot.png", "table.csv")]
    listed = (await api.get(f"/v1/jobs/{job['id']}/artifacts")).json()
    assert {file["id"] for file in listed["data"]} == {file["id"] for file in saved}
    assert (await api.get(f"/v1/files/{saved[1]['id']}")).content == b"table.csv"


async def test_a_content_that_is_gone_is_not_found(api, settings):
    answer = await uploaded(api, "a", b"1")
    for path in (settings.data_dir / "files" / "contents").rglob("*"):
        if path.is_file():
            path.unlink()
    gone = await api.get(answer.headers["location"])
    assert (gone.status_code, gone.json()["code"]) == (404, "file_gone")
