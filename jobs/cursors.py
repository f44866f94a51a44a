"""Cursors that a client can only send back: each is signed for the list that it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from jobs import keys
from jobs.errors import InvalidError
from jobs.link import RedisLink

SECRET_BYTES = 32
SIGNATURE_BYTES = 16


async def sign(link: RedisLink, list_name: str, place: str) -> str:
    """The cursor for a place in a list. The name must say whose list it is. Raises UnavailableError."""
    text = place.encode()
    return base64.urlsafe_b64encode(await _signature(link, list_name, text) + text).decode().rstrip("=")


async def read(link: RedisLink, list_name: str, cursor: str) -> str:
    """The place of a cursor that was signed for this list. Raises InvalidError, UnavailableError."""
    try:
        signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        signed = b""
    signature, text = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, await _signature(link, list_name, text)):
        raise InvalidError(
            "`after` is no cursor of this list; send the next_cursor of the page before", code="invalid_cursor"
        )
    return text.decode()


async def _signature(link: RedisLink, list_name: str, place: bytes) -> bytes:
    secret = await link.command("GET", keys.SERVER_SECRET)
    if secret is None:
        await link.command("SET", keys.SERVER_SECRET, secrets.token_bytes(SECRET_BYTES), "NX")
        secret = await link.command("GET", keys.SERVER_SECRET)
    key = hmac.digest(secret, b"cursor " + list_name.encode(), hashlib.sha256)
    return hmac.digest(key, place, hashlib.sha256)[:SIGNATURE_BYTES]
