"""An uninstall keeps passwords, data and the test's pod, and a new installation uses them."""

from tests.cluster.conftest import FEW
from tests.cluster.kubernetes import Release, until

KINDS = "all,configmap,secret,pvc,ingress,networkpolicy,pdb,serviceaccount,role,rolebinding"


def test_a_reinstallation_uses_the_secrets_and_volumes_left(
    second: Release,
) -> None:
    second.upgrade(*FEW)
    second.helm("test", "rowlock")
    second.sql("create table left_behind ()")
    passwords = {secret["metadata"]["name"]: secret["data"] for secret in second.objects("secrets")}
    assert "rowlock-smoke" in passwords
    second.helm("uninstall", "rowlock", "--wait")
    until(lambda: [pod["metadata"]["name"] for pod in second.objects("pods")] == ["rowlock-smoke"], "the test's pod")
    assert {secret["metadata"]["name"]: secret["data"] for secret in second.objects("secrets")} == passwords
    names = {name for name in second.kubectl("get", KINDS, "-o", "name").split() if not of_every_namespace(name)}
    volumes = {f"persistentvolumeclaim/data-rowlock-{store}-0" for store in ("postgresql", "rabbitmq")}
    assert names == volumes | {f"secret/{name}" for name in passwords} | {"pod/rowlock-smoke"}
    second.upgrade(*FEW)
    assert second.sql("select count(*) from left_behind") == [["0"]], "the same data, by the same password"
    # The old pod and its manager still exist.
    assert "Phase:          Succeeded" in second.helm("test", "rowlock")


def of_every_namespace(name: str) -> bool:
    """Whether Kubernetes itself creates the object in every namespace."""
    return name in ("configmap/kube-root-ca.crt", "serviceaccount/default")
