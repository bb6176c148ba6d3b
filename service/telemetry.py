"""Logs: one line each on the standard error, with the request's and the trace's id wherever there is one."""

import logging
import re
import sys
from typing import Any

import structlog

PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@]*:[^\s/]*(?=@)")
E_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
TOKEN = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")
DETAIL = re.compile(r"^DETAIL: .*$", re.MULTILINE)
"""PostgreSQL's, which quotes the row."""
HIDDEN = "[hidden]"


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
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
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
        if isinstance(value, str) and ("@" in value or "eyJ" in value or "DETAIL: " in value):
            line[name] = hidden(value)
    return line


def hidden(text: str) -> str:
    """Without passwords of URLs, e-mail addresses, tokens, and values of rows."""
    for pattern in (DETAIL, PASSWORD_IN_URL, E_MAIL, TOKEN):
        text = pattern.sub(HIDDEN, text)
    return text
