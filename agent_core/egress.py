"""The way out: requests to addresses that a model or a client named, kept away from what is not on the public internet.

A host is resolved once, every address it has is checked, and a checked address is what is dialled: a name that answers
differently the next time gains nothing. Host and SNI stay the host's. Each hop of a redirect is a request of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from agent_core.errors import DefinitionError, ToolError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host, for a port, as texts. Raises OSError when it has none."""

PORTS = frozenset({80, 443, 8080, 8443})
"""Where web servers are; any other port may speak something that a request can be mistaken for."""
CONNECT_SECONDS = 10.0
BODY_SECONDS = 2.0
LONGEST_URL = 2048
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
A_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
PATTERN = re.compile(r"(?P<any>\*\.)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/?#@*\[\]]+)(:(?P<port>\d{1,5}))?")
A_PATTERN = "hosts like api.example.com, *.example.com or api.example.com:8443"

FORBIDDEN: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "an address of this host"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a shared address of a provider's own network"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "a cloud's metadata address"),
        ("169.254.0.0/16", "a link-local address, where clouds have their metadata"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an address of this host"),
        ("::1/128", "a loopback address"),
        ("::ffff:0:0/96", "an IPv4 address in IPv6 form"),
        ("::/96", "an IPv4 address in IPv6 form"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64"),
        ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
        ("2001::/32", "an IPv4 address behind Teredo"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for documentation"),
        ("2002::/16", "an IPv4 address behind 6to4"),
        ("3fff::/20", "an address for documentation"),
        ("fd00:ec2::/32", "a cloud's metadata address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The middle of an IPv6 address that has an IPv4 address for its end, whatever its network."""
OPENED = frozenset({"a private address", "a loopback address"})
"""What `allow_private` opens; metadata, link-local and all the others stay shut."""


class EgressError(ToolError):
    """A request was not made or has no reply. The message names the host and what was wrong, never the path.

    `code` is `forbidden_target`, `unresolvable`, `connection`, `timeout`, `too_large` or `bad_reply`.
    """


def objection(address: str, *, allow_private: bool = False) -> str | None:
    """What is wrong with dialling an address, or None. Raises ValueError when it is none."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    for network, why in FORBIDDEN:
        if ip.version == network.version and ip in network:
            return None if allow_private and why in OPENED else why
    if isinstance(ip, ipaddress.IPv6Address):
        if ip not in PUBLIC_V6:
            return "not an address of the public internet"
        if int(ip) >> 32 & 0xFFFFFFFF in ISATAP:
            return "an IPv4 address behind ISATAP"
    return None


async def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the system knows for a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: httpx2.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Egress:
    """Where requests may go and what may come back. Raises DefinitionError for a wrong pattern.

    `allow` are patterns of hosts, with a port where it is not the scheme's own; None is every public host.
    `allow_private` opens private and loopback addresses, and without `allow` every port, for tests and networks of
    one's own. A reply has at most `max_bytes`, and a request takes at most `seconds` with all its redirects. `tls` is
    for certificates that the system does not know.
    """

    allow: tuple[str, ...] | None = None
    allow_private: bool = False
    max_bytes: int = 1_000_000
    seconds: float = 30.0
    resolve: Resolver = system_resolver
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for pattern in self.allow or ():
            if not isinstance(pattern, str) or _pattern(pattern) is None:
                raise DefinitionError(f"allow has {pattern!r}; expected {A_PATTERN}")

    def check(self, url: str) -> httpx2.URL:
        """The URL, when it is one that may be asked for as far as can be told without resolving its host.

        Raises EgressError.
        """
        try:
            parsed = httpx2.URL(url) if len(url) <= LONGEST_URL else None
        except (httpx2.InvalidURL, ValueError):
            parsed = None
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
            raise _forbidden("the URL", f"it must be http:// or https:// with a host, and {LONGEST_URL} long at most")
        host, port = _target(parsed)
        if parsed.userinfo:
            raise _forbidden(host, "its URL has a user name or a password in it")
        address = _literal(host)
        if address is None:
            _check_name(host)
        if self.allow is not None:
            if not any(_matches(pattern, host, port) for pattern in self.allow):
                raise _forbidden(f"{host}:{port}", f"it is not among what is allowed: {', '.join(self.allow)}")
        elif port not in PORTS and not (self.allow_private and 0 < port < 65536):
            raise _forbidden(f"{host}:{port}", f"the port is not one of {', '.join(map(str, sorted(PORTS)))}")
        if address is not None and (why := objection(host, allow_private=self.allow_private)):
            raise _forbidden(host, f"it is {why}")
        return parsed

    async def addresses(self, url: str) -> list[str]:
        """The checked addresses of a URL's host, any of which may be dialled. Raises EgressError."""
        host, port = _target(self.check(url))
        if _literal(host) is not None:
            return [host]
        try:
            found = await self.resolve(host, port)
        except (OSError, UnicodeError) as exc:
            passing = isinstance(exc, socket.gaierror) and exc.errno == socket.EAI_AGAIN
            raise EgressError(f"{host} cannot be resolved", code="unresolvable", retryable=passing) from exc
        if not found:
            raise EgressError(f"{host} has no address", code="unresolvable")
        for address in found:  # one bad address spoils the host: whoever answers for it is not to be trusted
            if why := objection(address, allow_private=self.allow_private):
                raise _forbidden(host, f"it resolves to {address}, {why}")
        return found

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        redirects: int = 0,
    ) -> Reply:
        """Makes a request and reads its whole reply, whatever its status. Follows at most so many redirects; without
        any, one is a reply like others. Raises EgressError.
        """
        async with self._answered(method, url, headers, content, redirects) as reply:
            return Reply(reply.status_code, reply.headers, await reply.aread())

    async def peek(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes, most: int) -> Reply:
        """Makes a request and reads the reply's status and the first bytes of its body, as many as come within
        `BODY_SECONDS`: for who does not need the rest. Follows no redirect. Raises EgressError.
        """
        async with self._answered(method, url, headers, content, 0) as reply:
            return Reply(reply.status_code, reply.headers, await _beginning(reply, most))

    @contextlib.asynccontextmanager
    async def _answered(
        self, method: str, url: str, headers: Mapping[str, str] | None, content: bytes | None, redirects: int
    ) -> AsyncIterator[httpx2.Response]:
        """The reply to a request, its body still to be read. Raises EgressError, also for what reading it raises."""
        host = self.check(url).host
        timeout = httpx2.Timeout(self.seconds, connect=min(CONNECT_SECONDS, self.seconds))
        client = httpx2.AsyncClient(
            transport=GuardedTransport(self), timeout=timeout, trust_env=False, max_redirects=redirects
        )
        sent = {**(headers or {}), **PLAIN}
        try:
            async with (
                asyncio.timeout(self.seconds),
                client,
                client.stream(method, url, headers=sent, content=content, follow_redirects=redirects > 0) as reply,
            ):
                yield reply
        except (TimeoutError, httpx2.TimeoutException):
            message = f"{host} did not answer in full within {self.seconds:g} seconds"
            raise EgressError(message, code="timeout", retryable=True) from None
        except httpx2.TooManyRedirects:
            raise EgressError(f"{host} redirected more than {redirects} times", code="bad_reply") from None
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL):
            raise _forbidden(f"a redirect of {host}", "it leads to no http:// or https:// URL") from None
        except httpx2.HTTPError as exc:
            message = f"{host} could not be reached, or broke off ({type(exc).__name__})"
            raise EgressError(message, code="connection", retryable=True) from exc


PLAIN = {"accept-encoding": "identity"}
"""A compressed reply could be a thousand times as long as it looks."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport that dials what an `Egress` has checked, request by request, and cuts replies off at its limit.

    Each request has a connection of its own: a connection is known by its address, and two hosts may share one.
    """

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._inner = httpx2.AsyncHTTPTransport(verify=egress.tls or _tls(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises EgressError besides what transports raise."""
        refused: httpx2.TransportError | None = None
        for address in await self._egress.addresses(str(request.url)):
            try:
                response = await self._inner.handle_async_request(_dialling(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
                refused = exc
                continue
            return await self._limited(response, request.url.host)
        assert refused is not None
        raise refused

    async def _limited(self, response: httpx2.Response, host: str) -> httpx2.Response:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if (encoding := response.headers.get("content-encoding", "identity").lower()) != "identity":
            await response.aclose()
            raise EgressError(f"{host} sent a reply in the encoding {encoding[:20]!r}, unasked", code="bad_reply")
        response.stream = _Limited(response.stream, self._egress.max_bytes, host)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _beginning(reply: httpx2.Response, most: int) -> bytes:
    """The first bytes of a body. What breaks it off is no fault: the status has said all that matters."""
    found = b""
    with contextlib.suppress(TimeoutError, httpx2.HTTPError, EgressError):
        async with asyncio.timeout(BODY_SECONDS):
            async for part in reply.aiter_raw():
                found += part
                if len(found) >= most:
                    break
    return found[:most]


class _Limited(httpx2.AsyncByteStream):
    """A reply's bytes up to a limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int, host: str) -> None:
        self._stream, self._most, self._host = stream, most, host

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for part in self._stream:
            left -= len(part)
            if left < 0:
                raise EgressError(f"{self._host} sent more than {self._most:,} bytes", code="too_large")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _dialling(request: httpx2.Request, address: str) -> httpx2.Request:
    """The request to this address in place of its host, which its Host header and SNI still name."""
    host = request.url.raw_host.decode("ascii")
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def _target(url: httpx2.URL) -> tuple[str, int]:
    port = url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]
    return url.raw_host.decode("ascii"), port


def _literal(host: str) -> Address | None:
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def _check_name(host: str) -> None:
    if not HOST.fullmatch(host):
        raise _forbidden(host[:80], "it is not the name of a host")
    if A_NUMBER.fullmatch(host.rpartition(".")[2]):  # as 127.1 and 0x7f.0.0.1 are, to those who dial
        raise _forbidden(host, "it is an IPv4 address in another spelling; write it as four decimal numbers")


def _pattern(pattern: str) -> tuple[bool, str, int | None] | None:
    """A pattern's parts: whether it is for subdomains, the host, and the port that it names. None when it is wrong."""
    found = PATTERN.fullmatch(pattern)
    if found is None:
        return None
    host, port = found["host"].strip("[]").lower(), int(found["port"]) if found["port"] else None
    address = _literal(host)
    if address is not None:
        return None if found["any"] else (False, str(address), port)
    if not HOST.fullmatch(host) or A_NUMBER.fullmatch(host.rpartition(".")[2]) or (port is not None and port > 65535):
        return None
    return bool(found["any"]), host, port


def _matches(pattern: str, host: str, port: int) -> bool:
    parts = _pattern(pattern)
    assert parts is not None
    subdomains, wanted, wanted_port = parts
    if port != wanted_port and (wanted_port is not None or port not in (80, 443)):
        return False
    address = _literal(host)
    named = str(address) if address is not None else host
    return named.endswith(f".{wanted}") if subdomains else named == wanted


def _forbidden(what: str, why: str) -> EgressError:
    return EgressError(f"{what} is refused: {why}", code="forbidden_target")
