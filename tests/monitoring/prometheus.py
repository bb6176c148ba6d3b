"""A Prometheus on loopback that scrapes the processes of a test every second."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from dev.processes import Server
from tests.monitoring.promtool import program
from tests.stage.waiting import until

STEP_SECONDS = 1
SEE_SECONDS_MAX = 30


def as_asked(expression: str, interval: str) -> str:
    """A panel's expression as Grafana sends it for all namespaces."""
    return expression.replace("$__rate_interval", interval).replace("$namespace", ".*")


@dataclass(slots=True)
class Prometheus(Server):
    """`targets` are ports by job; `rules` is the YAML text of a rules file."""

    targets: dict[str, Sequence[int]] = field(default_factory=dict)
    rules: str = "groups: []"

    @property
    def url(self) -> str:
        """The URL of its API."""
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Starts the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rules.yaml").write_text(self.rules)
        every = f"{STEP_SECONDS}s"
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for name, ports in self.targets.items()
        ]
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }
        file = self.folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [
            program("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._run(command)

    def is_up(self) -> bool:
        """It listens before it answers."""
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    async def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        found = (await self._ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    async def until_all_seen(self) -> None:
        """Returns when every target was scraped. Before that, alerts on missing series fire correctly."""
        count = sum(map(len, self.targets.values()))

        async def seen() -> bool:
            return bool(await self.series(f"count (up == 1) == {count}"))

        await until(seen, "an answer of each target", SEE_SECONDS_MAX)

    async def series(self, expression: str) -> list[Any]:
        """The current series of the expression."""
        return list((await self._ask("query", query=expression))["result"])

    async def curves(self, expression: str, begin: float, end: float) -> list[Any]:
        """The series from `begin` to `end`, in seconds since 1970, with a point per second."""
        asked = {"query": expression, "start": str(begin), "end": str(end), "step": str(STEP_SECONDS)}
        return list((await self._ask("query_range", **asked))["result"])

    async def _ask(self, what: str, **asked: str) -> Any:
        async with httpx.AsyncClient(base_url=self.url) as client:
            reply = await client.get(f"/api/v1/{what}", params=asked)
        assert reply.is_success, reply.text
        return reply.json()["data"]


async def until_ended(prometheus: Prometheus, name: str, *, seconds_max: float) -> None:
    """Returns when the alert no longer fires."""

    async def ended() -> bool:
        return name not in await prometheus.firing()

    await until(ended, f"the end of {name}", seconds_max)


async def until_firing(prometheus: Prometheus, *names: str, seconds_max: float) -> None:
    """Returns when all of them have fired; fails with those that have not."""
    missing = set(names)
    deadline = asyncio.get_running_loop().time() + seconds_max
    while missing:
        missing -= await prometheus.firing()
        assert not missing or asyncio.get_running_loop().time() < deadline, f"never fired: {sorted(missing)}"
        await asyncio.sleep(0.2)
