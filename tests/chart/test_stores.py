"""Bundled and external stores: addresses, users and certificates."""

from base64 import b64decode
from typing import Any

import pytest

from tests.chart.rendering import RELEASE, Object, api_variables, of_kind, pod_specs, rendered
from tests.stage.factories import make_settings

EXTERNAL: Object = {
    "postgresql": {"enabled": False},
    "externalPostgresql": {
        "host": "db.example",
        "port": 6432,
        "database": "seats",
        "username": "shop",
        "password": "p@ss/word",
        "tls": {"mode": "verify-full", "caSecret": "db-ca"},
    },
    "redis": {"enabled": False},
    "externalRedis": {
        "host": "cache.example",
        "port": 6380,
        "database": 2,
        "username": "shop",
        "password": "secret",
        "tls": {"enabled": True, "caSecret": "cache-ca", "caKey": "authority.pem"},
    },
    "rabbitmq": {"enabled": False},
    "externalRabbitmq": {
        "host": "broker.example",
        "port": 5671,
        "vhost": "seats",
        "username": "shop",
        "password": "secret",
        "tls": {"enabled": True, "caSecret": "broker-ca"},
    },
}


def test_bundled_stores_are_reached_by_their_services() -> None:
    given = api_variables()
    services = of_kind(rendered(), "Service")
    assert given["ROWLOCK_DATABASE_URL"] == "postgresql://rowlock@rowlock-postgresql:5432/rowlock?sslmode=disable"
    assert given["PGPASSWORD"] == "rowlock-postgresql/password"
    assert given["ROWLOCK_REDIS_URL"] == "redis://:$(REDIS_PASSWORD)@rowlock-redis:6379/0"
    assert given["ROWLOCK_BROKER_URL"] == "amqp://rowlock:$(RABBITMQ_PASSWORD)@rowlock-rabbitmq:5672/rowlock"
    for store, port in (("postgresql", 5432), ("redis", 6379), ("rabbitmq", 5672)):
        assert services[f"rowlock-{store}"]["spec"]["ports"][0]["port"] == port
        assert services[f"rowlock-{store}-headless"]["spec"]["clusterIP"] == "None"


def test_a_password_variable_precedes_the_url_with_it() -> None:
    """Kubernetes expands a variable only in those that follow it."""
    names = list(api_variables())
    assert names.index("REDIS_PASSWORD") < names.index("ROWLOCK_REDIS_URL")
    assert names.index("RABBITMQ_PASSWORD") < names.index("ROWLOCK_BROKER_URL")


def test_external_stores_replace_the_bundled_ones() -> None:
    given = api_variables(EXTERNAL)
    assert given["ROWLOCK_DATABASE_URL"] == (
        "postgresql://shop@db.example:6432/seats?sslmode=verify-full&sslrootcert=/etc/rowlock/postgresql/ca.crt"
    )
    assert given["ROWLOCK_REDIS_URL"] == (
        "rediss://shop:$(REDIS_PASSWORD)@cache.example:6380/2?ssl_ca_certs=/etc/rowlock/redis/ca.crt"
    )
    assert given["ROWLOCK_BROKER_URL"] == "amqps://shop:$(RABBITMQ_PASSWORD)@broker.example:5671/seats"
    assert given["SSL_CERT_FILE"] == "/etc/rowlock/rabbitmq/ca.crt"
    objects = rendered(EXTERNAL)
    assert not of_kind(objects, "StatefulSet")
    password = of_kind(objects, "Secret")["rowlock-external-postgresql"]["data"]["password"]
    assert b64decode(password).decode() == "p@ss/word"


def test_each_node_of_rabbitmq_has_a_url() -> None:
    nodes = {"host": "", "hosts": ["a.example", "b.example"], "password": "secret", "vhost": "seats"}
    values = {"rabbitmq": {"enabled": False}, "externalRabbitmq": nodes}
    given = api_variables(values)["ROWLOCK_BROKER_URL"]
    loaded = make_settings("postgresql://127.0.0.1/rowlock", broker_url=given)
    assert loaded.broker_nodes == (
        "amqp://rowlock:$(RABBITMQ_PASSWORD)@a.example:5672/seats",
        "amqp://rowlock:$(RABBITMQ_PASSWORD)@b.example:5672/seats",
    )


def test_ca_certificates_are_mounted_where_urls_point() -> None:
    spec = pod_specs(rendered(EXTERNAL))["Deployment/rowlock-api"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts == {
        "tmp": "/tmp",  # noqa: S108 - the pod's own
        "postgresql-ca": "/etc/rowlock/postgresql",
        "rabbitmq-ca": "/etc/rowlock/rabbitmq",
        "redis-ca": "/etc/rowlock/redis",
    }
    volumes = {volume["name"]: volume.get("secret") for volume in spec["volumes"]}
    assert volumes["redis-ca"] == {"secretName": "cache-ca", "items": [{"key": "authority.pem", "path": "ca.crt"}]}


def test_bundled_stores_need_no_ca() -> None:
    unused = {f"external{name}": {"tls": {"caSecret": "ca"}} for name in ("Postgresql", "Redis", "Rabbitmq")}
    spec = pod_specs(rendered(unused))["Deployment/rowlock-api"]
    assert [volume["name"] for volume in spec["volumes"]] == ["tmp"]
    assert api_variables(unused) == api_variables()


@pytest.mark.parametrize(
    ("own", "block", "variable"),
    [
        ("postgresql", "externalPostgresql", "ROWLOCK_DATABASE_URL"),
        ("redis", "externalRedis", "ROWLOCK_REDIS_URL"),
        ("rabbitmq", "externalRabbitmq", "ROWLOCK_BROKER_URL"),
    ],
)
def test_a_whole_url_may_come_from_a_secret(own: str, block: str, variable: str) -> None:
    values = {own: {"enabled": False}, block: {"existingSecret": "elsewhere", "secretKeys": {"url": "uri"}}}
    assert api_variables(values)[variable] == "elsewhere/uri"


def test_redis_may_lack_a_password_and_the_broker_a_vhost() -> None:
    values = {"redis": {"enabled": False}, "externalRedis": {"host": "cache"}}
    assert api_variables(values)["ROWLOCK_REDIS_URL"] == "redis://cache:6379/0"
    values = {"rabbitmq": {"enabled": False}, "externalRabbitmq": {"host": "broker", "existingSecret": "s"}}
    assert api_variables(values)["ROWLOCK_BROKER_URL"] == "amqp://rowlock:$(RABBITMQ_PASSWORD)@broker:5672//"


def test_the_data_of_postgresql_is_on_its_volume() -> None:
    """The folder must not be below one that the image declares as a volume, which would be mounted over it."""
    (container,) = pod_specs(rendered())["StatefulSet/rowlock-postgresql"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (folder,) = [variable["value"] for variable in container["env"] if variable["name"] == "PGDATA"]
    assert mounts["/var/lib/postgresql"] == "data"
    assert folder.startswith("/var/lib/postgresql/")
    assert not folder.startswith("/var/lib/postgresql/data")
    assert container["args"] == ["postgres", "-c", "max_connections=100"]


def test_rabbitmq_keeps_its_node_name_and_a_fresh_cookie() -> None:
    (container,) = pod_specs(rendered())["StatefulSet/rowlock-rabbitmq"]["containers"]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given["RABBITMQ_NODENAME"] == "rabbit@localhost"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/var/lib/rabbitmq"] == "home"
    assert mounts["/var/lib/rabbitmq/mnesia"] == "data"
    assert container["readinessProbe"]["tcpSocket"] == {"port": "rabbitmq"}
    config = of_kind(rendered(), "ConfigMap")["rowlock-rabbitmq"]["data"]
    assert '"name":"rowlock","password":"SERVICE_PASSWORD"' in config["definitions.json"]
    assert "load_definitions = /var/lib/rabbitmq/definitions.json" in config["rabbitmq.conf"]


def test_redis_never_evicts_keys() -> None:
    config = of_kind(rendered({"redis": {"maxmemory": "64mb"}}), "ConfigMap")["rowlock-redis"]["data"]["redis.conf"]
    assert "maxmemory-policy noeviction" in config
    assert "maxmemory 64mb" in config


@pytest.mark.parametrize("store", ["postgresql", "rabbitmq"])
def test_persistence_selects_a_claim_or_an_empty_dir(store: str) -> None:
    def spec(persistence: dict[str, Any]) -> Object:
        found: Object = of_kind(rendered({store: {"persistence": persistence}}), "StatefulSet")[f"rowlock-{store}"][
            "spec"
        ]
        return found

    (claim,) = spec({"size": "3Gi", "storageClass": "fast"})["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    without = spec({"enabled": False})
    assert "volumeClaimTemplates" not in without
    assert {"name": "data", "emptyDir": {}} in without["template"]["spec"]["volumes"]


@pytest.mark.parametrize(
    ("store", "other"), [("redis", {"maxmemory": "200mb"}), ("rabbitmq", {"auth": {"username": "another"}})]
)
def test_a_store_restarts_only_if_its_configuration_changes(store: str, other: Object) -> None:
    def template(values: Object) -> Object:
        found: Object = of_kind(rendered(values), "StatefulSet")[f"{RELEASE}-{store}"]["spec"]["template"]["metadata"]
        return found

    assert template({}) == template({"api": {"replicas": 1}})
    assert template({}) != template({store: other})
