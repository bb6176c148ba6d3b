"""Every `ROWLOCK_*` environment variable, its bounds and its default, in groups. Any package may import it."""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import NotReady
from service.settings.serving import Accounts, Expirer, Holds, Limits, Logs, Processes, Tracing
from service.settings.stores import Database, EventLog, RabbitMQ, Redis, SeatMaps

PREFIX = "ROWLOCK_"
SECRETS_DIR = "ROWLOCK_SECRETS_DIR"
"""Names a folder in which a file `rowlock_<field>` gives that setting; a variable wins over a file."""


class Settings(
    Database,
    Redis,
    RabbitMQ,
    Processes,
    Accounts,
    Holds,
    Limits,
    SeatMaps,
    EventLog,
    Expirer,
    Tracing,
    Logs,
    BaseSettings,
):
    """All groups as one flat set of fields. A process reads them once, by `load`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")


def load(**given: Any) -> Settings:
    """The settings from the environment and the secrets folder. Arguments win over both.

    Raises NotReady, which names every invalid variable.
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
