"""Logs: one line each on the standard error, with the request's and the trace's id wherever there is one."""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog

# All take time in proportion to the text, however long it is: a client's word must not hold the loop.
PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]*(?=@)")
E_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++")
# With whatever stands before it in the same word, such as the n of an escaped line's end, or an escaped space's 20.
TOKEN = re.compile(r"(?<![\w-])(?=[\w-]*eyJ)[\w-]++\.[\w-]++\.[\w-]*+")
DETAIL = re.compile(r"DETAIL: .*?(?=\nHINT: |\n\nThe above exception |\n\nDuring handling |\Z)", re.DOTALL)
"""PostgreSQL's, which quotes the row, line breaks and all."""
HIDDEN = "[hidden]"

_processors: list[structlog.typing.Processor] = []
"""Always the same list: a logger in use keeps the one that it has found, also when it is configured anew."""


class Output:
    """Where our own lines go: straight to the standard error. By way of the standard library's records, as those of
    the libraries go, a line takes three times as long, which is several percent of a hold.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_told = logging.getLogger(name).isEnabledFor

    @staticmethod
    def write(line: str) -> None:
        """One line; nobody's request fails because it can't be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = write


class LibrariesHandler(logging.Handler):
    """Where the lines of the libraries go: to the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line, on whatever is the standard error by then."""
        try:
            Output.write(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library: one bad line is no more than that
            self.handleError(record)


def configure_logging(level: str, form: str = "json") -> None:
    """Sends structlog's lines and the standard library's (gunicorn, uvicorn, asyncio) to the same place, alike.

    `form` is `json`, or `text` for people.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    rendered: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=False)
        if form == "text"
        else structlog.processors.JSONRenderer(serializer=_as_json)
    )
    _processors[:] = [_only_told, *shared, rendered]
    structlog.configure(
        processors=_processors,
        logger_factory=Output,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = LibrariesHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    _lead_libraries(level)


def _only_told(logger: Output, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Ends what is below the level before anything is made of it."""
    if not logger.is_told(structlog.processors.NAME_TO_LEVEL[method]):
        raise structlog.DropEvent
    return line


def _as_json(line: structlog.typing.EventDict, default: Callable[[Any], Any]) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:
        # Numbers above 64 bits, and text that is not UTF-8.
        return json.dumps(line, default=default)


def _lead_libraries(level: str) -> None:
    """To where our own lines go, at the same level."""
    for name in ("gunicorn.error", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(level.upper())
    # The service writes a line for each request itself, with the request's id.
    logging.getLogger("uvicorn.access").disabled = True
    # Alembic tells each plugin it loads.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def hide_secrets(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The last defence: nobody logs a secret, but a driver's or a library's error may quote what it was given."""
    for name, value in line.items():
        # The logging library's own record is for the formatter alone.
        if not name.startswith("_"):
            line[name] = _without_secrets(value)
    return line


def _without_secrets(value: Any) -> Any:
    """The same, or what it looks like; whatever is in lists and dictionaries too."""
    match value:
        case str():
            return hidden(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {hidden(str(name)): _without_secrets(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(inner) for inner in value]
    return hidden(repr(value))


def hidden(text: str) -> str:
    """Without passwords of URLs, e-mail addresses, tokens, and values of rows."""
    if "@" not in text and "eyJ" not in text and "DETAIL: " not in text:
        return text
    for pattern in (DETAIL, PASSWORD_IN_URL, E_MAIL, TOKEN):
        text = pattern.sub(HIDDEN, text)
    return text
