"""An operator's mistakes and their corrections: afterwards the release, its passwords and its data are as before.

docs/deploy/mistakes.md has the same table for operators.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.conftest import FEW
from tests.cluster.kubernetes import Release, until

COMPONENTS = ("api", "expirer", "postgresql", "redis", "rabbitmq")
AWAY = "host=no-such-host"
NO_POSTGRESQL = ("postgresql.enabled=false", f"externalPostgresql.{AWAY}", "externalPostgresql.password=wrong")
NO_CACHE = ("redis.enabled=false", f"externalRedis.{AWAY}")
NO_BROKER = ("rabbitmq.enabled=false", f"externalRabbitmq.{AWAY}", "externalRabbitmq.password=wrong")
REFUSED = {
    ("postgresql.auth.password=another",): "postgresql.auth.password is not the one in the Secret rowlock-postgresql",
    ("redis.auth.password=another",): "redis.auth.password is not the one in the Secret rowlock-redis",
    ("rabbitmq.auth.password=another",): "rabbitmq.auth.password is not the one in the Secret rowlock-rabbitmq",
    ("rabbitmq.reader.password=another",): "rabbitmq.reader.password is not the one in the Secret",
    (f"auth.tokenSecret={'t' * 40}",): "auth.tokenSecret is not the one in the Secret rowlock-auth",
    NO_POSTGRESQL: "the bundled PostgreSQL has data (claim data-rowlock-postgresql-0)",
    ("postgresql.persistence.size=16Gi",): "expand the claim first",
    ("postgresql.persistence.size=1Gi",): "volumes can't shrink: set it to 8Gi",
    ("rabbitmq.persistence.size=4Gi",): "expand the claim first",
    ("postgresql.persistence.storageClass=fast",): "has standard, which can't change",
    ("postgresql.persistence.enabled=false",): "can't change while the StatefulSet rowlock-postgresql exists",
}
"""Changes, and the message of `helm upgrade`."""


def rolled_back(release: Release) -> None:
    """The first remedy."""
    release.helm("rollback", "rowlock", "--wait", "--timeout", "3m")


def corrected(release: Release) -> None:
    """The second remedy."""
    release.upgrade(*FEW, timeout="3m")


FAILING = [
    (("postgresql.image.tag=17-typo",), "rowlock-postgresql-0 .*(ErrImagePull|ImagePullBackOff)", rolled_back),
    (
        ("redis.image.tag=8-typo", "rabbitmq.image.tag=4-typo"),
        "rowlock-rabbitmq-0 .*(ErrImagePull|ImagePullBackOff)",
        corrected,
    ),
    (("postgresql.auth.existingSecret=nope",), "rowlock-postgresql-0 .*CreateContainerConfigError", rolled_back),
    (("api.image.tag=nope", "expirer.image.tag=nope"), "rowlock-api-.*Init:(ErrImage|ImagePull)", rolled_back),
    ((*NO_CACHE, *NO_BROKER, "smoke.enabled=false"), r"rowlock-api-\S+ +1/1", rolled_back),
]
"""Changes, what `kubectl get pods` shows, and the remedy."""


@pytest.fixture(scope="module")
def base(second: Release) -> Iterator[Release]:
    """The release with a table that must survive."""
    second.upgrade(*FEW)
    second.sql("create table if not exists precious as select 1 as id")
    yield second
    second.sql("drop table precious")


def state(release: Release) -> tuple[dict[str, Any], list[list[str]]]:
    """The passwords and the data."""
    passwords = {secret["metadata"]["name"]: secret["data"] for secret in release.objects("secrets")}
    return passwords, release.sql("select id from precious")


def assert_as_before(release: Release, before: tuple[dict[str, Any], list[list[str]]]) -> None:
    """All pods are ready, with the same passwords and the same data."""
    for component in COMPONENTS:
        release.until_ready(component, 1)
    assert state(release) == before


@pytest.mark.parametrize(("changes", "message"), REFUSED.items(), ids=lambda value: str(value)[:60])
def test_a_refused_mistake_changes_nothing(base: Release, changes: tuple[str, ...], message: str) -> None:
    before = base.helm("history", "rowlock", "--output", "json")
    with pytest.raises(AssertionError, match="These values can't be used together") as error:
        base.upgrade(*FEW, *changes)
    assert message in str(error.value)
    assert base.helm("history", "rowlock", "--output", "json") == before


@pytest.mark.parametrize(("changes", "seen", "remedy"), FAILING, ids=lambda value: str(value)[:60])
def test_a_mistake_can_be_taken_back(
    base: Release, changes: tuple[str, ...], seen: str, remedy: Callable[[Release], None]
) -> None:
    before = state(base)
    base.upgrade(*FEW, *changes, wait="--wait=false")
    until(lambda: re.search(seen, base.kubectl("get", "pods")) is not None, seen)
    remedy(base)
    assert_as_before(base, before)


def test_atomic_brings_the_bundled_postgresql_back(base: Release) -> None:
    before = state(base)
    with pytest.raises(AssertionError, match="has been rolled back due to"):
        base.upgrade(*FEW, *NO_POSTGRESQL, "postgresql.dataStayBehind=true", timeout="30s", wait="--atomic")
    assert_as_before(base, before)


def test_an_upgrade_that_kubernetes_refuses_is_rolled_back(base: Release) -> None:
    before = state(base)
    host = "extraObjects[0].spec.rules[0].host=http://wrong"
    kind = ("extraObjects[0].apiVersion=networking.k8s.io/v1", "extraObjects[0].kind=Ingress")
    with pytest.raises(AssertionError, match="UPGRADE FAILED"):
        base.upgrade(*FEW, *kind, "extraObjects[0].metadata.name=wrong", host)
    base.kubectl("delete", "job", "--selector", "app.kubernetes.io/component=migrate")
    rolled_back(base)
    assert_as_before(base, before)


def test_a_password_changes_as_the_docs_say(base: Release) -> None:
    base.sql("alter role rowlock password 'changed'")
    base.kubectl("patch", "secret", "rowlock-postgresql", "--patch", '{"stringData": {"password": "changed"}}')
    base.kubectl("rollout", "restart", "deployment/rowlock-api", "deployment/rowlock-expirer")
    base.upgrade(*FEW, "postgresql.auth.password=changed")
    base.kubectl("rollout", "status", "deployment/rowlock-api", "--timeout=2m")
    assert_as_before(base, state(base))
