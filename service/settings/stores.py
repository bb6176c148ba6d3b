"""Settings of the stores and of what keeps them in step. A group's name and docstring head its table in
docs/configuration.md, and a field's description is the field's row there.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, PostgresDsn, SecretStr

from service.settings.schemes import with_scheme
from service.settings.sentinels import SCHEMES, names_sentinels

BROKER_NODES_MAX = 5
"""A call that needs a connection may try them all, each for `broker_connect_timeout_ms`."""

_is_broker_url = with_scheme("amqp", "amqps")


def _is_postgresql_url(value: SecretStr) -> SecretStr:
    PostgresDsn(value.get_secret_value())
    return value


def _nodes_of(value: SecretStr) -> tuple[str, ...]:
    return tuple(url.strip() for url in value.get_secret_value().split(";"))


def _are_broker_urls(value: SecretStr | None) -> SecretStr | None:
    nodes = () if value is None else _nodes_of(value)
    if len(nodes) > BROKER_NODES_MAX:
        raise ValueError(f"{len(nodes)} URLs are given, at most {BROKER_NODES_MAX} are allowed")
    for url in nodes:
        _is_broker_url(SecretStr(url))
    return value


class Database(BaseModel):
    """PostgreSQL holds all data. Its connections and time limits are per process."""

    database_url: Annotated[
        SecretStr,
        # asyncpg knows these two schemes only: SQLAlchemy's own, such as postgresql+asyncpg, would fail later.
        AfterValidator(with_scheme("postgresql", "postgres")),
        AfterValidator(_is_postgresql_url),
        Field(description="PostgreSQL 15 or later: `postgresql://account:password@host:5432/database`"),
    ]
    pool_size: Annotated[int, Field(ge=1, le=200, description="Connections to PostgreSQL per process")] = 10
    pool_wait_ms: Annotated[int, Field(ge=1, le=60_000, description="Longest wait for a free connection, then 503")] = (
        2_000
    )
    connect_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Longest wait for a new connection to PostgreSQL")
    ] = 3_000
    lock_timeout_ms: Annotated[int, Field(ge=10, le=60_000, description="Longest wait for a row lock, then 503")] = (
        2_000
    )
    list_lock_timeout_ms: Annotated[
        int,
        Field(
            ge=10,
            le=60_000,
            description="Longest wait for a row lock of holds, payments and releases that share a transaction; then"
            " each is tried alone, for `ROWLOCK_LOCK_TIMEOUT_MS`",
        ),
    ] = 500
    statement_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Longest run of a request's statement, including its lock waits")
    ] = 5_000
    outcome_wait_ms: Annotated[
        int,
        Field(
            ge=0,
            le=60_000,
            description="Longest search for the outcome of a COMMIT whose answer was lost, then 503 `outcome-unknown`",
        ),
    ] = 5_000


class Redis(BaseModel):
    """Redis serves seat maps and shares rate limits between replicas. It is optional."""

    redis_url: Annotated[
        SecretStr | None,
        AfterValidator(with_scheme("redis", "rediss", "unix", *SCHEMES)),
        AfterValidator(names_sentinels),
        Field(
            description="Redis 7 or later: `redis://:password@host:6379/0`, or the master that sentinels name:"
            " `redis+sentinel://:password@host:26379,host:26379/name/0`; without it PostgreSQL answers all reads"
        ),
    ] = None
    redis_timeout_ms: Annotated[
        int, Field(ge=10, le=10_000, description="Longest wait for Redis, including the connection")
    ] = 250
    redis_connections_max: Annotated[int, Field(ge=1, le=1_000, description="Connections to Redis per process")] = 50


class RabbitMQ(BaseModel):
    """RabbitMQ receives the events, and expires holds on time. It is optional. The inbox settles expired holds in
    batches; the relay publishes events.
    """

    broker_url: Annotated[
        SecretStr | None,
        AfterValidator(_are_broker_urls),
        Field(
            description="RabbitMQ 3.10 or later: `amqp://account:password@host:5672/vhost`. The nodes of a cluster have"
            f" a whole URL each, separated by `;`, at most {BROKER_NODES_MAX}: if one is down, the next is tried."
            " Without RabbitMQ only the sweep releases unpaid seats, and events are removed after"
            " `ROWLOCK_LOG_KEEP_HOURS` without being published. If it is set later, publishing starts with the events"
            " from then on"
        ),
    ] = None
    broker_connect_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Longest wait for a new connection to a node of RabbitMQ")
    ] = 3_000
    confirm_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Longest wait for an answer of RabbitMQ, such as a confirm")
    ] = 5_000
    hold_queue_length_max: Annotated[
        int,
        Field(
            ge=1_000,
            le=100_000_000,
            description="Expiry messages that may wait in RabbitMQ; further ones are dropped, and the sweep ends their"
            " holds",
        ),
    ] = 1_000_000
    inbox_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Dead letters that the inbox settles in one transaction")
    ] = 500
    inbox_linger_ms: Annotated[
        int, Field(ge=0, le=1_000, description="Time that the inbox waits for more dead letters after the first")
    ] = 20
    inbox_tries_max: Annotated[
        int, Field(ge=1, le=20, description="Tries of a dead letter that fails alone, before it is parked")
    ] = 3
    relay_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Events that the relay publishes before it waits for their confirms")
    ] = 500
    relay_interval_ms: Annotated[
        int, Field(ge=5, le=10_000, description="Longest pause of the relay while no wake-up comes")
    ] = 1_000

    @property
    def broker_nodes(self) -> tuple[str, ...]:
        """The URL of each node, in the order in which they are tried."""
        return () if self.broker_url is None else _nodes_of(self.broker_url)


class EventLog(BaseModel):
    """The log of events in PostgreSQL. The sequencer numbers its events after their commits."""

    sequencer_batch_max: Annotated[
        int, Field(ge=1, le=10_000, description="Events that the sequencer numbers in one transaction")
    ] = 1_000
    sequencer_interval_ms: Annotated[
        int,
        Field(
            ge=5,
            le=10_000,
            description="Longest pause of the sequencer while no wake-up comes. Wake-ups need a session: behind a"
            " pooler in transaction mode set this to 25, and the relay's and the projector's to 50",
        ),
    ] = 1_000
    events_linger_ms: Annotated[
        int,
        Field(
            ge=0,
            le=1_000,
            description="Shortest time from one step of sequencer, relay or projector to the next: events that come"
            " meanwhile share a step",
        ),
    ] = 100
    lease_ms: Annotated[
        int,
        Field(ge=500, le=60_000, description="Silence of the active replica after which another replica takes over"),
    ] = 1_500
    log_keep_hours: Annotated[
        int,
        Field(ge=1, le=87_600, description="Age at which events are removed, once every reader has processed them"),
    ] = 72


class SeatMaps(BaseModel):
    """How old a seat map may be, and how many are read from PostgreSQL. The projector applies events to the maps in
    Redis.
    """

    map_fresh_ms: Annotated[
        int, Field(ge=200, le=60_000, description="Maximum age of a seat map from Redis; an older one is not served")
    ] = 2_000
    map_keep_minutes: Annotated[
        int, Field(ge=1, le=10_080, description="Time that a seat map stays in Redis before it is rebuilt")
    ] = 360
    map_wait_ms: Annotated[
        int,
        Field(
            ge=0,
            le=5_000,
            description="Longest wait for a seat map that another request is building, then PostgreSQL is read",
        ),
    ] = 300
    map_reads_max: Annotated[
        int, Field(ge=1, le=100, description="Seat maps read from PostgreSQL at the same time, per process")
    ] = 4
    map_read_interval_ms: Annotated[
        int, Field(ge=0, le=10_000, description="Time for which a seat map from PostgreSQL serves further requests")
    ] = 100
    counts_seconds: Annotated[
        float,
        Field(
            ge=0.05,
            le=60,
            description="Time for which the list of sessions reuses its counts of seats; counts from Redis are up to"
            " `ROWLOCK_MAP_FRESH_MS` older",
        ),
    ] = 1.0
    projector_batch_max: Annotated[
        int, Field(ge=1, le=10_000, description="Events that one step of the projector applies to Redis")
    ] = 1_000
    projector_interval_ms: Annotated[
        int,
        Field(
            ge=5,
            le=1_000,
            description="Longest pause of the projector while no wake-up comes, at most a third of"
            " `ROWLOCK_MAP_FRESH_MS`; seat maps may be reported older by this",
        ),
    ] = 200
