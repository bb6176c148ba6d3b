"""The format of log lines, ours and the libraries', and the secrets that are hidden in them."""

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from service.observability import logs
from tests.stage.logged import Capture, lines

TIME = re.compile(r"20\d\d-\d\d-\d\dT[\d:.]+Z")
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:pass@word@host/db is away", "postgresql://[hidden]@host/db is away"),
        ("amqp://ada:p%40ss@host:5672/v", "amqp://[hidden]@host:5672/v"),
        ("redis://:pass@host:6379", "redis://[hidden]@host:6379"),
        ("of ada.l+x@mail.example.com.", "of [hidden]."),
        (f"Bearer {TOKEN}", "Bearer [hidden]"),
        (repr(ValueError(f"bad token:\n{TOKEN}")), r"ValueError('bad token:\[hidden]')"),
        (f"Bearer%20{TOKEN}", "Bearer%[hidden]"),
        (f"token-{TOKEN}, token.{TOKEN}/", "[hidden], token.[hidden]/"),
        (
            "service.observability.metrics.catalogue, eyJacket.md",
            "service.observability.metrics.catalogue, eyJacket.md",
        ),
        ("oops\nDETAIL: Key (email)=(ada) exists.\nHINT: none", "oops\n[hidden]\nHINT: none"),
        ("oops\nDETAIL: Row (ada,\n\nhash)\n\nThe above exception was", "oops\n[hidden]\n\nThe above exception was"),
        ("HTTP://host/path?at=1", "HTTP://host/path?at=1"),
    ],
)
def test_what_a_library_quotes_is_hidden(text: str, shown: str) -> None:
    assert logs.hidden(text) == shown
    line: dict[str, Any] = {"event": text, "count": 3}
    assert logs.hide_secrets(None, "error", line) == {"event": shown, "count": 3}
    inside: dict[str, Any] = {"event": [{text: (text,)}], "_record": text}
    assert logs.hide_secrets(None, "error", inside) == {"event": [{shown: [shown]}], "_record": text}


def test_what_is_no_text_is_hidden_as_it_would_be_shown() -> None:
    quoting = ValueError("of ada@example.com\nDETAIL: Key (email)=(ada) exists.")
    line: dict[str, Any] = {"event": "failed", "error": quoting}
    assert logs.hide_secrets(None, "error", line)["error"] == "ValueError('of [hidden]\\n[hidden]"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + " @",
        "DETAIL:" * 50_000 + "@",
        "://" + ":" * 200_000 + " @",
        "-eyJ" * 50_000,
        "neyJ" * 50_000,
        ".a-" * 70_000 + " eyJ",
        "a@" * 100_000,
        "://a:" * 50_000 + " @",
        "eyJa. " * 40_000,
    ],
    ids=[
        "a word",
        "details",
        "colons",
        "tokens",
        "one that begins in the middle",
        "dotted words",
        "half addresses",
        "half URLs",
        "half tokens",
    ],
)
def test_a_long_text_takes_no_long_time(text: str) -> None:
    begun = time.thread_time()
    assert logs.hidden(text) == text
    assert time.thread_time() - begun < 1, "of the CPU, whatever else the machine does"


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False)])
def test_lines_are_json_or_text(capsys: Capture, form: str, *, is_json: bool) -> None:
    logs.configure_logging("info", form)
    structlog.stdlib.get_logger("rowlock.test").info("seats sold", count=3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("{") == is_json
    assert "seats sold" in line
    assert ("count=3" in line) != is_json


@pytest.mark.parametrize("value", [2**70, "\udcff", {"at": datetime(2026, 1, 2, tzinfo=UTC)}, object, float("nan")])
def test_any_value_can_be_logged(capsys: Capture, value: object) -> None:
    logs.configure_logging("info")
    structlog.stdlib.get_logger("rowlock.test").info("odd", value=value)
    (line,) = lines(capsys)
    assert line["event"] == "odd"


def test_lines_below_the_level_are_dropped(capsys: Capture) -> None:
    logs.configure_logging("warning")
    log = structlog.stdlib.get_logger("rowlock.test")
    log.info("all is well")
    log.warning("something is")
    assert [line["event"] for line in lines(capsys)] == ["something is"]


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_line_that_cannot_be_written_raises_nothing(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    class Gone:
        written = 0

        def write(self, _: str) -> None:
            self.written += 1
            raise error

    logs.configure_logging("info")
    gone = Gone()
    monkeypatch.setattr(sys, "stderr", gone)
    structlog.stdlib.get_logger("rowlock.test").info("lost")
    logging.getLogger("some.library").warning("lost too")
    assert gone.written == 2


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_plain_line_looks_like_any_other(capsys: Capture, form: str) -> None:
    logs.configure_logging("info", form)
    structlog.stdlib.get_logger("rowlock.test").info("sold", count=3)
    logs.write_plain(logs.Output("rowlock.test"), "info", {"count": 3, "event": "sold"})
    one, other = (TIME.sub("", line) for line in capsys.readouterr().err.splitlines())
    assert one == other


def test_a_plain_line_below_the_level_is_dropped(capsys: Capture) -> None:
    logs.configure_logging("warning")
    logs.write_plain(logs.Output("rowlock.test"), "info", {"event": "sold"})
    assert capsys.readouterr().err == ""


def test_a_librarys_line_looks_like_ours(capsys: Capture) -> None:
    logs.configure_logging("info")
    structlog.contextvars.bind_contextvars(request_id="mine")
    try:
        structlog.stdlib.get_logger("rowlock.test").warning("of ada@example.com")
        logging.getLogger("some.library").warning("of %s", "ada@example.com")
    finally:
        structlog.contextvars.clear_contextvars()
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert ours.keys() == theirs.keys()
    assert {**ours, "logger": "", "timestamp": ""} == {**theirs, "logger": "", "timestamp": ""}
    assert (ours["event"], theirs["logger"]) == ("of [hidden]", "some.library")


def test_a_logger_in_use_follows_a_new_configuration() -> None:
    log = structlog.stdlib.get_logger("rowlock.test")
    logs.configure_logging("info")
    log.info("before")
    logs.configure_logging("info")
    with capture_logs() as lines:
        log.info("after")
    assert [line["event"] for line in lines] == ["after"]
