"""Removed, it leaves the passwords and the data, and nothing else; installed again it has them."""

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import make_release
from tests.cluster.kubernetes import Cluster, Release, until

FEW = ("api.replicas=1", "expirer.replicas=1", "smoke.enabled=false")
KINDS = "all,configmap,secret,pvc,ingress,networkpolicy,pdb,serviceaccount,role,rolebinding"


@pytest.fixture
def second(cluster: Cluster) -> Iterator[Release]:
    """Another installation in the same cluster."""
    made = make_release(cluster, "rowlock-second", "second.localhost")
    made.upgrade(*FEW)
    yield made
    made.kubectl("delete", "namespace", made.namespace)


def test_uninstall_leaves_the_generated_secrets_and_the_volumes_and_nothing_else(second: Release) -> None:
    second.sql("create table left_behind ()")
    passwords = {secret["metadata"]["name"]: secret["data"] for secret in second.objects("secrets")}
    second.helm("uninstall", "rowlock", "--wait")
    until(lambda: second.objects("pods") == [], "no pod")
    assert {secret["metadata"]["name"]: secret["data"] for secret in second.objects("secrets")} == passwords
    names = {name for name in second.kubectl("get", KINDS, "-o", "name").split() if not of_every_namespace(name)}
    volumes = {f"persistentvolumeclaim/data-rowlock-{store}-0" for store in ("postgresql", "rabbitmq")}
    assert names == volumes | {f"secret/{name}" for name in passwords}
    second.upgrade(*FEW)
    assert second.sql("select count(*) from left_behind") == [["0"]], "the same data, by the same password"


def of_every_namespace(name: str) -> bool:
    """What Kubernetes itself puts there."""
    return name in ("configmap/kube-root-ca.crt", "serviceaccount/default")
