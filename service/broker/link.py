"""A connection to RabbitMQ that opens on first use, limits every wait, and closes after any error.

Each connection goes to the next one of several nodes. kombu's own failover would compare the certificate of every node
with the host name of the first.
"""

import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.pyamqp import Transport

from service.broker.reading import frame_handler
from service.broker.topology import declare
from service.database import refuse_in_transaction
from service.errors import BrokerAway
from service.settings import Settings

HEARTBEAT_SECONDS = 20
# The driver raises an AttributeError of its own where a connection ends during a call.
ERRORS = (*Transport.connection_errors, *Transport.channel_errors, OperationalError, AttributeError)

log = structlog.stdlib.get_logger("rowlock.broker")


def hear(connection: Connection, seconds: float) -> bool:
    """Handles the next frame of RabbitMQ. False if none comes within `seconds`, which must not be zero: that would wait
    for ever.
    """
    try:
        connection.drain_events(timeout=seconds)
    except TimeoutError as error:
        # An error number means the network: the connection is lost, and the driver would silently open another one.
        if error.errno is not None:
            raise
        return False
    return True


def _tls_options(url: str) -> dict[str, Any]:
    """For `amqps`. The driver compares the certificate with the host name only where it is given that name."""
    address = urlsplit(url)
    if address.scheme != "amqps":
        return {}
    return {"server_hostname": address.hostname, "cert_reqs": ssl.CERT_REQUIRED}


class Link:
    """For one thread; `broker_url` must be set. `connection` is the open one, or None."""

    def __init__(self, settings: Settings) -> None:
        assert settings.broker_url is not None
        self._nodes = deque(settings.broker_nodes)
        self._connect_seconds = settings.broker_connect_timeout_ms / 1000
        self._answer_seconds = settings.confirm_timeout_ms / 1000
        self._ttl_ms = settings.hold_seconds * 1000
        self._length_max = settings.hold_queue_length_max
        self.connection: Connection | None = None

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """The open connection, with every exchange and queue declared. Any error closes it and raises BrokerAway: a
        late answer would be mistaken for the answer to the next call.
        """
        refuse_in_transaction("RabbitMQ")
        try:
            yield self.connection or self._connect()
        except ERRORS as error:
            address = urlsplit(self._nodes[0]).netloc.rpartition("@")[2]
            self.close()
            raise BrokerAway(f"RabbitMQ at {address} does not answer as it should: {error!r}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the socket without a closing handshake, which would wait for an answer. The next node comes next: this
        one may accept connections and answer nothing else.
        """
        connection, self.connection = self.connection, None
        if connection is not None:
            self._nodes.rotate(-1)
            with suppress(Exception):
                connection.collect(socket_timeout=1)

    def _connect(self) -> Connection:
        connection = self._open()
        self._bound_waits(connection.connection)
        if not declare(connection, self._ttl_ms, self._length_max):
            log.warning("the queue of holds keeps its old maximum length", setting="hold_queue_length_max")
        return connection

    def _open(self) -> Connection:
        """A connection to the first node that accepts one; each is tried once."""
        for _ in range(len(self._nodes) - 1):
            with suppress(*ERRORS):
                return self._open_to(self._nodes[0])
            self.close()
        return self._open_to(self._nodes[0])

    def _open_to(self, url: str) -> Connection:
        self.connection = Connection(
            url,
            connect_timeout=self._connect_seconds,
            heartbeat=HEARTBEAT_SECONDS,
            ssl=_tls_options(url),
            transport_options={"frame_handler": frame_handler},
        )
        self.connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        return self.connection

    def _bound_waits(self, driver: Any) -> None:
        """The driver's timeouts do not end a wait for the second half of an answer; a timeout of its socket does."""
        driver.transport.sock.settimeout(self._answer_seconds)
        # Otherwise it checks for a frame of RabbitMQ before each message, without a timeout for the second half of it.
        driver.client_properties["capabilities"]["connection.blocked"] = False
