"""Logs: one line each on standard error, with the ids of the request and the trace if there are any."""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

# All patterns take time in proportion to the text: a client's text must not block the event loop.
PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]*(?=@)")
E_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++")
# Includes the characters before it in the same word, such as the n of an escaped line end or the 20 of a space.
TOKEN = re.compile(r"(?<![\w-])(?=[\w-]*eyJ)[\w-]++\.[\w-]++\.[\w-]*+")
DETAIL = re.compile(r"DETAIL: .*?(?=\nHINT: |\n\nThe above exception |\n\nDuring handling |\Z)", re.DOTALL)
"""PostgreSQL's DETAIL quotes the row, including its line breaks."""
HIDDEN = "[hidden]"

_processors: list[structlog.typing.Processor] = []
"""Always the same list: a logger keeps the list of its first use, even if logging is configured again."""


class Output:
    """Writes our own lines straight to standard error. Through the standard library's records, which the libraries use,
    a line takes three times as long, which is several percent of a hold.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_enabled_for = logging.getLogger(name).isEnabledFor

    @staticmethod
    def write(line: str) -> None:
        """Writes one line. A request does not fail because its line can't be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = write


class LibrariesHandler(logging.Handler):
    """Writes the libraries' lines to the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line to the current standard error."""
        try:
            Output.write(self.format(record))
        except Exception:  # noqa: BLE001 - one bad line must not fail the caller, as in the standard library's handlers
            self.handleError(record)


def configure_logging(level: str, form: str = "json") -> None:
    """Sends structlog's lines and the standard library's (gunicorn, uvicorn, asyncio) to standard error in one format.

    `form` is `json`, or `text` for reading in a terminal.
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
    _processors[:] = [_drop_below_level, *shared, rendered]
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


def write_plain(output: Output, level: str, line: structlog.typing.EventDict) -> None:
    """Writes a line as structlog would, at a third of the cost: without its bound values and without a search for
    secrets, which the caller vouches for.
    """
    if output.is_enabled_for(structlog.processors.NAME_TO_LEVEL[level]):
        timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line.update(level=level, logger=output.name, timestamp=timestamp)
        output.write(str(_processors[-1](output, level, line)))


def _drop_below_level(logger: Output, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Drops a line below the level before the other processors run."""
    if not logger.is_enabled_for(structlog.processors.NAME_TO_LEVEL[method]):
        raise structlog.DropEvent
    return line


def _as_json(line: structlog.typing.EventDict, default: Callable[[Any], Any]) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:
        # Numbers above 64 bits, and text that is not UTF-8.
        return json.dumps(line, default=default)


def _lead_libraries(level: str) -> None:
    """Sends the libraries' lines where our own lines go, at the same level."""
    for name in ("gunicorn.error", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(level.upper())
    # The service itself writes a line for each request, with the request's id.
    logging.getLogger("uvicorn.access").disabled = True
    # Alembic logs each plugin that it loads.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def hide_secrets(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The last defence: we log no secrets, but an error of a driver or a library may quote its input."""
    for name, value in line.items():
        # The logging library's own record is only for the formatter.
        if not name.startswith("_"):
            line[name] = _without_secrets(value)
    return line


def _without_secrets(value: Any) -> Any:
    """The value without secrets, also inside lists and dictionaries. Other types become their `repr`."""
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
    """The text without passwords in URLs, e-mail addresses, tokens and values of rows."""
    if "@" not in text and "eyJ" not in text and "DETAIL: " not in text:
        return text
    for pattern in (DETAIL, PASSWORD_IN_URL, E_MAIL, TOKEN):
        text = pattern.sub(HIDDEN, text)
    return text
