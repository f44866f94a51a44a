"""What the API says of a job that was pruned: what it says of one that never was."""

from __future__ import annotations

from jobs.blobs import INLINE_BYTES
from jobs.files import FileStore, JobArtifacts
from jobs.retention import Retention
from tests.api.conftest import submitted

BIG = "x" * INLINE_BYTES


async def prune(link, settings) -> int:
    files = FileStore(link, settings.files_location)
    return (await Retention(link, files, 0, 0).sweep()).jobs


async def test_big_entries_reach_clients_whole(api, echo, worker):
    job = await submitted(api)
    claim = await worker.claim()
    await worker.record(claim, "state.changed", {"state": "executing", "note": BIG})
    await worker.end(claim, output=BIG)
    assert (await api.get(f"/v1/jobs/{job['id']}")).json()["output"] == BIG
    events = (await api.get(f"/v1/jobs/{job['id']}/events")).json()["data"]
    assert [event["data"].get("note") or event["data"].get("output") for event in events][-2:] == [BIG, BIG]
    stream = await api.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"})
    assert stream.text.count(BIG) == 2


async def test_a_pruned_job_is_as_one_that_never_was(api, echo, worker, link, settings):
    upload = (await api.post("/v1/files?name=in.csv", content=b"1,2")).json()
    job = await submitted(api, files=[upload["id"]], tags=["t"])
    kept = await submitted(api)
    artifacts = JobArtifacts(FileStore(link, settings.files_location), "default")
    artifact = await artifacts.save(job["id"], "out.csv", b"3")
    await worker.run(output=BIG)
    last = (await api.get(f"/v1/jobs/{job['id']}/events")).json()["data"][-1]["id"]
    assert await prune(link, settings) == 1
    for path in ("", "/events", "/ledger", "/explain", "/artifacts", f"/events?after={last}"):
        answer = await api.get(f"/v1/jobs/{job['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), path
    stream = {"Accept": "text/event-stream", "Last-Event-ID": last}
    assert (await api.get(f"/v1/jobs/{job['id']}/events", headers=stream)).status_code == 404
    for action in ("cancel", "retry", "fork"):
        assert (await api.post(f"/v1/jobs/{job['id']}/{action}", json={})).status_code == 404, action
    for file_id in (upload["id"], artifact["id"]):
        assert (await api.get(f"/v1/files/{file_id}")).status_code == 404
    assert [found["id"] for found in (await api.get("/v1/jobs")).json()["data"]] == [kept["id"]]
    refused = await api.post("/v1/jobs", json={"agent": "echo", "input": "x", "files": [upload["id"]]})
    assert (refused.status_code, refused.json()["code"]) == (422, "file_not_found")
