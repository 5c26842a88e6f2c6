"""The only way out to addresses that others have named: vendors' tools.

Boundary: bytes over HTTPS. A name is resolved once for a connection, every address it has must be
one of the open Internet, and the connection goes to the very address that was judged, under the
name that its certificate must bear. No proxy, no redirect, bounds on time and size.
Source: spec/services.md#where-a-call-may-go.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import httpcore2
import httpx2

from farthing.server.crowds import VALUES_MAX, has_more_values
from farthing.server.ports import NotSent, VendorFailed, VendorLost

__all__ = ["AddressRefused", "Answering", "Outbound", "Resolve", "Resolver", "is_open"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")
Resolve = Callable[[str, int], Awaitable[list[str]]]

_CONNECT_S: Final = 10
_CONNECTIONS_MAX: Final = 256
# An organisation's calls are an eighth of 256, each to another name at worst.
_LOOK_UPS_MAX: Final = 256
_ADDRESSES_MAX: Final = 16
# Parsing what is read at once holds everybody else up: a chunk may have one byte.
_READ_BYTES: Final = 8 * 1024
# More is read beside the loop: JSON of 4 MiB can be such that it takes seconds.
_AT_ONCE_BYTES: Final = 64 * 1024
# What of an answer is no content: headers, of which the parser takes 100 KiB, and what is said
# before them or around chunks, of which it takes any number.
_FRAMING_BYTES_MAX: Final = 512 * 1024
# What is delegated to anybody; wrappers of the other family are judged by what is in them.
_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# Where clouds tell their machines what these may do, though no register calls it private.
_METADATA: Final = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("168.63.129.16/32"),
)
# What stops a request before a byte of it leaves.
_BEFORE: Final = (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout)
_AFTER: Final = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


_NOT_OPEN: Final = "The vendor's address is not one of the open Internet."


class AddressRefused(NotSent):
    """The address is not one that this platform connects to; nothing was sent."""

    again = False


class _NotOpen(httpcore2.ConnectError):
    """A judgement, in the form that the pool lets through."""


class Answering:
    """An answer that is being received: its status, its headers, its bytes up to a bound."""

    def __init__(
        self, response: httpcore2.Response, bytes_max: int, reading: ThreadPoolExecutor
    ) -> None:
        self._reading = reading
        self.status = response.status
        self.headers = httpx2.Headers(response.headers)
        self._response = response
        self._bytes_max = bytes_max
        # Another where the protocol is switched, and then there is no content.
        self._stream = cast("_Stream", response.extensions["network_stream"])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come.

        Raises:
            VendorFailed: there are more than the bound, they are packed, or there is too much
                around them.
        """
        if self.headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
            # Nobody asked for it, and a bound on what comes would be none on what is in it.
            raise VendorFailed("The answer is compressed.")
        size = 0
        async for chunk in self._response.aiter_stream():
            size += len(chunk)
            self._stream.framing -= len(chunk)
            if size > self._bytes_max:
                raise VendorFailed(f"The answer has more than {self._bytes_max} bytes.")
            yield chunk

    async def read(self, read: Callable[[bytes], T], data: bytes) -> T:
        """What is read in bytes of it; of many of them beside the loop, one answer at a time.

        Raises:
            VendorFailed: there are more values in it than are read.
        """
        if len(data) <= _AT_ONCE_BYTES:
            return read(data)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, _read_of_many, read, data)


class Outbound:
    """Connections to vendors: one for each call, so that none carries over what another left.

    Args:
        local: whether the platform itself is on loopback: then loopback can be called too, in
            clear, and nothing else in clear.
        resolver: gives the addresses of a name, as texts.
        network: connects to addresses, once they are judged.
        trusted: the authorities of certificates; those of the system unless told otherwise.
    """

    def __init__(
        self,
        *,
        local: bool = False,
        resolver: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._local = local
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted or httpx2.create_ssl_context(trust_env=False),
            max_connections=_CONNECTIONS_MAX,
            max_keepalive_connections=0,
            network_backend=_Pinned(
                resolver or Resolver(), network or httpcore2.AnyIOBackend(), local=local
            ),
        )

    def check(self, url: str) -> None:
        """Judge a URL by itself, before anything is resolved.

        Raises:
            AddressRefused: it is in clear, names an address that is not open, or is none.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port  # read here, it is judged
        except ValueError as error:
            raise AddressRefused("The vendor's address is none.") from error
        host = parts.hostname or ""
        literal = _literal(host)
        is_local = host == "localhost" or (literal is not None and literal.is_loopback)
        if self._local and is_local and parts.scheme in {"http", "https"}:
            return
        if parts.scheme != "https":
            raise AddressRefused("The vendor's address is not https.")
        if is_local or not host or (literal is not None and not is_open(literal)):
            raise AddressRefused(_NOT_OPEN)

    @asynccontextmanager
    async def post(
        self,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        bytes_max: int,
    ) -> AsyncIterator[Answering]:
        """Send bytes, and receive what comes back while the block runs.

        Args:
            url: where to; judged anew.
            content: the body.
            headers: beside those of the connection.
            timeout_s: how long the whole exchange may take.
            bytes_max: the most that an answer may have.

        Raises:
            NotSent: no connection came about; `AddressRefused` where none may.
            VendorLost: it was sent, and no whole answer came.
            VendorFailed: the answer is none that is taken.
        """
        self.check(url)
        waits = {"connect": min(_CONNECT_S, timeout_s), "pool": timeout_s}
        try:
            # The connection's own limits are between bytes: who drips would never end.
            async with (
                asyncio.timeout(timeout_s),
                self._pool.stream(
                    "POST",
                    url,
                    headers=_headers(url, content, headers),
                    content=content,
                    extensions={"timeout": waits},
                ) as response,
            ):
                yield Answering(response, bytes_max, self._reading)
        except _NotOpen as error:
            raise AddressRefused(_NOT_OPEN) from error
        except _BEFORE as error:
            raise NotSent("The vendor's server is not there.") from error
        except (*_AFTER, TimeoutError) as error:
            raise VendorLost(f"The vendor did not answer: {type(error).__name__}.") from error

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work beside the loop, one piece at a time, as large answers are read."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
        self._reading.shutdown(wait=False, cancel_futures=True)


class Resolver:
    """Looks names up on threads of its own, each name once at a time.

    A vendor chooses its name, and whose nameserver does not answer keeps a thread for as long as
    the system waits for it. uvloop has two threads for names: two such, and no vendor is found.

    Args:
        look_up: gives the addresses of a name; blocks.
    """

    def __init__(self, look_up: Callable[[str, int], list[str]] | None = None) -> None:
        self._look_up = look_up or _addresses
        self._threads = ThreadPoolExecutor(_LOOK_UPS_MAX, thread_name_prefix="names")
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses that a name has now."""
        name = host, port
        asked = self._asked.get(name)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._threads, self._look_up, host, port)
            self._asked[name] = asked
            asked.add_done_callback(lambda _: self._asked.pop(name))
        # Who waits no longer takes nothing from who still does.
        return await asyncio.shield(asked)


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to an address that was judged, never to a name."""

    def __init__(
        self, resolver: Resolve, network: httpcore2.AsyncNetworkBackend, *, local: bool
    ) -> None:
        self._resolve = resolver
        self._local = local
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the interface's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, judge, connect; the caller's TLS goes on with the name."""
        last: Exception | None = None
        for address in (await self._judged(host, port, timeout))[:_ADDRESSES_MAX]:
            try:
                stream = await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
            else:
                return _Stream(stream)
        raise httpcore2.ConnectError(f"{host} takes no connection") from last

    async def _judged(self, host: str, port: int, timeout_s: float | None) -> list[str]:
        literal = _literal(host)
        addresses = [str(literal)]
        if literal is None:
            try:
                async with asyncio.timeout(timeout_s):
                    addresses = await self._resolve(host, port)
            # The last is said of a name that has an empty part, or one that is too long.
            except (OSError, TimeoutError, UnicodeError) as error:
                raise httpcore2.ConnectError(f"{host} has no address") from error
        found = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
        is_local = self._local and all(each.is_loopback for each in found)
        # One that is not open is enough: whoever gives out such a name means no good.
        if not found or not (is_local or all(map(is_open, found))):
            raise _NotOpen(host)
        return [str(each) for each in found]


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that counts what came and was no content; `Answering` takes content off."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.framing = 0

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the interface's own
    ) -> bytes:
        if self.framing > _FRAMING_BYTES_MAX:
            raise VendorFailed("The answer has more around its content than is taken.")
        data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
        self.framing += len(data)
        return data

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 # the interface's own
    ) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 # the interface's own
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _read_of_many(read: Callable[[bytes], T], data: bytes) -> T:
    # The interpreter is one thread's at a time: what one call into C reads holds everybody up.
    if has_more_values(data, VALUES_MAX):
        raise VendorFailed(f"The answer has more than {VALUES_MAX} values.")
    return read(data)


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_open(address: Address) -> bool:
    """Whether an address is one of the open Internet, through whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_open(inner)
        return address in _UNICAST and address.is_global
    is_metadata = any(address in network for network in _METADATA)
    return address.is_global and not address.is_multicast and not is_metadata


def _headers(url: str, content: bytes, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    own = {
        "host": urlsplit(url).netloc,
        "content-length": str(len(content)),
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "farthing",
    }
    return list({**own, **headers}.items())


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
