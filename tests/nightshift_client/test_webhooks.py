"""What is taken for a webhook of the platform, and what is not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from jobs.signing import new_secret, signed_headers
from nightshift_client import WebhookError, verify_webhook

SECRET, OTHER = new_secret(), new_secret()
BODY = '{"type":"job.completed","timestamp":"2026-11-20T08:30:00Z","data":{"text":"é"}}'


def test_what_is_signed_with_the_secret_is_known_whatever_the_case_of_its_headers() -> None:
    headers = {name.title(): value for name, value in signed_headers("evt_1", BODY, [OTHER, SECRET]).items()}
    assert verify_webhook(BODY.encode(), headers, SECRET)["data"] == {"text": "é"}
    assert verify_webhook(BODY, headers, OTHER)["type"] == "job.completed"


def test_what_was_changed_on_the_way_or_signed_by_another_is_refused() -> None:
    headers = signed_headers("evt_1", BODY, [SECRET])
    for body, changed, secret in [
        (BODY + " ", headers, SECRET),
        (BODY, {**headers, "webhook-id": "evt_2"}, SECRET),
        (BODY, headers, OTHER),
        (BODY, {}, SECRET),
    ]:
        with pytest.raises(WebhookError):
            verify_webhook(body, changed, secret)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_message_is_not_to_be_played_again(minutes: int) -> None:
    then = datetime.now(UTC) + timedelta(minutes=minutes)
    signature = Webhook(SECRET).sign("evt_1", then, BODY)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(then.timestamp())), "webhook-signature": signature}
    with pytest.raises(WebhookError, match="too"):
        verify_webhook(BODY, headers, SECRET)


@given(body=st.binary(max_size=20), signature=st.text(max_size=20), timestamp=st.text(max_size=12))
def test_whatever_a_stranger_sends_is_refused_in_one_way(body: bytes, signature: str, timestamp: str) -> None:
    genuine = signed_headers("evt_1", BODY, [SECRET])
    for headers in (
        {**genuine, "webhook-signature": signature},
        {**genuine, "webhook-signature": f"v1,{signature}"},
        {**genuine, "webhook-timestamp": timestamp},
    ):
        with pytest.raises(WebhookError):
            verify_webhook(body, headers, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é", "whsec_a"])
def test_a_secret_that_is_none_is_a_mistake_of_the_program(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_…"):
        verify_webhook(BODY, signed_headers("evt_1", BODY, [SECRET]), secret)


def test_a_secret_may_be_written_without_its_prefix() -> None:
    bare = base64.b64encode(b"x" * 32).decode()
    headers = signed_headers("evt_1", BODY, [f"whsec_{bare}"])
    assert verify_webhook(BODY, headers, bare)["type"] == "job.completed"
