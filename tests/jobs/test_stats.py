"""Counters of a worker, and how they reach the fleet's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from jobs import stats
from jobs.link import RedisLink
from jobs.stats import BUCKETS, Stats
from jobs.store import JobStore
from tests.jobs.driver import Driver


def test_a_counter_has_its_labels_in_its_name() -> None:
    counters = Stats()
    counters.add("model_calls_total", "m", "ok")
    counters.add("model_calls_total", "m", "ok", amount=2)
    counters.add("model_calls_total", "a|b", "ok")
    assert counters.take() == {"model_calls_total|m|ok": 3, "model_calls_total|a_b|ok": 1}
    assert counters.take() == {}


def test_a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    counters = Stats()
    bounds = BUCKETS["queue_wait_seconds"]
    for seconds in (0, bounds[0], bounds[0] + 0.001, bounds[-1] + 1):
        counters.observe("queue_wait_seconds", seconds)
    taken = counters.take()
    assert {name: n for name, n in taken.items() if "bucket" in name} == {
        "queue_wait_seconds|bucket|0": 2,
        "queue_wait_seconds|bucket|1": 1,
        f"queue_wait_seconds|bucket|{len(bounds)}": 1,
    }
    assert taken["queue_wait_seconds|sum"] == bounds[0] * 2 + 0.001 + bounds[-1] + 1


def test_every_bucket_list_rises() -> None:
    assert all(list(bounds) == sorted(set(bounds)) for bounds in BUCKETS.values())


def test_threads_lose_no_count() -> None:
    counters = Stats()

    def count() -> None:
        for _ in range(2000):
            counters.add("n")

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(count)
    assert counters.take() == {"n": 8000}


async def test_workers_add_to_what_is_there(link: RedisLink) -> None:
    one, two = Stats(), Stats()
    one.add("n")
    two.add("n", amount=0.5)
    two.add("m", "x")
    await one.flush(link)
    await two.flush(link)
    await two.flush(link)
    assert await stats.read(link) == {"n": 1.5, "m|x": 1}


async def test_nothing_to_say_is_no_command(link: RedisLink) -> None:
    await Stats().flush(link)
    assert await stats.read(link) == {}


async def test_an_ending_is_counted_with_the_ending_itself(store: JobStore) -> None:
    driver = Driver(store)
    job, attempt = await driver.start()
    await driver.end(job, attempt)
    await driver.store.move(await driver.submit(), "cancel")
    assert await stats.read(store.link) == {"jobs_total|clerk|completed": 1, "jobs_total|clerk|cancelled": 1}
