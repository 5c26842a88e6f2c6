"""Nothing leaves for an address that is not of the open Internet, whatever its name says."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farthing.server.adapters.outbound import AddressRefused, Outbound, Resolver, is_open
from farthing.server.ports import NotSent, VendorFailed, VendorLost
from tests.patience import PATIENCE_S, patiently, until

PUBLIC = "93.184.216.34"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Network(httpcore2.AsyncNetworkBackend):
    """Remembers what was connected to, and connects to a port of this machine instead."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses: list[str] = []
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *args: Any, **named: Any) -> Any:
        del port
        self.addresses.append(host)
        return await self._real.connect_tcp("127.0.0.1", self.port, *args, **named)


class Names:
    """A resolver that answers each question with the next of its answers."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        del port
        self.asked.append(host)
        return self.answers.pop(0)


@asynccontextmanager
async def answering(
    *parts: bytes, tls: ssl.SSLContext | None = None, forever: bool = False
) -> AsyncIterator[int]:
    """A server on this machine that answers every request with these bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            while forever:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def posted(
    outbound: Outbound, url: str, *, timeout_s: float = 5, bytes_max: int = 1_000
) -> bytes:
    try:
        async with outbound.post(
            url, b"{}", {}, timeout_s=timeout_s, bytes_max=bytes_max
        ) as answer:
            return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        await outbound.aclose()


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context, with a certificate for one name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=365 * 50))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(pem))
    return server, client


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (PUBLIC, True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("0.0.0.0", False),  # noqa: S104
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", False),
        (f"::ffff:{PUBLIC}", True),
        ("2002:7f00:1::", False),
        ("2002:a9fe:a9fe::1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::a00:1", False),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_open(address: str, *, expected: bool) -> None:
    assert is_open(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize(
    ("url", "local", "fine"),
    [
        ("https://vendor.example/mcp", False, True),
        (f"https://{PUBLIC}/mcp", False, True),
        ("http://vendor.example/mcp", False, False),
        ("https://vendor.example:99999/mcp", False, False),
        ("https://vendor.example:a/mcp", False, False),
        ("https://[vendor]/mcp", False, False),
        ("https://[::1/mcp", False, False),
        ("https://localhost/mcp", False, False),
        ("https://127.0.0.1/mcp", False, False),
        ("https://[::1]/mcp", False, False),
        ("https://[::ffff:127.0.0.1]/mcp", False, False),
        ("https://10.0.0.1/mcp", False, False),
        ("http://127.0.0.1:9000/mcp", False, False),
        ("http://127.0.0.1:9000/mcp", True, True),
        ("http://localhost:9000/mcp", True, True),
        ("http://[::1]:9000/mcp", True, True),
        ("http://10.0.0.1/mcp", True, False),
        ("http://vendor.example/mcp", True, False),
        ("https://192.168.0.1/mcp", True, False),
        ("ftp://127.0.0.1/mcp", True, False),
    ],
)
def test_an_address_is_judged_before_anything_is_resolved(
    url: str, *, local: bool, fine: bool
) -> None:
    outbound = Outbound(local=local)

    if fine:
        outbound.check(url)
    else:
        with pytest.raises(AddressRefused):
            outbound.check(url)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["fe80::1%eth0"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [],
    ],
)
async def test_a_name_with_one_address_inside_is_never_connected_to(addresses: list[str]) -> None:
    network = Network(1)
    outbound = Outbound(resolver=Names(addresses), network=network)

    with pytest.raises(AddressRefused) as refused:
        await posted(outbound, "https://vendor.example/mcp")

    assert not refused.value.again
    assert network.addresses == []


async def test_a_name_that_nobody_answers_for_keeps_no_other_from_being_found() -> None:
    found, asked = Event(), list[str]()

    def look_up(host: str, port: int) -> list[str]:
        del port
        asked.append(host)
        if host == "slow.example":
            found.wait(PATIENCE_S)
        return [PUBLIC]

    resolver = Resolver(look_up)
    # More than the loop has threads for; the first of them gives up.
    waiting = [asyncio.create_task(resolver("slow.example", 443)) for _ in range(64)]
    await until(lambda: bool(asked))
    async with patiently():
        assert await resolver("vendor.example", 443) == [PUBLIC]
        waiting.pop(0).cancel()
        assert asked == ["slow.example", "vendor.example"]
        found.set()
        assert await asyncio.gather(*waiting) == [[PUBLIC]] * 63


async def test_the_names_of_all_that_one_organisation_calls_keep_no_other_from_being_found() -> (
    None
):
    found, asked = Event(), list[str]()

    def look_up(host: str, port: int) -> list[str]:
        del port
        asked.append(host)
        if host != "vendor.example":
            found.wait(PATIENCE_S)
        return [PUBLIC]

    resolver = Resolver(look_up)
    # An eighth of the calls at once, and as many names that were given up and are still looked up.
    waiting = [asyncio.create_task(resolver(f"{n}.slow.example", 443)) for n in range(64)]
    await until(lambda: bool(asked))
    try:
        async with patiently():
            assert await resolver("vendor.example", 443) == [PUBLIC]
    finally:
        found.set()
    assert await asyncio.gather(*waiting) == [[PUBLIC]] * 64


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1"])
async def test_old_spellings_of_an_address_are_judged_as_what_they_resolve_to(host: str) -> None:
    network = Network(1)

    with pytest.raises(NotSent):
        await posted(Outbound(network=network), f"https://{host}/mcp")

    assert network.addresses == []


@pytest.mark.parametrize("host", ["a..example", "...", f"{'a' * 64}.example"])
async def test_a_name_that_no_resolver_takes_is_not_there(host: str) -> None:
    network = Network(1)

    with pytest.raises(NotSent):
        await posted(Outbound(network=network), f"https://{host}/mcp")

    assert network.addresses == []


async def test_a_name_that_resolves_otherwise_the_second_time_gains_nothing(
    tmp_path: Path,
) -> None:
    server, client = certificates(tmp_path, "vendor.example")
    async with answering(OK, tls=server) as port:
        network = Network(port)
        names = Names([PUBLIC], ["127.0.0.1"])
        outbound = Outbound(resolver=names, network=network, trusted=client)

        assert await posted(outbound, "https://vendor.example/mcp") == b"ok"
        assert names.asked == ["vendor.example"]
        assert network.addresses == [PUBLIC]
        with pytest.raises(AddressRefused):
            await posted(outbound, "https://vendor.example/mcp")
        assert network.addresses == [PUBLIC]


async def test_the_certificate_must_be_of_the_name_and_not_of_the_address(tmp_path: Path) -> None:
    server, client = certificates(tmp_path, "other.example")
    async with answering(OK, tls=server) as port:
        outbound = Outbound(resolver=Names([PUBLIC]), network=Network(port), trusted=client)

        with pytest.raises(NotSent) as refused:
            await posted(outbound, "https://vendor.example/mcp")

        assert refused.value.again


async def test_an_environment_with_a_proxy_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server, client = certificates(tmp_path, "vendor.example")
    async with answering(OK, tls=server) as port:
        network = Network(port)
        outbound = Outbound(resolver=Names([PUBLIC]), network=network, trusted=client)

        assert await posted(outbound, "https://vendor.example/mcp") == b"ok"


async def test_no_redirect_is_followed() -> None:
    redirect = b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with answering(redirect) as port:
        outbound = Outbound(local=True)

        async with outbound.post(
            f"http://127.0.0.1:{port}/mcp", b"{}", {}, timeout_s=5, bytes_max=10
        ) as answer:
            assert answer.status == 307
        await outbound.aclose()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000], VendorFailed),
        ([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000], VendorFailed),
        ([b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n"], VendorFailed),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"], VendorLost),
        ([b"what is this"], VendorLost),
        ([], VendorLost),
    ],
)
async def test_an_answer_is_bounded_and_whole(
    parts: list[bytes], expected: type[Exception]
) -> None:
    async with answering(*parts) as port:
        with pytest.raises(expected):
            await posted(Outbound(local=True), f"http://127.0.0.1:{port}/mcp")


@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity"])
async def test_an_answer_that_says_that_it_is_not_packed_is_read(coding: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-encoding: " + coding
    async with answering(head + b"\r\n\r\nok") as port:
        assert await posted(Outbound(local=True), f"http://127.0.0.1:{port}/mcp") == b"ok"


@pytest.mark.parametrize(
    ("head", "around"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1;" + b"a" * 4_000 + b"\r\nx\r\n",
        ),
    ],
    ids=["before the answer", "small chunks", "extensions of chunks"],
)
async def test_what_is_around_an_answers_content_is_bounded(head: bytes, around: bytes) -> None:
    """Who sends nothing else kept the front end at work for as long as the hold lasted."""
    async with answering(head, around * (1024 * 1024 // len(around))) as port:
        with pytest.raises(VendorFailed, match="around its content"):
            await posted(
                Outbound(local=True),
                f"http://127.0.0.1:{port}/mcp",
                timeout_s=PATIENCE_S,
                bytes_max=4 * 1024 * 1024,
            )


async def test_much_is_read_beside_the_loop_and_little_on_it() -> None:
    def reader(data: bytes) -> int:
        del data
        return get_ident()

    outbound = Outbound(local=True)
    async with (
        answering(OK) as port,
        outbound.post(
            f"http://127.0.0.1:{port}/mcp", b"{}", {}, timeout_s=PATIENCE_S, bytes_max=9
        ) as answer,
    ):
        assert await answer.read(reader, b"x" * 1024) == get_ident()
        assert await answer.read(reader, b"x" * 1024 * 1024) != get_ident()
    await outbound.aclose()


async def test_an_answer_of_more_values_than_are_read_is_not_read() -> None:
    """Four megabytes of lists kept a front end still for seconds, on whichever thread."""

    async def read(body: bytes) -> int:
        async with (
            answering(OK) as port,
            outbound.post(
                f"http://127.0.0.1:{port}/mcp", b"{}", {}, timeout_s=PATIENCE_S, bytes_max=9
            ) as answer,
        ):
            return await answer.read(len, body)

    outbound = Outbound(local=True)
    text = rb"\\,\",[{" * 100_000
    assert await read(b'{"texts":["%s"]}' % text)
    for values in (b",[]", b',""', b",0", b',{"a":"\\\\"}'):
        assert await read(b'["%s"%s]' % (text, values * 40_000))
        with pytest.raises(VendorFailed, match="values"):
            await read(b'["%s"%s]' % (text, values * 110_000))
    await outbound.aclose()


async def test_who_drips_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    async with answering(head, forever=True) as port:
        with pytest.raises(VendorLost):
            await posted(
                Outbound(local=True),
                f"http://127.0.0.1:{port}/mcp",
                timeout_s=0.2,
                bytes_max=1_000_000,
            )


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with pytest.raises(NotSent) as refused:
        await posted(Outbound(local=True), "http://127.0.0.1:1/mcp")

    assert refused.value.again
