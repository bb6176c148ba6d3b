"""TLS to RabbitMQ: a certificate counts only for the host name that it names, and only from a trusted authority."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dev.postgres import Postgres
from service.broker.link import Link
from service.errors import BrokerAway
from tests.stage.factories import make_settings
from tests.stage.relaying import Broker

CHUNK_BYTES = 65_536


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for the host name, which is its own authority, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=rowlock-test"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", f"{key}", "-out", f"{certificate}"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@asynccontextmanager
async def tls_before(broker: Broker, certificate: Path, key: Path) -> AsyncIterator[str]:
    """The `amqps` URL of the broker behind a TLS proxy on localhost."""
    address = urlsplit(broker.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(pass_on(reader, broker_writer), pass_on(broker_reader, writer))

    server = await asyncio.start_server(join, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    credentials = address.netloc.rpartition("@")[0]
    try:
        yield f"amqps://{credentials}@localhost:{port}{address.path}"
    finally:
        server.close()
        await server.wait_closed()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction until its sender hangs up."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()


def connect(link: Link) -> None:
    """Opens the connection, declares everything and closes it again."""
    with link.connected():
        pass
    link.close()


async def test_a_certificate_for_the_host_name_is_accepted(
    postgres: Postgres, rabbitmq: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}")
    async with tls_before(rabbitmq, certificate, key) as url:
        await asyncio.to_thread(connect, Link(make_settings(postgres.url(), broker_url=url)))


async def test_a_certificate_for_another_host_name_is_refused(
    postgres: Postgres, rabbitmq: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "broker.example")
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}")
    async with tls_before(rabbitmq, certificate, key) as url:
        with pytest.raises(BrokerAway, match="Hostname mismatch"):
            await asyncio.to_thread(connect, Link(make_settings(postgres.url(), broker_url=url)))


async def test_a_certificate_of_an_unknown_authority_is_refused(
    postgres: Postgres, rabbitmq: Broker, tmp_path: Path
) -> None:
    async with tls_before(rabbitmq, *make_certificate(tmp_path, "localhost")) as url:
        with pytest.raises(BrokerAway, match="self-signed certificate"):
            await asyncio.to_thread(connect, Link(make_settings(postgres.url(), broker_url=url)))
