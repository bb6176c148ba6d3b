"""The number of pods, and how many may be evicted."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sweep
from service.database import Connection
from service.settings import Settings
from tests.chart.rendering import Object, of_kind, rendered
from tests.stage.factories import make_overdue
from tests.stage.holdings import make_holds

COMPONENTS = ["api", "expirer"]
TRIGGERS = [{"type": "cron", "metadata": {"start": "0 9 * * *"}}]


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_drain_evicts_one_pod_at_a_time_and_any_broken_pod(component: str) -> None:
    budget = of_kind(rendered(), "PodDisruptionBudget")[f"rowlock-{component}"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert not of_kind(
        rendered({name: {"pdb": {"enabled": False}} for name in COMPONENTS}),
        "PodDisruptionBudget",
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_chart_sets_no_replicas_if_an_autoscaler_does(component: str) -> None:
    name = f"rowlock-{component}"
    assert of_kind(rendered({component: {"replicas": 3}}), "Deployment")[name]["spec"]["replicas"] == 3
    for scaler in ({"autoscaling": {"enabled": True}}, {"keda": {"enabled": True, "triggers": TRIGGERS}}):
        assert "replicas" not in of_kind(rendered({component: scaler}), "Deployment")[name]["spec"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_autoscaler_uses_cpu_and_given_metrics(component: str) -> None:
    more = {
        "type": "Pods",
        "pods": {"metric": {"name": "held"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    values = {component: {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 4, "metrics": [more]}}}
    (scaler,) = of_kind(rendered(values), "HorizontalPodAutoscaler").values()
    spec = scaler["spec"]
    assert spec["scaleTargetRef"]["name"] == f"rowlock-{component}"
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 4)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert spec["metrics"][1] == more
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    without_cpu = {component: {"autoscaling": {"enabled": True, "targetCpuPercent": 0, "metrics": [more]}}}
    (scaler,) = of_kind(rendered(without_cpu), "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["metrics"] == [more]


@pytest.mark.parametrize(("component", "idle_millicores"), [("api", 3), ("expirer", 28)])
def test_an_idle_pod_does_not_scale_out(component: str, idle_millicores: int) -> None:
    """The figures are the processes' CPU time over an idle minute."""
    objects = rendered({component: {"autoscaling": {"enabled": True}}})
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler").values()
    share = scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] / 100
    spec = of_kind(objects, "Deployment")[f"rowlock-{component}"]["spec"]["template"]["spec"]
    requested = spec["containers"][0]["resources"]["requests"]["cpu"]
    assert int(requested.removesuffix("m")) * share > 1.5 * idle_millicores


def _trigger(values: Object) -> Object:
    (scaled,) = of_kind(rendered(values), "ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"] == {"name": "rowlock-expirer", "envSourceContainerName": "expirer"}
    (trigger,) = scaled["spec"]["triggers"]
    found: Object = trigger["metadata"]
    return found


def test_keda_queries_the_postgresql_of_the_release() -> None:
    keda = {"expirer": {"keda": {"enabled": True}}}
    own = _trigger(keda)
    assert (own["host"], own["port"], own["sslmode"]) == ("rowlock-postgresql.shop.svc", "5432", "disable")
    assert own["passwordFromEnv"] == "PGPASSWORD"
    external = {"host": "db", "existingSecret": "s", "tls": {"mode": "verify-ca", "caSecret": "ca"}}
    near = _trigger(keda | {"postgresql": {"enabled": False}, "externalPostgresql": external})
    assert (near["host"], near["sslmode"]) == ("db.shop.svc", "require")
    far = _trigger(keda | {"postgresql": {"enabled": False}, "externalPostgresql": external | {"host": "db.example"}})
    assert far["host"] == "db.example"


def test_given_triggers_replace_the_default_one() -> None:
    (scaled,) = of_kind(rendered({"api": {"keda": {"enabled": True, "triggers": TRIGGERS}}}), "ScaledObject").values()
    assert scaled["spec"]["triggers"] == TRIGGERS


async def test_keda_scales_by_the_number_of_overdue_holds(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    query = _trigger({"expirer": {"keda": {"enabled": True}}})["query"]
    held = await make_holds(sql, settings, 3)
    assert await sql.fetchval(query) == 0
    await make_overdue(sql, *held[:2])
    assert await sql.fetchval(query) == 2
    await sweep.step(engine, settings)
    assert await sql.fetchval(query) == 0
