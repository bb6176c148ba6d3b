"""Unknown variables that are named like settings: a misspelt one would be ignored silently."""

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import structlog

from service.settings import PREFIX, SECRETS_DIR, Settings

OTHERS = {
    SECRETS_DIR, "ROWLOCK_CLUSTER", "ROWLOCK_DATA_DIR", "ROWLOCK_IMAGE", "ROWLOCK_INGRESS_PORT", "ROWLOCK_NODE_IMAGE",
    "ROWLOCK_OUTER_PROXIES", "ROWLOCK_PUBLISH", "ROWLOCK_SMOKE_EMAIL", "ROWLOCK_SMOKE_PASSWORD", "ROWLOCK_TEST_SERVERS",
}  # fmt: skip
"""The product's commands read them. They are not settings of its processes."""
LINK = re.compile(
    rf"{PREFIX}(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.IGNORECASE
)
"""https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables"""
LINKED_URL = re.compile(r"(tcp|udp|sctp)://")
"""The value of a link whose name ends in _PORT, as settings do."""
LIKENESS_MIN = 0.6

log = structlog.stdlib.get_logger("rowlock.settings")


def warn_of_unknown() -> None:
    """Logs each variable, and each file of the secrets folder, that is named like a setting, but is unknown."""
    folder = os.environ.get(SECRETS_DIR)
    files = {path.name: "" for path in Path(folder).iterdir()} if folder and Path(folder).is_dir() else {}
    for name, nearest in unknown({**files, **os.environ}).items():
        log.warning("unknown setting, which has no effect", setting=name, nearest=nearest)


def unknown(given: Mapping[str, str]) -> dict[str, str | None]:
    """The nearest known name for each of them; None where none is near. The case of names does not matter."""
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    names = [name for name in given if name.upper().startswith(PREFIX) and name.upper() not in known | OTHERS]
    return {name: _nearest(name, known) for name in names if not _is_link(name, given[name])}


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # The prefix is alike in all.
    rests = {other.removeprefix(PREFIX): other for other in sorted(known)}
    near = get_close_matches(name.upper().removeprefix(PREFIX), rests, 1, LIKENESS_MIN)
    return rests[near[0]] if near else None


def _is_link(name: str, value: str) -> bool:
    """Whether Kubernetes has set it for a Service, such as ROWLOCK_API_PORT=tcp://10.0.0.1:80."""
    return bool(LINK.fullmatch(name) or (name.upper().endswith("_PORT") and LINKED_URL.match(value)))
