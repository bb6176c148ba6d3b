"""Every environment variable of the service and the expirer: its type, its unit, its bounds and its default."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PostgresDsn, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import NotReady
from service.hosts import without_brackets

PREFIX = "ROWLOCK_"
SECRETS_DIR = "ROWLOCK_SECRETS_DIR"
"""Names a folder in which a file `rowlock_<field>` gives that setting; a variable wins over a file."""


class Settings(BaseSettings):
    """Read once per process by `load`. The description of a field is its line in the README's table."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: Annotated[
        SecretStr, Field(description="PostgreSQL 15 or later: `postgresql://account:password@host:5432/database`")
    ]
    host: Annotated[
        str,
        AfterValidator(without_brackets),
        Field(min_length=1, description="Address that API and expirer listen on, on all their ports; `::`: IPv6 too"),
    ] = "0.0.0.0"  # noqa: S104
    port: Annotated[int, Field(ge=1, le=65_535, description="Port that the API listens on")] = 3000
    token_secret: Annotated[
        SecretStr, Field(min_length=32, description="Key that signs the tokens (HS256), at least 32 characters")
    ]
    token_issuer: Annotated[str, Field(min_length=1, description="`iss` of the tokens")] = "rowlock"  # noqa: S105
    token_audience: Annotated[str, Field(min_length=1, description="`aud` of the tokens")] = "rowlock"  # noqa: S105
    token_minutes: Annotated[int, Field(ge=1, le=43_200, description="A token is good for this long")] = 720
    open_manager_sign_up: Annotated[
        bool, Field(description="Sign-up accepts the role MANAGER; for development only")
    ] = False
    hold_seconds: Annotated[int, Field(ge=1, le=3_600, description="Time to pay for a hold")] = 30
    seats_per_hold_max: Annotated[int, Field(ge=1, le=100, description="Seats in one reservation")] = 10
    seats_per_customer_max: Annotated[
        int, Field(ge=1, le=1_000, description="Seats of one session that a customer may hold and own together")
    ] = 10
    pool_size: Annotated[int, Field(ge=1, le=200, description="Connections to PostgreSQL per process")] = 10
    pool_wait_ms: Annotated[int, Field(ge=1, le=60_000, description="Wait for a free connection, then 503")] = 2_000
    connect_timeout_ms: Annotated[int, Field(ge=100, le=60_000, description="Wait for a new connection")] = 3_000
    lock_timeout_ms: Annotated[int, Field(ge=10, le=60_000, description="Wait for a row lock, then 503")] = 2_000
    statement_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Longest statement of a request, waits included")
    ] = 5_000
    outcome_wait_ms: Annotated[
        int, Field(ge=0, le=60_000, description="Time to find out whether an unanswered COMMIT was done, then 503")
    ] = 5_000
    writes_max: Annotated[
        int, Field(ge=1, le=100_000, description="Holds, payments and releases at once per process, then 503")
    ] = 1_000
    body_bytes_max: Annotated[int, Field(ge=1_024, le=1_048_576, description="Longest request body")] = 65_536
    session_body_bytes_max: Annotated[
        int, Field(ge=65_536, le=16_777_216, description="Longest body of `POST /manager/create`")
    ] = 4_194_304
    page_size_max: Annotated[int, Field(ge=1, le=200, description="Longest page of a list")] = 100
    counts_seconds: Annotated[
        float,
        Field(
            ge=0.05,
            le=60,
            description="Time for which counts of the list of sessions are remembered; where they come from a map in"
            " Redis they are up to `ROWLOCK_MAP_FRESH_MS` older",
        ),
    ] = 1.0
    password_queue_max: Annotated[
        int, Field(ge=1, le=1_000, description="Passwords that may wait to be checked per process, then 503")
    ] = 64
    sign_in_delay_ms_max: Annotated[
        int, Field(ge=0, le=30_000, description="Longest delay of a sign-in after failures of the same account")
    ] = 3_000
    redis_url: Annotated[
        SecretStr | None,
        Field(description="Redis 7 or later, `redis://:password@host:6379/0`; without it PostgreSQL answers all reads"),
    ] = None
    redis_timeout_ms: Annotated[
        int, Field(ge=10, le=10_000, description="Longest wait for Redis, connecting included")
    ] = 250
    redis_connections_max: Annotated[int, Field(ge=1, le=1_000, description="Connections to Redis per process")] = 50
    broker_url: Annotated[
        SecretStr | None,
        Field(
            description="RabbitMQ 3.10 or later, `amqp://account:password@host:5672/vhost`; without it seats come back"
            " by the sweep alone, and events leave the log after `ROWLOCK_LOG_KEEP_HOURS` without being published: who"
            " sets it later hears of what happens from then on"
        ),
    ] = None
    broker_connect_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Wait for a new connection to RabbitMQ")
    ] = 3_000
    confirm_timeout_ms: Annotated[
        int, Field(ge=100, le=60_000, description="Wait for RabbitMQ's answers, such as confirms")
    ] = 5_000
    hold_queue_length_max: Annotated[
        int, Field(ge=1_000, le=100_000_000, description="Hints that may wait in RabbitMQ; further ones are dropped")
    ] = 1_000_000
    inbox_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Dead letters that one transaction of the inbox settles")
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
    relay_interval_ms: Annotated[int, Field(ge=5, le=10_000, description="Pause of the relay without events")] = 50
    sequencer_batch_max: Annotated[
        int, Field(ge=1, le=10_000, description="Events that one transaction of the sequencer numbers")
    ] = 1_000
    sequencer_interval_ms: Annotated[
        int, Field(ge=5, le=10_000, description="Pause of the sequencer without events")
    ] = 25
    projector_batch_max: Annotated[
        int, Field(ge=1, le=10_000, description="Events that one step of the projector brings to Redis")
    ] = 1_000
    projector_interval_ms: Annotated[
        int, Field(ge=5, le=1_000, description="Pause of the projector without events; seat maps are as old as this")
    ] = 50
    lease_ms: Annotated[
        int, Field(ge=500, le=60_000, description="Another replica carries on when the active one is silent so long")
    ] = 1_500
    log_keep_hours: Annotated[
        int, Field(ge=1, le=87_600, description="Age at which events that every reader has passed leave the log")
    ] = 72
    map_fresh_ms: Annotated[
        int, Field(ge=200, le=60_000, description="Age up to which a seat map from Redis is served")
    ] = 2_000
    map_keep_minutes: Annotated[
        int, Field(ge=1, le=10_080, description="Time that a seat map stays in Redis before it is built anew")
    ] = 360
    map_wait_ms: Annotated[
        int, Field(ge=0, le=5_000, description="Wait for a seat map that somebody else builds, then PostgreSQL")
    ] = 300
    map_reads_max: Annotated[
        int, Field(ge=1, le=100, description="Seat maps read from PostgreSQL at once per process")
    ] = 4
    map_read_interval_ms: Annotated[
        int, Field(ge=0, le=10_000, description="Age up to which a seat map from PostgreSQL is given to others too")
    ] = 100
    account_requests_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Requests of one account, then 429")
    ] = 600
    address_requests_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Reads of one address without a token, then 429")
    ] = 1_200
    address_sign_ins_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Sign-ins and sign-ups of one address, then 429")
    ] = 120
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        Field(
            description="Networks of proxies, `10.0.0.0/8, 192.0.2.7`, whose `X-Forwarded-For` is believed; else the"
            " address of a request is its connection's"
        ),
    ] = ()
    sweep_interval_ms: Annotated[
        int, Field(ge=50, le=60_000, description="Pause of the expirer's sweep when nothing is overdue")
    ] = 1_000
    sweep_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Holds that one transaction of the sweep ends")
    ] = 500
    expirer_port: Annotated[int, Field(ge=0, le=65_535, description="Port of the expirer's `/livez`")] = 3001
    metrics_port: Annotated[
        int, Field(ge=0, le=65_535, description="Port of the API's `/metrics` for Prometheus; 0: none")
    ] = 9100
    expirer_metrics_port: Annotated[
        int, Field(ge=0, le=65_535, description="Port of the expirer's `/metrics`; 0: none")
    ] = 9101
    audit_interval_seconds: Annotated[
        int, Field(ge=1, le=86_400, description="From the end of a round of the self-audit to the next one")
    ] = 60
    heartbeat_seconds_max: Annotated[
        int, Field(ge=5, le=600, description="A loop of the expirer whose step takes longer is dead")
    ] = 30
    shutdown_seconds: Annotated[
        int, Field(ge=1, le=300, description="Time for the requests under way when the process is stopped")
    ] = 20
    trace_endpoint: Annotated[
        SecretStr | None,
        Field(description="Base URL of an OTLP receiver (http/protobuf), `http://host:4318`; without it no traces"),
    ] = None
    trace_sample_ratio: Annotated[
        float, Field(ge=0, le=1, description="Share of requests that is traced, where no trusted proxy decides")
    ] = 0.01
    log_format: Annotated[str, Field(pattern="^(json|text)$", description="`json`, or `text` for people")] = "json"
    log_level: Annotated[
        str, Field(pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`")
    ] = "info"

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, "redis", "rediss", "unix")

    @field_validator("trace_endpoint")
    @classmethod
    def _is_http(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, "http", "https")

    @field_validator("broker_url")
    @classmethod
    def _is_amqp(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, "amqp", "amqps")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        # The driver knows these two only; SQLAlchemy's, such as postgresql+asyncpg, would fail later.
        if value.get_secret_value().partition("://")[0] not in {"postgresql", "postgres"}:
            raise ValueError("the URL's scheme should be postgresql or postgres")
        PostgresDsn(value.get_secret_value())
        return value


def _checked(value: SecretStr | None, *schemes: str) -> SecretStr | None:
    if value is not None and value.get_secret_value().partition("://")[0] not in schemes:
        raise ValueError(f"the URL's scheme should be one of {', '.join(schemes)}")
    return value


def load(**given: Any) -> Settings:
    """The settings from the environment and the secrets folder; what is `given` wins.

    Raises NotReady that names every variable at fault.
    """
    folder = os.environ.get(SECRETS_DIR)
    if folder is not None and not Path(folder).is_dir():
        raise NotReady(f"settings: {SECRETS_DIR}: {folder} is not a folder")
    try:
        return Settings(_secrets_dir=folder, **given)
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise NotReady(f"settings: {faults}") from None
