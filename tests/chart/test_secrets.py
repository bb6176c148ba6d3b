"""Secrets are configured, existing or generated. A password appears only in a Secret."""

from base64 import b64decode

from tests.chart.rendering import Object, of_kind, pod_specs, rendered, text, variables

GENERATED = {
    "rowlock-auth",
    "rowlock-postgresql",
    "rowlock-redis",
    "rowlock-rabbitmq",
    "rowlock-rabbitmq-reader",
    "rowlock-smoke",
}


def _data(values: Object | None = None) -> dict[str, dict[str, str]]:
    secrets = of_kind(rendered(values), "Secret")
    return {
        name: {key: b64decode(value).decode() for key, value in found["data"].items()}
        for name, found in secrets.items()
    }


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
    values: Object = {
        "secrets": {"generate": False},
        "auth": {"existingSecret": "mine", "secretKeys": {"tokenSecret": "tokens"}},
        "smoke": {"existingSecret": "mine-too"},
    }
    for store in ("postgresql", "redis", "rabbitmq"):
        values[store] = {"auth": {"existingSecret": "mine", "secretKeys": {"password": store}}}
    values["rabbitmq"]["reader"] = {"existingSecret": "mine", "secretKeys": {"password": "reader"}}
    objects = rendered(values)
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
