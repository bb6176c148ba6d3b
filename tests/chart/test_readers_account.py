"""RabbitMQ's account for programs that read events: it can do that, and nothing else."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.chart.rendering import Object, of_kind, pod_specs, rendered

COMPOSE = Path(__file__).parents[2] / "compose.yml"


def _definitions(values: Object | None = None) -> dict[str, Any]:
    made = of_kind(rendered(values), "ConfigMap")["rowlock-rabbitmq"]["data"]["definitions.json"]
    return dict(json.loads(made))


def _permissions(definitions: dict[str, Any], user: str) -> dict[str, str]:
    (found,) = [entry for entry in definitions["permissions"] if entry["user"] == user]
    return {name: found[name] for name in ("configure", "write", "read")}


def test_reader_has_the_permissions_that_compose_gives_it() -> None:
    own = yaml.safe_load(COMPOSE.read_text())["configs"]["definitions"]["content"].replace("$$", "$")
    chart, compose = _definitions(), json.loads(own)
    for user in ("rowlock", "events"):
        assert _permissions(chart, user) == _permissions(compose, user)
    assert {user["name"] for user in chart["users"]} == {user["name"] for user in compose["users"]}


def test_reader_can_be_switched_off() -> None:
    values: Object = {"rabbitmq": {"reader": {"enabled": False}}}
    objects = rendered(values)
    assert [user["name"] for user in _definitions(values)["users"]] == ["rowlock"]
    assert "READER_PASSWORD" not in str(pod_specs(objects)["StatefulSet/rowlock-rabbitmq"]["containers"][0]["env"])
