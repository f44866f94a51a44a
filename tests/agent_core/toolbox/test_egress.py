"""The guard: what is refused is never dialled, and what is dialled is what was checked."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core import DefinitionError
from agent_core.egress import Egress, EgressError, objection
from tests.agent_core.toolbox.web import CERTIFICATE, Names, Web, dials

HOST = "api.example.test"
LISTED = Path(__file__).with_name("forbidden_urls.txt").read_text(encoding="utf-8").splitlines()
FORBIDDEN = [
    *(line for line in LISTED if line and not line.startswith("#")),
    *("", "http://a b.com/", "http://exa\tmple.com/", "http://example.com/\r\nHost: x", "http://a\u00a0b.com/"),
    *(f"http://{'a' * 64}.com/", f"http://example.com/{'a' * 3000}"),
]
ANSWERS = [
    *("127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.9.9", "::1", "fe80::1%eth0", "::ffff:127.0.0.1", "0.0.0.0"),
    *("64:ff9b::a00:1", "fd00:ec2::254", "2002:7f00:1::1", "192.168.1.1", "224.0.0.1"),
]


@pytest.fixture
def secure() -> Iterator[Web]:
    server = Web(tls=True)
    yield server
    server.close()


async def refused(egress: Egress, url: str, **options: Any) -> EgressError:
    with pytest.raises(EgressError) as caught:
        await egress.send("GET", url, **options)
    return caught.value


# ---- what is refused


async def test_a_forbidden_url_is_never_dialled() -> None:
    said = {}
    with dials() as seen:
        for url in FORBIDDEN:
            fault = await refused(Egress(), url)
            said[url] = fault.code, "is refused: " in str(fault)
    assert {url: what for url, what in said.items() if what != ("forbidden_target", True)} == {}
    assert len(said) == len(FORBIDDEN) >= 117
    assert [dial for dial in seen if dial[0] != "socket.getaddrinfo"] == []
    assert {host for event, host in seen if event == "socket.getaddrinfo"} == {"localhost"}


@pytest.mark.parametrize("good", [[], ["93.184.216.34"], ["2606:2800:220:1::1"]])
async def test_one_bad_address_spoils_a_host(good: list[str]) -> None:
    for answer in ANSWERS:
        names = Names(evil_example=[[*good, answer]])
        with dials() as seen:
            fault = await refused(Egress(resolve=names), "https://evil.example/")
        assert (fault.code, names.asked, seen) == ("forbidden_target", ["evil.example"], [])
        assert f"evil.example is refused: it resolves to {answer}" in str(fault)


@given(st.ip_addresses())
def test_what_is_not_global_is_refused(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        assert objection(str(ip)) is not None


@given(st.ip_addresses(v=4), st.integers(0, 2**16 - 1))
def test_no_ipv4_address_hides_in_an_ipv6_one(ip: ipaddress.IPv4Address, rest: int) -> None:
    v4 = int(ip)
    prefixes = [0, 0xFFFF << 32, 0x64FF9B << 96, (0x64FF9B0001 << 80) | (rest << 32), (0x20010000 << 96) | (rest << 64)]
    embedded = [prefix | v4 for prefix in prefixes]
    embedded += [(0x2002 << 112) | (v4 << 80) | rest, (0x2A00 << 112) | (rest << 64) | (0x5EFE << 32) | v4]
    for number in embedded:
        assert objection(str(ipaddress.IPv6Address(number))) is not None


@given(st.ip_addresses(network="2606:4700::/32") | st.ip_addresses(network="8.0.0.0/8"))
def test_public_addresses_pass(ip: Any) -> None:
    if (int(ip) >> 32) & 0xFFFFFFFF not in (0x5EFE, 0x0200_5EFE):
        assert objection(str(ip)) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "100.64.0.1", "0.0.0.0", "::", "fd00:ec2::254", "fe80::1",
                                     "::ffff:127.0.0.1", "224.0.0.1"])  # fmt: skip
def test_a_private_network_of_ones_own_opens_no_more_than_that(address: str) -> None:
    assert objection(address, allow_private=True) is not None
    for opened in ("127.0.0.1", "::1", "10.1.2.3", "172.20.0.1", "192.168.1.1", "fd12::1"):
        assert objection(opened, allow_private=True) is None


# ---- the list of hosts


@pytest.mark.parametrize(
    ("pattern", "url", "ok"),
    [
        ("example.com", "https://example.com/", True),
        ("example.com", "http://EXAMPLE.com:80/x", True),
        ("Example.com", "https://example.com/", True),
        ("example.com", "https://a.example.com/", False),
        ("example.com", "https://notexample.com/", False),
        ("example.com", "https://example.com.evil.net/", False),
        ("example.com", "https://example.com:8443/", False),
        ("example.com:8443", "https://example.com:8443/", True),
        ("example.com:8443", "https://example.com/", False),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://badexample.com/", False),
        ("8.8.8.8", "https://8.8.8.8/", True),
        ("[2606:4700::1]:8443", "https://[2606:4700:0::1]:8443/", True),
        ("10.0.0.1", "http://10.0.0.1/", False),  # allowed or not, it is a private address
        ("xn--bcher-kva.example", "https://bücher.example/", True),
    ],
)
def test_patterns(pattern: str, url: str, ok: bool) -> None:
    egress = Egress((pattern,))
    if ok:
        egress.check(url)
    else:
        with pytest.raises(EgressError, match="is refused"):
            egress.check(url)


@pytest.mark.parametrize("pattern", ["*", "*.", "https://a.com", "a.com/x", "a*.com", "", "a.com:99999", "*.1.2.3.4", 5,
                                     "127.1", "a b.com", "user@a.com"])  # fmt: skip
def test_a_wrong_pattern_is_refused_at_once(pattern: Any) -> None:
    with pytest.raises(DefinitionError, match="expected hosts like"):
        Egress((pattern,))


async def test_a_host_that_is_not_on_the_list_is_not_even_resolved() -> None:
    names = Names()
    fault = await refused(Egress(("api.example.com",), resolve=names), "https://secrets-go-here.evil.example/")
    assert names.asked == []
    assert "not among what is allowed: api.example.com" in str(fault)


# ---- what is dialled


async def test_the_checked_address_is_the_dialled_one(web: Web) -> None:
    names = Names(api_example_test=[["127.0.0.1"], ["169.254.169.254"]])
    egress = Egress(allow_private=True, resolve=names)
    with dials() as seen:
        reply = await egress.send("GET", f"http://{HOST}:{web.port}/page?body=hi")
    assert (reply.status, reply.body) == (200, b"hi")
    assert seen == [("socket.connect", ("127.0.0.1", web.port))]
    assert (names.asked, web.hosts) == ([HOST], [f"{HOST}:{web.port}"])


async def test_tls_is_with_the_host_and_not_with_the_address(secure: Web) -> None:
    egress = Egress(
        (f"{HOST}:{secure.port}", f"other.test:{secure.port}"),
        allow_private=True,
        resolve=Names(api_example_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]]),
        tls=ssl.create_default_context(cafile=CERTIFICATE),
    )
    reply = await egress.send("GET", f"https://{HOST}:{secure.port}/page")
    assert reply.body == b"hello"
    assert (secure.names, secure.hosts) == ([HOST], [f"{HOST}:{secure.port}"])
    assert (await refused(egress, f"https://other.test:{secure.port}/page")).code == "connection"
    assert secure.hosts == [f"{HOST}:{secure.port}"]


async def test_an_address_that_does_not_answer_gives_way_to_the_next(web: Web) -> None:
    egress = Egress(allow_private=True, resolve=Names(api_example_test=[["::1", "127.0.0.1"]]))
    assert (await egress.send("GET", f"http://{HOST}:{web.port}/page")).status == 200


async def test_proxies_of_the_environment_are_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    egress = Egress(allow_private=True, resolve=Names(api_example_test=[["127.0.0.1"]]))
    assert (await egress.send("GET", f"http://{HOST}:{web.port}/page")).status == 200


# ---- redirects


async def test_redirects_are_checked_hop_by_hop(web: Web) -> None:
    base = f"http://{HOST}:{web.port}"
    names = Names(api_example_test=[["127.0.0.1"]], evil_test=[["127.0.0.1"]])
    egress = Egress((f"{HOST}:{web.port}",), allow_private=True, resolve=names)
    followed = await egress.send("GET", f"{base}/redirect?to=/page%3Fbody%3Dthere", redirects=5)
    assert (followed.body, names.asked) == (b"there", [HOST, HOST])
    for target in (f"http://evil.test:{web.port}/page", f"http://169.254.169.254:{web.port}/", "file:///etc/passwd",
                   "http://", "gopher://x/"):  # fmt: skip
        web.requests.clear()
        assert (await refused(egress, f"{base}/redirect?to={target}", redirects=5)).code == "forbidden_target"
        assert len(web.requests) == 1


async def test_redirects_come_to_an_end(web: Web) -> None:
    egress = Egress(allow_private=True)
    url = f"http://127.0.0.1:{web.port}/redirect?to=/redirect%3Fto%3D/page"
    assert (await egress.send("GET", url, redirects=2)).body == b"hello"
    assert (await refused(egress, url, redirects=1)).code == "bad_reply"
    unfollowed = await egress.send("GET", url)
    assert (unfollowed.status, unfollowed.headers["location"]) == (302, "/redirect?to=/page")


# ---- caps


@pytest.mark.parametrize("page", ["endless", "endless?to=/page", "bytes?count=20001", "redirect?to=/page&count=20001"])
async def test_a_reply_that_is_too_long_is_cut_off(web: Web, page: str) -> None:
    egress = Egress(allow_private=True, max_bytes=20_000)
    fault = await refused(egress, f"http://127.0.0.1:{web.port}/{page}", redirects=1)
    assert (fault.code, str(fault)) == ("too_large", "127.0.0.1 sent more than 20,000 bytes")
    assert len((await egress.send("GET", f"http://127.0.0.1:{web.port}/bytes?count=20000")).body) == 20_000


@pytest.mark.parametrize(
    ("page", "code", "retryable"),
    [("silent", "timeout", True), ("packed", "bad_reply", False), ("broken", "connection", True)],
)
async def test_a_reply_that_does_not_come_whole(web: Web, page: str, code: str, retryable: bool) -> None:
    fault = await refused(Egress(allow_private=True, seconds=0.2), f"http://127.0.0.1:{web.port}/{page}")
    assert (fault.code, fault.retryable) == (code, retryable)
    assert page not in str(fault)  # a path may hold a secret


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        fault = await refused(Egress(allow_private=True), f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (fault.code, fault.retryable) == ("connection", True)


async def test_a_host_without_an_address() -> None:
    names = Names(empty_test=[[]])
    for host in ("nowhere.test", "empty.test"):
        assert (await refused(Egress(resolve=names), f"https://{host}/")).code == "unresolvable"
