"""Invalid values are rejected before anything is created, with a message that names them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings.stores import BROKER_NODES_MAX
from tests.chart.cluster import cluster
from tests.chart.rendering import CHART, Object, api_variables, refusal, rendered

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {
            "ingress": {"enabled": True, "hosts": ["a.example"]},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
        },
        "ingress and httpRoute are both enabled: choose one",
    ),
    ({"ingress": {"enabled": True}}, "ingress.hosts is empty: name at least one host"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty: name the Gateway"),
    ({"service": {"nodePort": 30000}}, "service.nodePort is set, but service.type is ClusterIP"),
    (
        {"service": {"externalTrafficPolicy": "Local"}},
        "service.externalTrafficPolicy is set, but service.type is ClusterIP",
    ),
    (
        {"expirer": {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}},
        "expirer.autoscaling and expirer.keda are both enabled: choose one",
    ),
    (
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
        "api.autoscaling.minReplicas (5) is more than maxReplicas (4)",
    ),
    (
        {"api": {"autoscaling": {"enabled": True, "targetCpuPercent": 0}}},
        "api.autoscaling is enabled without a metric to scale by: set targetCpuPercent or metrics",
    ),
    (
        {"api": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
        "api.autoscaling.targetCpuPercent is a share of the requested CPU, but api.resources.requests.cpu is not set",
    ),
    (
        {"expirer": {"keda": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
        "expirer.keda.minReplicas (5) is more than maxReplicas (4)",
    ),
    ({"api": {"keda": {"enabled": True}}}, "api.keda is enabled without a metric to scale by: set triggers"),
    (
        {
            "expirer": {"keda": {"enabled": True}},
            "postgresql": {"enabled": False},
            "externalPostgresql": {"existingSecret": "db", "secretKeys": {"url": "uri"}},
        },
        "expirer.keda needs triggers if PostgreSQL's address is a URL in a Secret",
    ),
    (
        {"api": {"terminationGracePeriodSeconds": 35}},
        "api.terminationGracePeriodSeconds (35) must be more than 35: preStopSeconds (5), shutdownSeconds (20) and 10",
    ),
    (
        {"expirer": {"shutdownSeconds": 31}},
        "expirer.terminationGracePeriodSeconds (40) must be more than 41: preStopSeconds (0), shutdownSeconds (31)",
    ),
    (
        {"externalPostgresql": {"host": "db"}},
        "externalPostgresql is set but not used: set postgresql.enabled to false",
    ),
    ({"externalRedis": {"existingSecret": "cache"}}, "externalRedis is set but not used"),
    ({"externalRabbitmq": {"password": "p"}}, "externalRabbitmq is set but not used"),
    ({"externalRabbitmq": {"hosts": ["a"]}}, "externalRabbitmq is set but not used"),
    ({"externalRedis": {"secretKeys": {"url": "uri"}}}, "externalRedis is set but not used"),
    (
        {"rabbitmq": {"enabled": False}, "externalRabbitmq": {"host": "a", "hosts": ["b"], "password": "p"}},
        "externalRabbitmq.host and externalRabbitmq.hosts are both set: choose one",
    ),
    (
        {"postgresql": {"enabled": False}},
        "postgresql.enabled is false, and no external server is configured: set externalPostgresql.host",
    ),
    (
        {"redis": {"enabled": False}},
        "redis.enabled is false, and no external server is configured: set externalRedis.host",
    ),
    (
        {"rabbitmq": {"enabled": False}},
        "rabbitmq.enabled is false, and no external server is configured: set externalRabbitmq.host",
    ),
    (
        {"postgresql": {"enabled": False}, "externalPostgresql": {"secretKeys": {"url": "uri"}}},
        "externalPostgresql.secretKeys.url names a key, but externalPostgresql.existingSecret is empty",
    ),
    (
        {"rabbitmq": {"enabled": False}, "externalRabbitmq": {"host": "broker"}},
        "externalRabbitmq has neither a password nor an existingSecret",
    ),
    (
        {"redis": {"enabled": False}, "externalRedis": {"host": "cache", "password": "a@b"}},
        "externalRedis.password has characters that must be escaped in a URL",
    ),
    (
        {"redis": {"auth": {"password": "a b"}}},
        "redis.auth.password has characters that must be escaped in a URL",
    ),
    (
        {"rabbitmq": {"auth": {"password": "a/b"}}},
        "rabbitmq.auth.password has characters that must be escaped in a URL",
    ),
    (
        {"rabbitmq": {"reader": {"password": "a/b"}}},
        "rabbitmq.reader.password has characters that must be escaped in a URL",
    ),
    (
        {"rabbitmq": {"reader": {"username": "rowlock"}}},
        "rabbitmq.reader.username is rowlock, the user of the service: choose another name",
    ),
    (
        {"redis": {"enabled": False}, "externalRedis": {"host": "cache", "sentinelPort": 26379}},
        "externalRedis.sentinelPort is set, but the sentinels are named only by a URL in a Secret",
    ),
    (
        {"redis": {"enabled": False}, "externalRedis": {"host": "cache", "tls": {"caSecret": "ca"}}},
        "externalRedis.tls.caSecret is set, but externalRedis.tls.enabled is false",
    ),
    (
        {
            "postgresql": {"enabled": False},
            "externalPostgresql": {"host": "db", "password": "p", "tls": {"mode": "verify-full"}},
        },
        "externalPostgresql.tls.mode is verify-full, which needs the CA's certificate: set tls.caSecret",
    ),
    (
        {"postgresql": {"auth": {"password": "p", "existingSecret": "s"}}},
        "postgresql.auth has both a value and an existingSecret: choose one",
    ),
    (
        {"auth": {"tokenSecret": "t" * 32, "existingSecret": "s"}},
        "auth has both a value and an existingSecret: choose one",
    ),
    ({"auth": {"tokenSecret": "t" * 31}}, "auth.tokenSecret has 31 characters: at least 32 are needed"),
    ({"api": {"replicas": 8}}, "the pods may open 115 connections to PostgreSQL, but only 97 of its 100 are available"),
    (
        {"api": {"resources": {"requests": {"memory": "1Gi"}}}},
        "api.resources.requests.memory (1Gi) is more than its limit (512Mi)",
    ),
    (
        {"redis": {"resources": {"requests": {"cpu": 0.5}, "limits": {"cpu": "400m"}}}},
        "redis.resources.requests.cpu (0.5) is more than its limit (400m)",
    ),
    (
        {"api": {"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}},
        "api.extraVolumes has a name that is used already: tmp",
    ),
    (
        {"expirer": {"extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp/"}]}},  # noqa: S108 - a path in the pod
        "expirer.extraVolumeMounts has a path that is used already: /tmp",
    ),
    (
        {"api": {"extraVolumeMounts": [{"name": "more", "mountPath": "/more"}]}},
        "api.extraVolumeMounts mounts more, which is not in api.extraVolumes",
    ),
    (
        {"api": {"env": [{"name": "ROWLOCK_POOL_SIZE", "value": "1"}]}},
        "api.env has a variable that is set already: ROWLOCK_POOL_SIZE",
    ),
    (
        {"api": {"extraContainers": [{"name": "{{ .Chart.Name }}", "image": "a"}, {"name": "rowlock", "image": "a"}]}},
        "api.extraContainers or extraInitContainers has a name that is used already: rowlock",
    ),
    (
        {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "monitoring.serviceMonitor and monitoring.podMonitor are both enabled, so every pod",
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_contradictory_values_are_rejected_by_name(values: dict[str, Any], message: str) -> None:
    assert f"- {message}" in refusal(values)


def test_every_check_of_the_chart_has_a_test() -> None:
    written = "".join(path.read_text() for path in Path(CHART, "templates").glob("_checks*.tpl"))
    checks = re.sub(r"{{-?/\*.*?\*/-?}}", "", written, flags=re.DOTALL)
    seen = [refusal(values) for values, _ in REFUSED] + [refusal({"secrets": {"generate": False}})]
    seen.append(_refusal_of_a_renamed_key())
    for line in checks.splitlines():
        # A line that does not begin with template code is a message. Its longest constant part identifies it.
        fixed = max(re.split(r"{{.*?}}", line), key=len).strip()
        if fixed and not line.startswith("{{-"):
            assert any(fixed in said for said in seen), f"no test sees: {line}"


def test_all_faults_are_reported_at_once() -> None:
    said = refusal({"ingress": {"enabled": True}, "redis": {"enabled": False}})
    assert "ingress.hosts is empty" in said
    assert "redis.enabled is false" in said


def test_without_generated_secrets_each_one_must_be_named() -> None:
    said = refusal({"secrets": {"generate": False}, "rabbitmq": {"auth": {"password": "given"}}})
    for block in ("auth", "postgresql.auth", "redis.auth", "rabbitmq.reader", "smoke"):
        assert f"secrets.generate is false, so {block}.existingSecret must name a Secret" in said
    assert "rabbitmq.auth" not in said


KEPT: Object = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "rowlock-redis"},
    "data": {"password": "cA=="},
}


def _refusal_of_a_renamed_key() -> str:
    with cluster([KEPT]) as arguments:
        return refusal({"redis": {"auth": {"secretKeys": {"password": "pass"}}}}, arguments)


def test_a_renamed_key_does_not_make_a_new_password() -> None:
    told = "redis.auth.secretKeys.password is pass, but the Secret rowlock-redis of this release has password"
    assert told in _refusal_of_a_renamed_key()
    with cluster([KEPT]) as arguments:
        for values in ({}, {"existingSecret": "mine"}, {"password": "given"}):
            keys = {"secretKeys": {"password": "pass"}} if values else {}
            assert rendered({"redis": {"auth": values | keys}}, arguments=arguments)


def _closed_maps(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths in values.yaml that accept only known keys: all maps except empty ones and Kubernetes's own."""
    yield path
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in OPEN:
            yield from _closed_maps(value, (*path, key))


OPEN = {"labels"}


@pytest.mark.parametrize(
    "path", list(_closed_maps(yaml.safe_load(Path(CHART, "values.yaml").read_text()))), ids=".".join
)
def test_a_typo_is_rejected_by_name_in_every_block(path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"typo": 1}
    for key in reversed(path):
        values = {key: values}
    said = refusal(values)
    assert "additional properties 'typo' not allowed" in said
    assert f"at '{''.join(f'/{key}' for key in path)}'" in said


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"config": {"ROWLOCK_HOLD_SECOND": 60}}, "additional properties 'ROWLOCK_HOLD_SECOND' not allowed"),
        (
            {"config": {"ROWLOCK_HOLD_SECONDS": 3601}},
            "at '/config/ROWLOCK_HOLD_SECONDS': maximum: got 3,601, want 3,600",
        ),
        ({"config": {"ROWLOCK_LOG_LEVEL": "loud"}}, "at '/config/ROWLOCK_LOG_LEVEL'"),
        ({"config": {"ROWLOCK_DATABASE_URL": "postgresql://db"}}, "'ROWLOCK_DATABASE_URL' not allowed"),
        ({"api": {"poolSize": 0}}, "at '/api/poolSize': minimum: got 0, want 1"),
        ({"api": {"replicas": "2"}}, "at '/api/replicas': got string, want integer"),
        ({"expirer": {"replicas": 0}}, "at '/expirer/replicas': minimum: got 0, want 1"),
        ({"api": {"trustedProxies": ["traefik"]}}, "at '/api/trustedProxies/0'"),
        ({"api": {"pdb": {"maxUnavailable": 0}}}, "at '/api/pdb/maxUnavailable'"),
        (
            {"externalRabbitmq": {"hosts": ["a"] * (BROKER_NODES_MAX + 1)}},
            f"at '/externalRabbitmq/hosts': maxItems: got {BROKER_NODES_MAX + 1}, want {BROKER_NODES_MAX}",
        ),
        ({"externalRabbitmq": {"hosts": [""]}}, "at '/externalRabbitmq/hosts/0'"),
        ({"redis": None}, "at '': missing property 'redis'"),
        ({"api": {"pdb": None}}, "at '/api': missing property 'pdb'"),
        ({"image": {"digest": "sha256:short"}}, "at '/image/digest'"),
        ({"service": {"type": "Headless"}}, "at '/service/type'"),
        ({"fullnameOverride": "x" * 41}, "at '/fullnameOverride'"),
        ({"externalPostgresql": {"host": "http://db"}}, "at '/externalPostgresql/host'"),
        ({"externalRedis": {"host": "cache:6379"}}, "at '/externalRedis/host'"),
        ({"ingress": {"hosts": ["http://x"]}}, "at '/ingress/hosts/0'"),
        ({"ingress": {"hosts": ["x.example", "x.example"]}}, "at '/ingress/hosts': items at 0 and 1 are equal"),
        ({"ingress": {"tls": [{"secret": "s"}]}}, "at '/ingress/tls/0': additional properties 'secret'"),
        ({"httpRoute": {"hostnames": ["x.example:443"]}}, "at '/httpRoute/hostnames/0'"),
        ({"httpRoute": {"parentRefs": [{"namespace": "n"}]}}, "at '/httpRoute/parentRefs/0': missing property 'name'"),
        ({"httpRoute": {"parentRefs": [{"name": "g", "nam": "n"}]}}, "at '/httpRoute/parentRefs/0'"),
        ({"imagePullSecrets": [{"nam": "s"}]}, "at '/imagePullSecrets/0': missing property 'name'"),
        ({"api": {"env": [{"name": "A", "value": 1}]}}, "at '/api/env/0/value': got number, want string"),
        ({"api": {"env": [{"name": "A", "vale": "1"}]}}, "at '/api/env/0': additional properties 'vale'"),
        ({"redis": {"tolerations": [{"operator": "Exist"}]}}, "at '/redis/tolerations/0/operator'"),
        ({"api": {"tolerations": [{"keys": "a"}]}}, "at '/api/tolerations/0': additional properties 'keys'"),
        ({"api": {"affinity": {"podAffinities": {}}}}, "at '/api/affinity': additional properties 'podAffinities'"),
        ({"api": {"topologySpreadConstraints": [{"maxSkew": 1}]}}, "at '/api/topologySpreadConstraints/0'"),
        ({"api": {"nodeSelector": {"a": "no spaces"}}}, "at '/api/nodeSelector/a'"),
        ({"api": {"extraVolumes": [{"name": "a", "configmap": {}}]}}, "at '/api/extraVolumes/0'"),
        ({"api": {"extraVolumeMounts": [{"name": "a", "path": "/a"}]}}, "at '/api/extraVolumeMounts/0'"),
        ({"api": {"extraContainers": [{"name": "a", "images": "b"}]}}, "at '/api/extraContainers/0'"),
        ({"api": {"securityContext": {"readOnly": True}}}, "at '/api/securityContext'"),
        ({"api": {"podSecurityContext": {"runAsUser": "10001"}}}, "at '/api/podSecurityContext/runAsUser'"),
        *(
            ({"api": {"resources": {"limits": {"memory": amount}}}}, "at '/api/resources/limits/memory'")
            for amount in ("512m", "512", "512MB", "1g", 512)
        ),
        *(
            ({"api": {"resources": {"requests": {"cpu": amount}}}}, "at '/api/resources/requests/cpu'")
            for amount in ("1 core", "50M", "0.0001", 0)
        ),
        ({"api": {"resources": {"limits": {"memroy": "1Gi"}}}}, "additional properties 'memroy' not allowed"),
        ({"postgresql": {"persistence": {"size": "8GB"}}}, "at '/postgresql/persistence/size'"),
        ({"image": {"repository": "rowlock:1"}}, "at '/image/repository'"),
        ({"image": {"tag": "a b"}}, "at '/image/tag'"),
        ({"networkPolicy": {"extraEgress": [{"port": 53}]}}, "at '/networkPolicy/extraEgress/0'"),
        ({"networkPolicy": {"apiFrom": [{"ipBlock": {"cidr": "10.0.0.1"}}]}}, "at '/networkPolicy/apiFrom/0/ipBlock"),
        (
            {"monitoring": {"prometheusRule": {"runbookUrl": "docs/runbooks"}}},
            "at '/monitoring/prometheusRule/runbookUrl'",
        ),
        ({"metrics": {"from": [{}]}}, "at '/metrics/from/0': minProperties"),
        ({"api": {"autoscaling": {"behavior": {"scaleup": {}}}}}, "at '/api/autoscaling/behavior'"),
        ({"expirer": {"keda": {"triggers": [{"type": "cron"}]}}}, "at '/expirer/keda/triggers/0'"),
        *(
            ({"monitoring": {"interval": interval}}, "at '/monitoring/interval'")
            for interval in ("61s", "2m", "0s", "00s", "1h", "60000ms")
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_value_is_rejected_with_its_place(values: dict[str, Any], place: str) -> None:
    assert place in refusal(values)


@pytest.mark.parametrize("interval", ["500ms", "5s", "15s", "60s", "1m"])
def test_scrapes_may_be_a_minute_apart_or_less(interval: str) -> None:
    assert rendered({"monitoring": {"interval": interval}})


def test_usual_forms_of_amounts_and_hosts_are_accepted() -> None:
    requests = {"cpu": 0.05, "memory": 134217728, "ephemeral-storage": "1.5Gi", "hugepages-2Mi": "4Mi"}
    limits = {"cpu": "2", "memory": "0.5Gi", "ephemeral-storage": "2G", "example.com/gpu": 1}
    assert rendered({"api": {"resources": {"requests": requests, "limits": limits}}})
    for host in ("db", "db.example.", "10.0.0.1", "[2001:db8::1]", "my_db"):
        assert rendered({"redis": {"enabled": False}, "externalRedis": {"host": host}})
    for host in ("*.example.com", "a-1.example"):
        assert rendered({"ingress": {"enabled": True, "hosts": [host]}})
    for repository in ("rowlock", "registry.example:5000/shop/rowlock", "localhost:5000/rowlock"):
        assert rendered({"image": {"repository": repository}})


def test_env_of_a_component_replaces_config() -> None:
    env = [{"name": "ROWLOCK_LOG_LEVEL", "value": "debug"}]
    given = api_variables({"config": {"ROWLOCK_LOG_LEVEL": "warning"}, "api": {"env": env}})
    assert given["ROWLOCK_LOG_LEVEL"] == "debug"


def test_the_chart_may_be_a_subchart() -> None:
    assert rendered({"global": {"anything": 1}})
