"""Settings of the processes, the sale and the requests. A group's name and docstring head its table in
docs/configuration.md, and a field's description is the field's row there.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from service.hosts import without_brackets
from service.settings.schemes import with_scheme


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Processes(BaseModel):
    """Addresses, ports and the end of the API's and the expirer's processes."""

    host: Annotated[
        str,
        AfterValidator(without_brackets),
        Field(
            min_length=1,
            description="Address that the API and the expirer listen on, for all ports; `::` includes IPv6",
        ),
    ] = "0.0.0.0"  # noqa: S104
    port: Annotated[int, Field(ge=1, le=65_535, description="Port of the API")] = 3000
    metrics_port: Annotated[
        int, Field(ge=0, le=65_535, description="Port of the API's `/metrics` for Prometheus; 0 switches it off")
    ] = 9100
    expirer_port: Annotated[int, Field(ge=0, le=65_535, description="Port of the expirer's `/livez`")] = 3001
    expirer_metrics_port: Annotated[
        int, Field(ge=0, le=65_535, description="Port of the expirer's `/metrics`; 0 switches it off")
    ] = 9101
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        BeforeValidator(_split),
        Field(
            description="Networks of the proxies whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8, 192.0.2.7`."
            " Otherwise a request's address is that of its connection"
        ),
    ] = ()
    root_path: Annotated[
        str,
        Field(
            pattern="^(/[A-Za-z0-9._~-]+)*$",
            max_length=200,
            description="Prefix of the API's paths that a proxy removes, such as `/tickets`; for the documentation",
        ),
    ] = ""
    docs: Annotated[
        bool, Field(description="Whether the API serves its documentation: `/api-docs` and `/openapi.json`")
    ] = True
    shutdown_seconds: Annotated[
        int, Field(ge=1, le=300, description="Time that a stopping process gives to requests in progress")
    ] = 20


class Accounts(BaseModel):
    """Tokens, sign-up and sign-in."""

    token_secret: Annotated[
        SecretStr, Field(min_length=32, description="Key that signs the tokens (HS256), at least 32 characters")
    ]
    token_issuer: Annotated[str, Field(min_length=1, description="`iss` of the tokens")] = "rowlock"  # noqa: S105
    token_audience: Annotated[str, Field(min_length=1, description="`aud` of the tokens")] = "rowlock"  # noqa: S105
    token_minutes: Annotated[int, Field(ge=1, le=43_200, description="Lifetime of a token")] = 720
    open_manager_sign_up: Annotated[
        bool, Field(description="Whether sign-up accepts the role MANAGER; for development only")
    ] = False
    password_queue_max: Annotated[
        int, Field(ge=1, le=1_000, description="Passwords that may wait to be checked, per process, then 503")
    ] = 64
    sign_in_delay_ms_max: Annotated[
        int, Field(ge=0, le=30_000, description="Longest delay of a sign-in after failed sign-ins of the same account")
    ] = 3_000


class Holds(BaseModel):
    """Rules of sale for all sessions."""

    hold_seconds: Annotated[int, Field(ge=1, le=3_600, description="Time to pay for a hold")] = 30
    seats_per_hold_max: Annotated[int, Field(ge=1, le=100, description="Seats in one reservation")] = 10
    seats_per_customer_max: Annotated[
        int, Field(ge=1, le=1_000, description="Seats that a customer may hold and own in one session, together")
    ] = 10
    unpaid_ends_max: Annotated[
        int,
        Field(
            ge=0,
            le=1_000,
            description="How often a customer's holds of one session may expire or be released within 10 minutes, then "
            "429 `hold-cooldown`; 0 switches that off, and `ROWLOCK_REHOLD_SECONDS` too",
        ),
    ] = 3
    rehold_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=600,
            description="From the second such end on, time until the same customer may hold the same seats again",
        ),
    ] = 10


class Limits(BaseModel):
    """Limits on requests. The limits per minute are shared by all replicas where Redis is available."""

    writes_max: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Holds in progress per process, and as many payments and releases, then 503",
        ),
    ] = 1_000
    session_writes_max: Annotated[
        int,
        Field(ge=1, le=100_000, description="Of these, holds in progress in one session, then 503 for that session"),
    ] = 500
    write_wait_ms: Annotated[
        int,
        Field(ge=1, le=60_000, description="Longest wait of a hold, payment or release for earlier ones, then 503"),
    ] = 5_000
    body_bytes_max: Annotated[int, Field(ge=1_024, le=1_048_576, description="Longest request body")] = 65_536
    session_body_bytes_max: Annotated[
        int, Field(ge=65_536, le=16_777_216, description="Longest body of `POST /manager/create`")
    ] = 4_194_304
    request_head_seconds: Annotated[
        int, Field(ge=1, le=300, description="Longest wait for the headers of a request, then 408")
    ] = 10
    request_body_seconds: Annotated[
        int, Field(ge=1, le=600, description="Longest wait for the rest of a request, then 408")
    ] = 60
    idle_seconds: Annotated[
        int, Field(ge=1, le=600, description="How long a connection is kept for the next request")
    ] = 75
    write_stall_seconds: Annotated[
        int, Field(ge=1, le=600, description="How long a client may read nothing of its answer, then it is cut off")
    ] = 30
    page_size_max: Annotated[int, Field(ge=1, le=200, description="Largest page of a list")] = 100
    history_searches_max: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Histories that are searched for held, expired or released reservations at the same time, per"
            " process: a search may read all of a customer's reservations",
        ),
    ] = 3
    account_requests_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Requests of one account besides payments and releases, then 429")
    ] = 600
    account_payments_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Payments and releases of one account, then 429")
    ] = 300
    address_requests_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Reads from one address without a token, then 429")
    ] = 1_200
    address_sign_ins_per_minute: Annotated[
        int, Field(ge=1, le=1_000_000, description="Sign-ins and sign-ups from one address, then 429")
    ] = 120
    address_refusals_per_minute: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Requests from one address that are refused before an account is known (no valid token, an"
            " unknown path or method, a body that can't be read), then 429",
        ),
    ] = 600


class Expirer(BaseModel):
    """The expirer's sweep, which releases overdue holds without RabbitMQ, its deletion of old reservations, and its
    self-audit.
    """

    sweep_interval_ms: Annotated[
        int, Field(ge=50, le=60_000, description="Pause of the sweep when no hold is overdue")
    ] = 1_000
    sweep_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Holds that the sweep ends in one transaction")
    ] = 500
    reservations_keep_days: Annotated[
        int,
        Field(
            ge=1,
            le=18_250,
            description="Age at which reservations that expired or were released are deleted; paid ones are kept",
        ),
    ] = 400
    audit_interval_seconds: Annotated[
        int, Field(ge=1, le=86_400, description="Pause between two rounds of the self-audit")
    ] = 60
    heartbeat_seconds_max: Annotated[
        int, Field(ge=5, le=600, description="Longest step of a loop; after that `/livez` answers 503")
    ] = 30


class Tracing(BaseModel):
    """Traces for OpenTelemetry."""

    trace_endpoint: Annotated[
        SecretStr | None,
        AfterValidator(with_scheme("http", "https")),
        Field(
            description="Base URL of an OTLP receiver (http/protobuf), `http://host:4318`; without it nothing is traced"
        ),
    ] = None
    trace_sample_ratio: Annotated[
        float,
        Field(ge=0, le=1, description="Share of requests that are traced, unless a trusted proxy has decided"),
    ] = 0.01


class Logs(BaseModel):
    """Log lines, which go to standard error."""

    log_format: Annotated[
        str, Field(pattern="^(json|text)$", description="`json`, or `text` for reading in a terminal")
    ] = "json"
    log_level: Annotated[
        str, Field(pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`")
    ] = "info"
