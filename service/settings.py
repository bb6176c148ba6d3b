"""Every environment variable of the service and the expirer: its type, its unit, its bounds and its default."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PostgresDsn, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import NotReady

PREFIX = "ROWLOCK_"
SECRETS_DIR = "ROWLOCK_SECRETS_DIR"
"""Names a folder in which a file `rowlock_<field>` gives that setting; a variable wins over a file."""


class Settings(BaseSettings):
    """Read once per process by `load`. The description of a field is its line in the README's table."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: Annotated[
        SecretStr, Field(description="PostgreSQL 15 or later: `postgresql://account:password@host:5432/database`")
    ]
    host: Annotated[str, Field(min_length=1, description="Address that the API listens on")] = "0.0.0.0"  # noqa: S104
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
        float, Field(ge=0.05, le=60, description="Age that the counts in the list of sessions may have")
    ] = 1.0
    password_queue_max: Annotated[
        int, Field(ge=1, le=1_000, description="Passwords that may wait to be checked per process, then 503")
    ] = 64
    sign_in_delay_ms_max: Annotated[
        int, Field(ge=0, le=30_000, description="Longest delay of a sign-in after failures of the same account")
    ] = 3_000
    sweep_interval_ms: Annotated[
        int, Field(ge=50, le=60_000, description="Pause of the expirer's sweep when nothing is overdue")
    ] = 1_000
    sweep_batch_max: Annotated[
        int, Field(ge=1, le=5_000, description="Holds that one transaction of the sweep ends")
    ] = 500
    expirer_port: Annotated[int, Field(ge=0, le=65_535, description="Port of the expirer's `/livez`")] = 3001
    heartbeat_seconds_max: Annotated[
        int, Field(ge=5, le=600, description="A loop of the expirer whose step takes longer is dead")
    ] = 30
    shutdown_seconds: Annotated[
        int, Field(ge=1, le=300, description="Time for the requests under way when the process is stopped")
    ] = 20
    log_level: Annotated[
        str, Field(pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`")
    ] = "info"

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        # The driver knows these two only; SQLAlchemy's, such as postgresql+asyncpg, would fail later.
        if value.get_secret_value().partition("://")[0] not in {"postgresql", "postgres"}:
            raise ValueError("the URL's scheme should be postgresql or postgres")
        PostgresDsn(value.get_secret_value())
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
