"""Autoscaling adds pods under load, and a drain never removes too many."""

import asyncio
import json

import pytest

from tests.cluster.kubernetes import Release, until
from tests.cluster.shoppers import shopping

HPA = ("api.autoscaling.enabled=true", "api.autoscaling.minReplicas=3", "api.autoscaling.maxReplicas=4")


async def test_switching_on_autoscaling_during_a_sale_only_adds_pods(
    release: Release,
) -> None:
    # The requested CPU is so small that a few customers exceed the target.
    target = "api.autoscaling.targetCpuPercent=20"
    before = set(release.pod_names("api"))
    try:
        async with shopping(release, count=8) as shoppers:
            await asyncio.to_thread(release.upgrade, *HPA, target)
            await asyncio.to_thread(until, lambda: wanted(release) > 3, "more than three pods wanted", 180)
            await asyncio.to_thread(release.until_ready, "api", 4)
        assert before <= set(release.pod_names("api"))
        assert shoppers.failures == []
    finally:
        await asyncio.to_thread(release.upgrade)
        await asyncio.to_thread(release.until_ready, "api", 3)


def wanted(release: Release) -> int:
    """The number of pods that the autoscaler wants."""
    (autoscaler,) = release.objects("hpa")
    return int(autoscaler["status"].get("desiredReplicas", 0))


@pytest.mark.parametrize("component", ["api", "expirer"])
def test_only_one_pod_may_be_evicted_at_a_time(release: Release, component: str) -> None:
    first, second, *_ = release.pod_names(component)
    evict(release, first)
    with pytest.raises(AssertionError, match="violate the pod's disruption budget"):
        evict(release, second)
    until(lambda: first not in release.pod_names(component), f"{first} gone")
    release.until_ready(component, {"api": 3, "expirer": 2}[component])


def evict(release: Release, pod: str) -> None:
    """Evicts the pod as a drain does."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": release.namespace},
    }
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
