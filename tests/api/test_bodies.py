from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.body import MAX_BYTES, parse_json
from api.errors import RefusedError

JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> bytes:
    return b'{"agent":"echo","input":"x","metadata":{"a":' + b"[" * depth + b"]" * depth + b"}}"


def with_metadata(value: bytes) -> bytes:
    return b'{"agent":"echo","input":"x","metadata":{"a":' + value + b"}}"


MANY_KEYS = b"{" + b",".join(b'"k%d":0' % n for n in range(90_000)) + b"}"
HOSTILE = {
    "empty": (b"", 422),
    "no JSON": (b"agent=echo", 400),
    "cut off": (b'{"agent":', 400),
    "two values": (b"{}{}", 400),
    "a list": (b"[]", 422),
    "null": (b"null", 422),
    "duplicate key": (b'{"agent":"echo","input":"x","input":"y"}', 400),
    "duplicate key deep down": (with_metadata(b'{"b":[{"c":1,"c":1}]}'), 400),
    "duplicate key, escaped": (b'{"agent":"echo","input":"x","\\u0069nput":"y"}', 400),
    "NaN": (with_metadata(b"NaN"), 400),
    "Infinity": (with_metadata(b"-Infinity"), 400),
    "beyond a double": (with_metadata(b"1e400"), 400),
    "endless integer": (with_metadata(b"1" * 5000), 400),
    "lone surrogate": (with_metadata(b'"\\ud800"'), 400),
    "lone surrogate as a key": (b'{"agent":"echo","input":"x","metadata":{"\\udfff":1}}', 400),
    "invalid UTF-8": (with_metadata(b'"\xff"'), 400),
    "UTF-8 of a surrogate": (with_metadata(b'"\xed\xa0\x80"'), 400),
    "byte order mark": (b"\xef\xbb\xbf{}", 400),
    "UTF-16": ('{"agent":"echo","input":"x"}'.encode("utf-16"), 400),
    "65 levels": (nested(63), 400),
    "500 levels": (nested(500), 400),
    "500,000 levels": (b"[" * 500_000, 400),
    "many unknown keys": (MANY_KEYS, 400),
    "some unknown keys": (b"{" + b",".join(b'"k%d":0' % n for n in range(9_000)) + b"}", 422),
    "too many bytes": (b'"' + b"x" * MAX_BYTES + b'"', 413),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused(api, echo, name):
    body, status = HOSTILE[name]
    answer = await api.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 10_000


async def test_64_levels_and_a_pair_of_surrogates_are_accepted(api, echo):
    assert (await api.post("/v1/jobs", content=nested(62), headers=JSON)).status_code == 202
    answer = await api.post("/v1/jobs", content=with_metadata(b'"\\ud83d\\ude00"'), headers=JSON)
    assert answer.json()["metadata"] == {"a": "😀"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_only_plain_json_is_read(api, echo, headers):
    body = b'{"agent":"echo","input":"x"}'
    content = gzip.compress(body) if "Content-Encoding" in headers else body
    assert (await api.post("/v1/jobs", content=content, headers=headers)).status_code == 415


async def test_a_body_that_does_not_say_its_length_has_the_same_limit(api, echo):
    async def endless():
        for _ in range(40):
            yield b" " * 65_536

    answer = await api.post("/v1/jobs", content=endless(), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path", ["/v1/jobs/a%00b", "/v1/jobs/%ff%fe", "/v1/jobs/" + "x" * 5000, "/v1/files/a%2f..%2fb"]
)
async def test_a_silly_path_is_not_found(api, echo, path):
    answer = await api.get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=ten", "limit=" + "9" * 5000, "after=zzz", "after=%00", "after=LTEgam9iXzA",
        "status=done", "session_id=%00", "created_after=yesterday", "tag=", "user=" + "u" * 129,
    ],
)  # fmt: skip
async def test_a_silly_query_is_refused(api, echo, query):
    assert (await api.get(f"/v1/jobs?{query}")).status_code == 422


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon"])
async def test_a_silly_wait_is_refused(api, echo, wait):
    assert (await api.get("/v1/jobs/job_0", params={"wait": wait})).status_code == 422


# ---- properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_is_written_is_read(value: Any):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0d8e1. aN\n').map(str.encode))
def test_a_text_is_read_as_json_does_or_refused(body: bytes):
    try:
        value = parse_json(body)
    except RefusedError:
        return
    assert value == json.loads(body)


FIELDS = (
    "agent", "input", "files", "session_id", "user", "priority", "run_at", "expires_at", "budget", "webhook", "tags",
    "metadata", "output_schema", "other",
)  # fmt: skip


@given(body=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values)), raw=st.binary(max_size=30))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_breaks_the_server(api, echo, body, raw):
    for content in (json.dumps({"agent": "echo", "input": "x", **body}).encode(), raw):
        answer = await api.post("/v1/jobs", content=content, headers=JSON)
        assert answer.status_code in (202, 400, 422), answer.text
