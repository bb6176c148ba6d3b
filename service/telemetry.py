"""Logs: one line each on the standard error, with the request's and the trace's id wherever there is one."""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

# None looks twice at the same character, however long the text is: a client's word must not hold the loop.
PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]*(?=@)")
E_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++")
TOKEN = re.compile(r"(?<![\w-])eyJ[\w-]++\.[\w-]++\.[\w-]*+")
DETAIL = re.compile(r"DETAIL: .*$", re.MULTILINE)
"""PostgreSQL's, which quotes the row."""
HIDDEN = "[hidden]"

_processors: list[structlog.typing.Processor] = []
"""Always the same list: a logger in use keeps the one that it has found, also when it is configured anew."""


def configure_logging(level: str, form: str = "json") -> None:
    """Sends structlog's lines and the standard library's (gunicorn, uvicorn, asyncio) the same way.

    `form` is `json`, or `text` for people.
    """
    as_text = form == "text"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(colors=False) if as_text else structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    _lead_libraries(level)


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
        case None | bool() | int() | float():
            return value
        case str():
            return hidden(value) if "@" in value or "eyJ" in value or "DETAIL: " in value else value
        case Mapping():
            return {hidden(str(name)): _without_secrets(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(inner) for inner in value]
    return hidden(repr(value))


def hidden(text: str) -> str:
    """Without passwords of URLs, e-mail addresses, tokens, and values of rows."""
    for pattern in (DETAIL, PASSWORD_IN_URL, E_MAIL, TOKEN):
        text = pattern.sub(HIDDEN, text)
    return text
