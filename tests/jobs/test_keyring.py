from __future__ import annotations

import pytest

from jobs import keys
from jobs.errors import NotFoundError
from jobs.keyring import BOOTSTRAP, Keyring, Principal, new_secret


async def test_a_secret_is_known_until_its_key_is_revoked(link):
    keyring = Keyring(link)
    record, secret = await keyring.create("t", "ci", ["jobs:write", "jobs:read", "jobs:read"])
    assert await keyring.authenticate(secret) == Principal("t", frozenset({"jobs:read", "jobs:write"}), record.id)
    assert await keyring.list("t") == [record]
    assert await keyring.list("other") == []
    await keyring.revoke("t", record.id)
    assert await keyring.authenticate(secret) is None
    assert await keyring.list("t") == []


async def test_a_key_of_another_tenant_cannot_be_revoked(link):
    keyring = Keyring(link)
    record, secret = await keyring.create("t", "ci", ["admin"])
    with pytest.raises(NotFoundError):
        await keyring.revoke("other", record.id)
    assert await keyring.authenticate(secret) is not None


async def test_the_bootstrap_key_is_an_admin_of_the_default_tenant(link):
    keyring = Keyring(link, "anything")
    principal = await keyring.authenticate("anything")
    assert principal == Principal("default", frozenset({"admin"}), BOOTSTRAP)
    assert principal.may("jobs:write")
    assert await Keyring(link).authenticate("anything") is None


@pytest.mark.parametrize("secret", ["", "ns_", "x" * 100_000, "\ud800", "ns_ä"])
async def test_what_is_no_secret_is_nobodys(link, secret):
    assert await Keyring(link, "anything").authenticate(secret) is None


async def test_the_secret_itself_is_nowhere_in_redis(link):
    _, secret = await Keyring(link).create("t", "ci", ["admin"])
    for name in await link.command("KEYS", "*"):
        assert secret[7:].encode() not in name
        assert secret[7:].encode() not in b"".join(await link.command("HVALS", name))


async def test_a_key_that_was_half_made_is_not_listed(link):
    await link.command("HSET", keys.api_keys("t"), "key_1", "digest")
    assert await Keyring(link).list("t") == []


def test_secrets_have_256_bits_and_differ():
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret) == 3 + 43 for secret in secrets)
