"""`python -m expirer parked list|show|requeue|drop`: inspects and handles the dead letters that failed."""

import argparse
import json
import sys
from collections.abc import Sequence

from service import settings
from service.broker.parked import Choice, Parked, ParkedMessages
from service.errors import BrokerAway, NotReady
from service.settings import Settings

BODY_LISTED_MAX = 80


def main(arguments: Sequence[str]) -> None:
    """Prints the result. Exits with 1 and the reason on failure."""
    parsed = _parser().parse_args(arguments)
    try:
        messages = ParkedMessages(_settings_with_broker())
        try:
            sys.stdout.write(_do(messages, parsed) + "\n")
        finally:
            messages.close()
    except (NotReady, BrokerAway) as error:
        sys.exit(f"parked: {error}")


def _settings_with_broker() -> Settings:
    loaded = settings.load()
    if loaded.broker_url is None:
        raise NotReady("ROWLOCK_BROKER_URL is not set")
    return loaded


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m expirer parked", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="one line for each message, the oldest first")
    verbs.add_parser("show", help="one message as JSON").add_argument("name", help="from the list")
    for verb, meaning in (("requeue", "send to the inbox again"), ("drop", "remove permanently")):
        chosen = verbs.add_parser(verb, help=meaning).add_mutually_exclusive_group(required=True)
        chosen.add_argument("name", nargs="?", help="from the list")
        chosen.add_argument("--all", action="store_true")
    return parser


def _do(messages: ParkedMessages, parsed: argparse.Namespace) -> str:
    match parsed.verb:
        case "list":
            found = messages.look()
            return "\n".join([f"{len(found)} parked", *map(_line, found)])
        case "show":
            found = [parked for parked in messages.look() if parked.name == parsed.name]
            _counted(len(found), parsed)
            return _whole(found[0])
        case "requeue":
            return f"{_requeued(messages, parsed)} sent to the inbox"
        case _:
            return f"{_counted(messages.drop(_chosen(parsed)), parsed)} dropped"


def _requeued(messages: ParkedMessages, parsed: argparse.Namespace) -> int:
    count = messages.requeue(_chosen(parsed))
    if count == 0 and any(found.name == parsed.name for found in messages.look()):
        raise NotReady(f"{parsed.name} is too long for the inbox, which would park it again: drop it")
    return _counted(count, parsed)


def _chosen(parsed: argparse.Namespace) -> Choice:
    return lambda name: parsed.all or name == parsed.name


def _counted(count: int, parsed: argparse.Namespace) -> int:
    if count == 0 and parsed.name is not None:
        raise NotReady(f"no parked message is named {parsed.name}")
    return count


def _line(parked: Parked) -> str:
    return f"{parked.name}  {parked.why:<10}  {parked.reason or 'unknown':<14}  {_body(parked)[:BODY_LISTED_MAX]}"


def _whole(parked: Parked) -> str:
    shown = {"name": parked.name, "why": parked.why, "reason": parked.reason, "body": _body(parked)}
    return json.dumps(shown | {"headers": json.loads(parked.headers)}, indent=2, ensure_ascii=False)


def _body(parked: Parked) -> str:
    return parked.body.decode(errors="replace")
