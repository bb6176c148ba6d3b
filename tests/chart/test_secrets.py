"""Secrets are configured, existing or generated. A password appears only in a Secret."""

from base64 import b64decode
from pathlib import Path

import pytest

from tests.chart.clusters import chart_with, secret
from tests.chart.rendering import Object, of_kind, pod_specs, rendered, text, variables

GENERATED = {
    "rowlock-auth",
    "rowlock-postgresql",
    "rowlock-redis",
    "rowlock-rabbitmq",
    "rowlock-rabbitmq-reader",
    "rowlock-smoke",
}
STORES = {"postgresql": "externalPostgresql", "redis": "externalRedis", "rabbitmq": "externalRabbitmq"}
ELSEWHERE: Object = {"host": "away", "existingSecret": "s"}
ALL_EXISTING: Object = {
    "secrets": {"generate": False},
    "auth": {"existingSecret": "mine", "secretKeys": {"tokenSecret": "tokens"}},
    "smoke": {"existingSecret": "mine-too"},
    "postgresql": {"auth": {"existingSecret": "mine", "secretKeys": {"password": "postgresql"}}},
    "redis": {"auth": {"existingSecret": "mine", "secretKeys": {"password": "redis"}}},
    "rabbitmq": {
        "auth": {"existingSecret": "mine", "secretKeys": {"password": "rabbitmq"}},
        "reader": {"existingSecret": "mine", "secretKeys": {"password": "reader"}},
    },
}


def _decoded(found: Object) -> dict[str, str]:
    return {key: b64decode(value).decode() for key, value in found["data"].items()}


def _data(values: Object | None = None) -> dict[str, dict[str, str]]:
    secrets = of_kind(rendered(values), "Secret")
    return {name: _decoded(found) for name, found in secrets.items()}


def test_two_renderings_differ_only_in_generated_secrets() -> None:
    """Installing again therefore changes nothing, since it finds the generated Secrets in the cluster."""
    first, second = (
        [found for found in rendered() if found["metadata"]["name"] not in GENERATED or found["kind"] != "Secret"]
        for _ in range(2)
    )
    assert first == second
    assert {name for name, found in of_kind(rendered(), "Secret").items()} == GENERATED


def test_generated_secrets_survive_an_uninstall() -> None:
    for found in of_kind(rendered(), "Secret").values():
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_generated_passwords_are_long_and_fit_into_a_url() -> None:
    made = _data()
    assert len(made["rowlock-auth"]["token-secret"]) == 64
    for store in ("postgresql", "redis", "rabbitmq", "rabbitmq-reader", "smoke"):
        password = made[f"rowlock-{store}"]["password"]
        assert len(password) == 32
        assert password.isalnum()
    assert made["rowlock-smoke"]["email"].startswith("smoke-")
    assert made["rowlock-smoke"]["email"] != _data()["rowlock-smoke"]["email"]


def test_a_configured_password_is_only_in_its_secret() -> None:
    values: Object = {"auth": {"tokenSecret": "given-" + "t" * 32}}
    for store in ("postgresql", "redis", "rabbitmq"):
        values[store] = {"auth": {"password": f"given-to-{store}"}}
    values["rabbitmq"]["reader"] = {"password": "given-to-reader"}
    made = _data(values)
    assert made["rowlock-auth"]["token-secret"] == "given-" + "t" * 32
    for store in ("postgresql", "redis", "rabbitmq"):
        assert made[f"rowlock-{store}"]["password"] == f"given-to-{store}"
    assert made["rowlock-rabbitmq-reader"]["password"] == "given-to-reader"
    assert "given-" not in text(values)


def test_every_secret_may_be_an_existing_one() -> None:
    objects = rendered(ALL_EXISTING)
    assert not of_kind(objects, "Secret")
    specs = pod_specs(objects)
    given = variables(specs["Deployment/rowlock-api"]["containers"][0])
    assert given["ROWLOCK_TOKEN_SECRET"] == "mine/tokens"
    assert (given["PGPASSWORD"], given["REDIS_PASSWORD"], given["RABBITMQ_PASSWORD"]) == (
        "mine/postgresql",
        "mine/redis",
        "mine/rabbitmq",
    )
    smoke = variables(specs["Pod/rowlock-smoke"]["containers"][0])
    assert smoke == {"ROWLOCK_SMOKE_EMAIL": "mine-too/email", "ROWLOCK_SMOKE_PASSWORD": "mine-too/password"}
    for store, variable in (
        ("postgresql", "POSTGRES_PASSWORD"),
        ("redis", "REDIS_PASSWORD"),
        ("rabbitmq", "RABBITMQ_PASSWORD"),
        ("reader", "READER_PASSWORD"),
    ):
        pod = "rabbitmq" if store == "reader" else store
        assert variables(specs[f"StatefulSet/rowlock-{pod}"]["containers"][0])[variable] == f"mine/{store}"


@pytest.mark.parametrize(
    "values",
    [
        {"smoke": {"enabled": False}},
        {"smoke": {"existingSecret": "mine"}},
        {"rabbitmq": {"reader": {"enabled": False}}},
        {"redis": {"auth": {"existingSecret": "mine"}}},
        *({store: {"enabled": False}, block: ELSEWHERE} for store, block in STORES.items()),
    ],
    ids=str,
)
def test_no_switch_changes_the_set_of_kept_secrets(values: Object) -> None:
    """Helm can't roll back to a revision that has a kept object, from one that leaves it out."""
    assert of_kind(rendered(values), "Secret").keys() == GENERATED


def test_kept_secrets_stay_in_the_release_without_generation(tmp_path: Path) -> None:
    chart = chart_with(tmp_path, secret("rowlock-postgresql", password="first", other="too"))
    (found,) = of_kind(rendered(ALL_EXISTING, chart=chart), "Secret").values()
    assert _decoded(found) == {"password": "first", "other": "too"}


def test_an_existing_secret_is_never_the_charts(tmp_path: Path) -> None:
    """Helm would refuse to install over it, or overwrite it."""
    values: Object = {"redis": {"auth": {"existingSecret": "rowlock-redis"}}}
    assert "rowlock-redis" not in of_kind(rendered(values), "Secret")
    chart = chart_with(tmp_path, secret("rowlock-redis", release="another", password="theirs"))
    assert "rowlock-redis" not in of_kind(rendered(values, chart=chart), "Secret")


def test_an_upgrade_keeps_the_passwords_in_the_cluster(tmp_path: Path) -> None:
    chart = chart_with(
        tmp_path, secret("rowlock-redis", password="first"), secret("rowlock-smoke", email="a@b.example")
    )
    made = of_kind(rendered(chart=chart), "Secret")
    assert _decoded(made["rowlock-redis"]) == {"password": "first"}
    smoke = _decoded(made["rowlock-smoke"])
    assert smoke["email"] == "a@b.example"
    assert len(smoke["password"]) == 32


def test_a_store_that_is_off_keeps_its_password(tmp_path: Path) -> None:
    values: Object = {"redis": {"enabled": False, "auth": {"password": "other"}}, "externalRedis": ELSEWHERE}
    chart = chart_with(tmp_path, secret("rowlock-redis", password="first"))
    assert _decoded(of_kind(rendered(values, chart=chart), "Secret")["rowlock-redis"]) == {"password": "first"}
