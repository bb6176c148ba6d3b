"""A connection to RabbitMQ that is made when it is needed, waits for nothing without end, and ends with any error."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.pyamqp import Transport

from service.broker.topology import declare
from service.database import refuse_in_transaction
from service.errors import BrokerAway
from service.settings import Settings

HEARTBEAT_SECONDS = 20
# What the driver raises where a connection ends under its hands includes an AttributeError of its own.
ERRORS = (*Transport.connection_errors, *Transport.channel_errors, OperationalError, AttributeError)

log = structlog.stdlib.get_logger("rowlock.broker")


def hear(connection: Connection, seconds: float) -> bool:
    """Takes in what RabbitMQ says next; False where it says nothing for so long, which must not be zero: that would be
    without end.
    """
    try:
        connection.drain_events(timeout=seconds)
    except TimeoutError as error:
        # With a number it is the network's: the connection is lost, and the driver would quietly make another one.
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
    """`broker_url` must be set. For one thread. `connection` is the open one, if there is one."""

    def __init__(self, settings: Settings) -> None:
        assert settings.broker_url is not None
        self._url = settings.broker_url.get_secret_value()
        self._connect_seconds = settings.broker_connect_timeout_ms / 1000
        self._answer_seconds = settings.confirm_timeout_ms / 1000
        self._ttl_ms = settings.hold_seconds * 1000
        self._length_max = settings.hold_queue_length_max
        self.connection: Connection | None = None

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """The open connection, everything declared. Raises BrokerAway for whatever goes wrong, and closes it then:
        an answer that comes late would be taken for another one's.
        """
        refuse_in_transaction("RabbitMQ")
        try:
            yield self.connection or self._connect()
        except ERRORS as error:
            self.close()
            raise BrokerAway(f"RabbitMQ does not answer as it should: {error!r}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection without a word, which could wait for an answer; RabbitMQ sees the socket closed."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(Exception):
                connection.collect(socket_timeout=1)

    def _connect(self) -> Connection:
        connection = Connection(
            self._url,
            connect_timeout=self._connect_seconds,
            heartbeat=HEARTBEAT_SECONDS,
            ssl=_tls_options(self._url),
        )
        self.connection = connection
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        self._bound_waits(connection.connection)
        if not declare(connection, self._ttl_ms, self._length_max):
            log.warning("the queue of holds keeps its old maximal length", setting="hold_queue_length_max")
        return connection

    def _bound_waits(self, driver: Any) -> None:
        """The driver's own timeouts do not end a wait for the second half of an answer; those of its socket do."""
        driver.transport.sock.settimeout(self._answer_seconds)
        # Else it looks for a word of RabbitMQ's before each message, and without a timeout for the second half of that.
        driver.client_properties["capabilities"]["connection.blocked"] = False
