"""What is taken out of texts, entries and nested data, what is not, and that it is done once and in linear time."""

from __future__ import annotations

import hashlib
import json
import re
import string
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted, ToolCompleted, ToolRequested
from agent_core.redaction import SHAPES, Redactor, mark

LETTERS = string.ascii_letters + string.digits
ADMIN = "correct-horse-battery"
TOKENS = {
    "anthropic_key": "sk-ant-api03-" + "aB3_" * 10 + "-AA",
    "nightshift_key": "ns_" + "aB3-_" * 8 + "xyz",
    "webhook_secret": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "github_token": "ghp_" + "aB3d" * 9,
    "slack_token": "xoxb-1234567890-abcdefGHIJ",
    "aws_key": "AKIAIOSFODNN7EXAMPLE",
    "google_key": "AIza" + "aB3-_" * 7,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\nx+Ab/9==\n-----END RSA PRIVATE KEY-----",
}
IN_CONTEXT = {
    "Authorization: Bearer abc.DEF-123_456~789": "Authorization: Bearer [redacted:bearer]",
    "redis://user:p4ss:w@rd@db:6379/0": "redis://[redacted:userinfo]@db:6379/0",
    "https://0123456789abcdef@host/1": "https://[redacted:userinfo]@host/1",
    "https://h/x?password=hunter2&y=1#z": "https://h/x?password=[redacted:password]&y=1#z",
    "https://h/x?y=1&api_key=hunter2": "https://h/x?y=1&api_key=[redacted:password]",
    "github_pat_11ABCDEFG0123456789abc_x": "[redacted:github_token]",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAK": "[redacted:private_key]",
    f"code: {ADMIN}!": "code: [redacted:secret]!",
}
HARMLESS = [
    "task-ant-colony-optimisation-0123456789",
    "columns_of_a_table_that_has_a_very_long_name_indeed_yes",
    "the bearer of good-news-everywhere-today",
    "connect(password=settings.password, token=token)",
    "https://user@host/path and https://host/a@b",
    "https://h/x?page=2&sort=token",
    "eyJ is how a token begins, eyJhbGciOi.x is none",
    "job_01kaw7e8f8f3s9q4w5x6y7z8a9, evt_1700000000000-0, toolu_01A09q90qw90lq917835lq9",
    "a password is [redacted:password]",
]
redactor = Redactor([ADMIN, 'quo"te\\d-ünd', "short", "1234567890", "sekret/with+signs="])
pieces = st.lists(
    st.one_of(
        st.sampled_from([*TOKENS.values(), *IN_CONTEXT, *HARMLESS, ADMIN, "sekret/with+signs=", *map(mark, TOKENS)]),
        st.sampled_from(
            ["Bearer ", "://", "?token=", "@", "-----BEGIN PRIVATE KEY-----", "\\n", "\n", "[", "]", "a", "_"]
        ),
        st.text(max_size=8),
    ),
    max_size=12,
)
texts = pieces.map("".join)
values = st.recursive(
    st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize(
    "frame", ["{}", "x = '{}'", "a\\n{}\\tb", "({}), {}", "\x1b[35m{}\x1b[0m", "https://h/?k={}&x"]
)
def test_token_shapes(kind: str, frame: str) -> None:
    assert redactor.text(frame.replace("{}", TOKENS[kind])) == frame.replace("{}", mark(kind))


@pytest.mark.parametrize("text", IN_CONTEXT)
def test_secrets_in_their_context(text: str) -> None:
    assert redactor.text(text) == IN_CONTEXT[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert redactor.text(text) == text


def test_every_kind_is_tried_here() -> None:
    shown = " ".join([*map(mark, TOKENS), *IN_CONTEXT.values()])
    assert {shape.kind for shape in SHAPES} <= set(re.findall(r"redacted:([a-z_]+)", shown))


@given(st.binary(max_size=40), st.uuids())
def test_digests_and_ids_are_not_secrets(data: bytes, name: uuid.UUID) -> None:
    digest = hashlib.sha256(data).hexdigest()
    for text in (digest, digest.upper(), str(name), name.hex, f"job_{name.hex}", f"evt_{name.int}-0", f"file_{digest}"):
        assert redactor.text(text) == text


@given(texts)
def test_once_is_enough(text: str) -> None:
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(st.text(LETTERS + "-_/+=.:@[] ", min_size=8, max_size=20), texts, texts)
def test_no_secret_is_left(secret: str, before: str, after: str) -> None:
    own = Redactor([secret])
    found = own.text(before + secret + after)
    assert own.text(found) == found
    if re.fullmatch(r"[-+0-9.eE]+", secret) is None and "[" not in secret + before + after:
        assert secret not in re.sub(r"\[redacted:[a-z_]+\]", "\0", found)


@given(values)
def test_nested_data_and_its_json_stay_whole(value: Any) -> None:
    found = redactor.json(value)
    assert redactor.json(found) == found
    assert json.dumps(found) == json.dumps(redactor.json(value))
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        json.loads(redactor.text(text))
    assert shape_of(found) == shape_of(value)


def shape_of(value: Any) -> Any:
    match value:
        case dict():
            return [shape_of(item) for item in value.values()]
        case list():
            return [shape_of(item) for item in value]
        case _:
            return type(value)


def test_keys_are_redacted_and_told_apart() -> None:
    found = redactor.json({TOKENS["aws_key"]: 1, "ASIAIOSFODNN7EXAMPLE": [ADMIN], 3: 4})
    assert found == {"[redacted:aws_key]": 1, "[redacted:aws_key] 2": ["[redacted:secret]"], 3: 4}


def test_a_secret_is_found_as_json_and_urls_have_it() -> None:
    secret = 'quo"te\\d-ünd'
    for text in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), "quo%22te%5Cd-%C3%BCnd"):
        assert redactor.text(f"<{text}>").replace('"', "") == "<[redacted:secret]>"


def test_short_secrets_and_numbers_are_not_looked_for() -> None:
    assert redactor.text("short 1234567890") == "short 1234567890"


@pytest.mark.parametrize("lead", ["", "://", "eyJ", "Bearer "])
def test_time_is_linear(lead: str) -> None:
    """With a pattern that goes back over what it has read, this would take hours."""
    halves = ["://a:", "a:", "eyJaaaaaaaa.", "eyJ_", "Bearer a", "Bearer a1", "-----BEGIN PRIVATE KEY-----", "?token="]
    for text in [*halves, "[redacted:", *(sign for shape in SHAPES for sign in shape.signs)]:
        redactor.text(lead + text * ((1 << 18) // len(text)))


# ---- entries


def reply(*content: dict[str, Any]) -> ModelCompleted:
    return ModelCompleted("c1", 1, "m", list(content), "tool_use", {"input_tokens": 1}, "p", 5, 4, "settled")


def test_a_reply_loses_its_secrets_but_not_what_was_signed() -> None:
    signed = {"type": "thinking", "thinking": ADMIN, "signature": TOKENS["aws_key"]}
    kept = redactor.entry(
        reply(
            signed,
            {"type": "text", "text": f"it is {ADMIN}"},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"key": ADMIN}},
        )
    )
    assert isinstance(kept, ModelCompleted)
    assert kept.content == [
        signed,
        {"type": "text", "text": "it is [redacted:secret]"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"key": "[redacted:secret]"}},
    ]


def test_other_entries_lose_theirs() -> None:
    mark_ = "[redacted:secret]"
    assert redactor.entry(ToolRequested("c", 1, "t", {"a": [ADMIN]}, "read")) == ToolRequested(
        "c", 1, "t", {"a": [mark_]}, "read"
    )
    assert redactor.entry(ToolCompleted("c", 1, "t", ADMIN, True)) == ToolCompleted("c", 1, "t", mark_, True)
    failed = ModelFailed("c", 1, "m", "refused", f"no such key: {ADMIN}", None, "p", 1, 0, "released")
    assert redactor.entry(failed).message == f"no such key: {mark_}"  # type: ignore[union-attr]


def test_an_entry_without_secrets_is_the_same_object() -> None:
    for entry in (ModelStarted("c", 1, "m", 5), reply({"type": "text", "text": "hello"})):
        assert redactor.entry(entry) is entry


def test_a_private_key_is_whole_whatever_stands_before_it() -> None:
    text = f"{TOKENS['anthropic_key']}{TOKENS['private_key']}"
    assert "MIIE" not in redactor.text(text)


def test_marks_are_not_redacted_again() -> None:
    own = Redactor(["redacted", "password"])
    once = own.text(f"redacted password {ADMIN} https://h/?token=x {TOKENS['jwt']}")
    assert once == f"[redacted:secret] [redacted:secret] {ADMIN} https://h/?token=[redacted:password] [redacted:jwt]"
    assert own.text(once) == once


@pytest.mark.parametrize("kind", [kind for kind in TOKENS if kind != "private_key"])
def test_tokens_that_touch_leave_nothing_for_a_second_time(kind: str) -> None:
    for other in TOKENS.values():
        for between in ("", "_", "-"):
            once = redactor.text(f"{TOKENS[kind]}{between}{other}{between}{TOKENS[kind]}")
            assert redactor.text(once) == once
