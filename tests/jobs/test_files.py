from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import keys
from jobs.errors import InvalidError, NotFoundError, StaleAttemptError
from jobs.files import CHUNK, FileStore, JobArtifacts, check_name


@pytest.fixture(params=["file", "memory"])
def location(request, tmp_path) -> str:
    return f"{request.param}://{tmp_path}/kept"


@pytest.fixture
def files(link, location) -> FileStore:
    return FileStore(link, location)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def kept(location: str) -> list[str]:
    """The paths of all that the place of contents holds."""
    filesystem, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
    return [str(path) for path in filesystem.find(root)]


async def test_bytes_and_pieces_are_read_back(files):
    whole = await files.save("t", "a", b"abc" * CHUNK)
    pieced = await files.save("t", "b", pieces(b"abc", b"", b"def"))
    assert await files.read(whole) == b"abc" * CHUNK
    assert (pieced.bytes, await files.read(pieced)) == (6, b"abcdef")
    assert await files.get("t", pieced.id) == pieced


async def test_one_content_is_kept_once_under_many_names(files, location):
    first = await files.save("t", "a", b"same")
    second = await files.save("other", "b", pieces(b"sa", b"me"))
    assert first.sha256 == second.sha256
    assert first.id != second.id
    assert len(kept(location)) == 1


async def test_a_write_that_breaks_off_leaves_nothing(files, location, link):
    async def broken() -> AsyncIterator[bytes]:
        yield b"part"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await files.save("t", "a", broken())
    assert kept(location) == []
    assert await link.command("KEYS", "*") == []


async def test_a_file_is_its_tenants_alone(files):
    record = await files.save("t", "a", b"x")
    for tenant, file_id in (("other", record.id), ("t", "file_0")):
        with pytest.raises(NotFoundError):
            await files.get(tenant, file_id)


async def test_a_file_is_fetched_under_its_name_and_never_elsewhere(files, tmp_path):
    record = await files.save("t", "a.csv", b"1,2")
    path = await files.fetch(record, tmp_path)
    assert path == tmp_path / "a.csv"
    assert path.read_bytes() == b"1,2"
    with pytest.raises(InvalidError):
        await files.fetch(replace(record, name="../a.csv"), tmp_path)


async def test_artifacts_are_the_jobs_own(files, link):
    for job_id in ("job_1", "job_2"):
        await link.command("HSET", keys.job(job_id), "status", "running")
    artifacts = JobArtifacts(files, "t")
    saved = await artifacts.save("job_1", "plot.png", b"png")
    await artifacts.save("job_2", "other.png", b"png")
    await files.save("t", "upload", b"x")
    (record,) = await files.artifacts("job_1")
    assert saved == {"artifact": "plot.png", "id": record.id, "bytes": 3}
    assert (record.tenant, record.job_id, record.name) == ("t", "job_1", "plot.png")
    assert await artifacts.load("job_1", "plot.png") == b"png"
    for job_id, name in (("job_1", "other.png"), ("job_2", "plot.png")):
        with pytest.raises(FileNotFoundError):
            await artifacts.load(job_id, name)


async def test_an_artifact_of_a_job_that_is_no_more_is_refused(files, link):
    with pytest.raises(NotFoundError) as caught:
        await JobArtifacts(files, "t").save("job_1", "plot.png", b"png")
    assert caught.value.code == "job_not_found"
    assert await link.command("KEYS", "ns:*file*") == []


async def test_an_attempt_that_lost_its_job_replaces_no_artifact(files, link):
    await link.command("HSET", keys.job("job_1"), "token", "second")
    await JobArtifacts(files, "t", "second").save("job_1", "plot.png", b"new")
    with pytest.raises(StaleAttemptError):
        await JobArtifacts(files, "t", "first").save("job_1", "plot.png", b"old")
    assert await JobArtifacts(files, "t").load("job_1", "plot.png") == b"new"


async def test_what_a_killed_write_left_goes_after_a_while(files, location):
    filesystem, root = fsspec.core.url_to_fs(location)
    await files.discard_drafts(0)  # none yet
    await files.save("t", "a", b"whole")
    filesystem.pipe(f"{root}/drafts/half", b"half")
    await files.discard_drafts(3600)
    assert len(kept(location)) == 2
    await files.discard_drafts(-1)
    assert [path.rpartition("/")[2] for path in kept(location)] == [hashlib.sha256(b"whole").hexdigest()]


async def test_a_bad_name_is_refused_before_anything_is_written(files, location):
    with pytest.raises(InvalidError):
        await files.save("t", "a/b", b"x")
    assert kept(location) == []


@given(st.text(max_size=300))
def test_a_name_that_is_accepted_stays_in_its_directory(name: str):
    try:
        check_name(name)
    except InvalidError:
        return
    path = Path("/work") / name
    assert path.parent == Path("/work")
    assert path.name == name
    assert not {"\x00", "\n", "/", "\\"} & set(name)
