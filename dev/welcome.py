"""The text of `make run` once everything works: addresses, accounts, and three calls to paste."""

from dataclasses import dataclass
from pathlib import Path

from dev import demo
from dev.parts import say


@dataclass(frozen=True, slots=True)
class Welcome:
    """Everything that is printed; `servers` are addresses by name, `seat_id` is a seat that can be held."""

    api: str
    livez: str
    metrics: list[str]
    servers: dict[str, str]
    seat_id: int
    folder: Path


def print_welcome(welcome: Welcome) -> None:
    """Prints it."""
    api, folder = welcome.api, welcome.folder
    sign_in = f'{{"email": "{demo.CUSTOMERS[0]}", "password": "{demo.PASSWORD}"}}'
    field = "python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])'"
    servers = "\n".join(f"  {name:<22}  {address}" for name, address in welcome.servers.items())
    say(f"""it runs
  try it in the browser   {api}/api-docs
  accounts                {demo.MANAGER}, {", ".join(demo.CUSTOMERS)}
  their password          {demo.PASSWORD}
  logs                    {folder}/api.log, {folder}/expirer.log
  health                  {api}/readyz, {welcome.livez}
  metrics                 {", ".join(welcome.metrics) or "off"}
{servers}
or in another terminal:
  curl -sS '{api}/customer/list-sessions'
  token=$(curl -sS {api}/sign-in -H 'Content-Type: application/json' -d '{sign_in}' | {field} token)
  curl -sS -X POST {api}/customer/book/{welcome.seat_id} -H "Authorization: Bearer $token"
Ctrl-C stops it.""")
