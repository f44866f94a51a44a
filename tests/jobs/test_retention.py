"""What is pruned, when, and by whom."""

from __future__ import annotations

import asyncio

import fsspec  # type: ignore[import-untyped]
import pytest

from jobs import actions, keys, queue_keys
from jobs.blobs import INLINE_BYTES
from jobs.errors import NotFoundError, UnavailableError
from jobs.files import FileStore, JobArtifacts
from jobs.link import RedisLink, connect
from jobs.moves import Child
from jobs.records import Job
from jobs.retention import BATCH, Pruned, Retention
from jobs.store import JobStore
from tests.jobs.driver import HOUR_MS, OUTLIVES_JOBS, SPEC, TENANT, Driver, attempt_of

BIG = "x" * INLINE_BYTES


@pytest.fixture
def location(tmp_path) -> str:
    return f"memory://{tmp_path}"


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


@pytest.fixture
def files(link: RedisLink, location: str) -> FileStore:
    return FileStore(link, location)


@pytest.fixture
def artifacts(files: FileStore) -> JobArtifacts:
    return JobArtifacts(files, TENANT)


@pytest.fixture
def retention(link: RedisLink, files: FileStore) -> Retention:
    """Prunes at once what has ended."""
    return Retention(link, files, 0, 0)


def contents(location: str) -> set[str]:
    filesystem, root = fsspec.core.url_to_fs(location)
    return {path.rpartition("/")[2] for path in filesystem.find(root)}


async def ended(driver: Driver, how: str = "complete", **spec) -> Job:
    job, attempt = await driver.start(**spec)
    await driver.end(job, attempt, how, {"output": BIG})
    return await driver.get(job)


async def held(link: RedisLink) -> set[str]:
    """Every key but those of the fleet: queues that there are, and counters."""
    found = {key.decode() for key in await link.command("KEYS", "*")}
    of_the_fleet = (keys.STATS, queue_keys.QUEUES, queue_keys.TURNS, keys.wake(""), *OUTLIVES_JOBS)
    return {key for key in found if not key.startswith(of_the_fleet)}


# ---- jobs


@pytest.mark.parametrize("how", ["complete", "fail", "stop"])
async def test_an_ended_job_leaves_nothing(link, driver, files, artifacts, retention, location, how):
    upload = await files.save(TENANT, "in.csv", b"1,2")
    job, attempt = await driver.start(session_id="s", files=[upload.id], user="u", tags=["t"])
    await driver.store.record(job.id, attempt.token, 1, {"cost": 5}, [("state.changed", {"text": BIG + "1"})])
    await artifacts.save(job.id, "out.txt", b"out")
    await artifacts.save(job.id, "out.txt", b"out, again")
    await driver.end(job, attempt, how, {"output": BIG})
    assert await retention.sweep() == Pruned(jobs=1, files=1, contents=3)
    assert await held(link) == set()
    assert contents(location) == set()
    with pytest.raises(NotFoundError):
        await driver.store.get(TENANT, job.id)
    assert await driver.store.lines(job.id) == []


async def test_a_parent_that_is_pruned_before_its_child_ends_leaves_nothing(link, driver, retention):
    parent, attempt = await driver.start()
    asked = (TENANT, SPEC.under(parent), parent.budget)
    child = (await driver.store.submit(*asked, child=Child("job_child", parent.token))).job
    await driver.end(parent, attempt)
    before = await held(link)
    assert {keys.children(parent.id), keys.ORPHANS} <= before
    assert await retention.prune_job(parent.id)
    assert {key for key in await held(link) if parent.id in key or key == keys.ORPHANS} == set()
    claim = await driver.claim_one()
    assert claim.job_id == child.id
    await driver.end(child, attempt_of(claim))
    assert await retention.prune_job(child.id)
    assert await held(link) == set()


async def test_one_that_expired_unstarted_leaves_nothing_either(link, driver, retention):
    await driver.into("expired")
    await driver.into("scheduled")
    await actions.cancel(driver.store, TENANT, (await driver.into("scheduled")).id)
    await driver.claim(5)  # takes the tickets of what has ended out of the queue
    before = await held(link)
    assert (await retention.sweep()).jobs == 2
    gone = before - await held(link)
    assert {key.split(":")[1] for key in gone} == {"job", "journal", "ended", "jobs", "canceled"} | {
        key.split(":")[1] for key in gone if key.startswith("rq:job:")
    }
    assert len([key for key in await held(link) if key.startswith("ns:job:")]) == 1


async def test_what_has_not_ended_or_not_for_long_stays(link, driver, files, retention):
    for status in ("scheduled", "queued", "running", "requires_action", "paused"):
        await driver.into(status, session_id=None)
        await driver.claim(9) if status == "queued" else None
    await ended(driver)
    before = await held(link)
    assert await Retention(link, files, HOUR_MS).sweep() == Pruned()
    assert await held(link) == before
    assert (await retention.sweep()).jobs == 1


async def test_a_job_that_was_retried_is_not_pruned_by_who_saw_it_ended(link, driver, retention):
    job = await ended(driver, "fail")
    await actions.retry(driver.store, TENANT, job.id)
    assert await link.command("ZCARD", keys.ENDED) == 0
    await link.command("ZADD", keys.ENDED, 1, job.id)
    assert await retention.prune_job(job.id) is False
    assert (await driver.get(job)).status == "queued"


async def test_of_many_pruners_one_wins_each_job(redis_url, driver, files, location):
    jobs = [await ended(driver) for _ in range(BATCH + 20)]
    links = [RedisLink(connect(redis_url)) for _ in range(3)]
    try:
        swept = await asyncio.gather(*(Retention(link, FileStore(link, location), 0, 0).sweep() for link in links))
    finally:
        await asyncio.gather(*(link.aclose() for link in links))
    assert sum(pruned.jobs for pruned in swept) == len(jobs)
    assert await driver.store.get_many([job.id for job in jobs]) == [None] * len(jobs)


async def test_a_blob_stays_while_another_job_refers_to_it(link, driver, retention):
    first = await ended(driver)
    second = await ended(driver)
    assert await retention.prune_job(first.id)
    assert (await driver.get(second)).output == BIG
    assert await retention.prune_job(second.id)
    assert await link.command("KEYS", "ns:blob*") == []


@pytest.mark.parametrize("damage", ["no hash", "no spec", "list", "gone"])
async def test_a_damaged_record_holds_up_no_other(link, driver, retention, damage):
    bad, good = await ended(driver), await ended(driver)
    key = keys.job(bad.id)
    await link.command("ZADD", keys.ENDED, 1, bad.id)
    if damage in ("no hash", "gone"):
        await link.command("DEL", key)
    if damage == "no hash":
        await link.command("SET", key, "rubbish")
    else:
        await link.command("HSET", key, "spec", "{" if damage == "no spec" else "[]") if damage != "gone" else None
    assert (await retention.sweep()).jobs == 1
    assert await driver.store.get_many([good.id]) == [None]
    assert await link.command("ZCARD", keys.ENDED) == (0 if damage == "gone" else 1)


async def test_a_full_redis_is_pruned_too(own_redis, location):
    link = RedisLink(connect(own_redis.url))
    files = FileStore(link, location)
    try:
        driver = Driver(JobStore(link))
        upload = await files.save(TENANT, "in.csv", b"1,2")
        job, attempt = await driver.start(files=[upload.id])
        await JobArtifacts(files, TENANT).save(job.id, "out.txt", b"out")
        await driver.end(job, attempt, "complete", {"output": BIG})
        await link.command("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(UnavailableError):
            await driver.submit()
        assert await Retention(link, files, 0, HOUR_MS).sweep() == Pruned(jobs=1, files=1)
    finally:
        await link.aclose()


# ---- files


async def test_an_upload_stays_while_a_job_names_it(link, driver, files, retention):
    upload = await files.save(TENANT, "in.csv", b"1,2")
    first, attempt = await driver.start(files=[upload.id])
    second = await driver.submit(files=[upload.id])
    await driver.end(first, attempt)
    assert await retention.sweep() == Pruned(jobs=1)
    assert await files.read(await files.get(TENANT, upload.id)) == b"1,2"
    await actions.cancel(driver.store, TENANT, second.id)
    assert await retention.sweep() == Pruned(jobs=1, files=1, contents=1)
    with pytest.raises(NotFoundError):
        await files.get(TENANT, upload.id)


async def test_an_upload_that_no_job_named_goes_after_the_same_time(link, files, retention):
    upload = await files.save(TENANT, "in.csv", b"1,2")
    assert await Retention(link, files, HOUR_MS, 0).sweep() == Pruned()
    assert await files.read(upload) == b"1,2"
    assert await retention.sweep() == Pruned(files=1, contents=1)


async def test_a_content_stays_while_any_file_names_it(driver, files, artifacts, retention):
    job = await ended(driver)
    await artifacts.save(job.id, "out.csv", b"1,2")
    other, _ = await driver.start()
    await artifacts.save(other.id, "mine.csv", b"1,2")
    assert await retention.sweep() == Pruned(jobs=1)
    (record,) = await files.artifacts(other.id)
    assert await files.read(record) == b"1,2"


async def test_an_unnamed_content_has_its_time_too(link, files, location):
    content = await files.write(b"never registered")
    assert await Retention(link, files, 0, HOUR_MS).sweep() == Pruned()
    assert contents(location) == {content.sha256}
    assert await Retention(link, files, 0, 0).sweep() == Pruned(contents=1)
    with pytest.raises(NotFoundError) as caught:
        await files.register(TENANT, "late.txt", content)
    assert caught.value.code == "file_gone"
    assert await link.command("KEYS", "*") == []


async def test_who_writes_a_content_that_is_being_deleted_waits(link, files, retention, location):
    content = await files.write(b"twice")
    lock = keys.content_lock(content.sha256)
    await link.command("SET", lock, 1)  # a pruner holds it, and is about to delete
    assert (await retention.sweep()).contents == 0  # another one leaves it alone
    again = asyncio.create_task(files.save(TENANT, "a.txt", b"twice"))
    done, _ = await asyncio.wait([again], timeout=0.2)
    assert not done
    await files.discard(content.sha256)
    await link.command("DEL", lock)
    assert await files.read(await again) == b"twice"
    assert await retention.sweep() == Pruned(files=1, contents=1)
