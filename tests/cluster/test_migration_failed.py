"""A failed migration: customers continue to buy, the alert fires for its Job only, and the runbook repairs it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import FEW, make_release
from tests.cluster.job_metrics import served
from tests.cluster.kubernetes import Release
from tests.cluster.next_image import NEXT, TABLE
from tests.cluster.shoppers import shopping, until_sold_again
from tests.cluster.strays import fail_job
from tests.cluster.verdict import assert_true, schema
from tests.monitoring.prometheus import Prometheus

Jobs = set[tuple[str, str]]
"""Namespace and name of each Job."""
FIRING = 'ALERTS{alertname="RowlockMigrationFailed", alertstate="firing"}'
FAILED = 'kube_job_failed{condition="true"} == 1'
FAIL_SECONDS_MAX = 120
"""Ten tries of one pod, with a pause after each."""
ONE_POD = "migrations.backoffLimit=0"
RULE = ("monitoring.force=true", "monitoring.prometheusRule.enabled=true")
SCRAPED = {
    "ServiceMonitor": "monitoring.serviceMonitor.enabled=true",
    "PodMonitor": "monitoring.podMonitor.enabled=true",
}
"""Either of them: the chart rejects both together."""


@pytest.fixture
def others(second: Release) -> Iterator[Jobs]:
    """Failed Jobs outside the release: one in its namespace, and one with the name of its Job."""
    elsewhere = make_release(second.cluster, "rowlock-elsewhere", "none")
    fail_job(second, "other-rowlock-migrate-1")
    fail_job(elsewhere, "rowlock-migrate-1")
    yield {(second.namespace, "other-rowlock-migrate-1"), (elsewhere.namespace, "rowlock-migrate-1")}
    second.kubectl("delete", "job", "other-rowlock-migrate-1")
    elsewhere.kubectl("delete", "namespace", elsewhere.namespace, "--wait=false")


async def test_a_failed_migration_alerts_and_its_runbook_repairs_it(
    second: Release, others: Jobs, next_tag: str
) -> None:
    # The table was created manually before.
    second.sql(f"create table {TABLE} ()")
    async with watched(second) as prometheus, shopping(second, count=2, seats=500) as shoppers:
        await until_sold_again(shoppers)
        await until_failed(prometheus, others, ringing=set(), seconds=30)
        with pytest.raises(AssertionError, match="UPGRADE FAILED"):
            await asyncio.to_thread(second.upgrade, *FEW, ONE_POD, tag=next_tag, timeout="10s")
        ours = (second.namespace, second.jobs()[-1])
        await until_failed(prometheus, others | {ours}, ringing={ours}, seconds=FAIL_SECONDS_MAX)
        await until_sold_again(shoppers)

        assert f'relation "{TABLE}" already exists' in second.kubectl("logs", f"job/{ours[1]}")
        assert "Init:" in second.kubectl("get", "pods")
        second.sql(f"drop table {TABLE}")
        second.kubectl("delete", "job", ours[1])
        await asyncio.to_thread(second.upgrade, *FEW, tag=next_tag)
        assert schema(second) == NEXT
        await until_failed(prometheus, others, ringing=set(), seconds=30)
        await until_sold_again(shoppers)
    assert shoppers.failures == []
    assert_true(second, shoppers)


def rule_of(release: Release) -> Any:
    """The release's rules, which do not depend on the kind of monitor."""
    rules = []
    for kind, scraped in SCRAPED.items():
        rendered = yaml.safe_load_all(release.template("templates/monitoring.yaml", *FEW, *RULE, scraped))
        made = {found["kind"]: found for found in rendered if found}
        assert made.keys() - {"Service"} == {kind, "PrometheusRule"}
        rules.append(made["PrometheusRule"])
    assert rules[0] == rules[1]
    return rules[0]


@asynccontextmanager
async def watched(release: Release) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes the cluster's failed Jobs, with the release's rules."""
    rule = rule_of(release)
    with tempfile.TemporaryDirectory(prefix="rowlock-prometheus-") as folder, served(release.cluster) as port:
        prometheus = Prometheus(Path(folder), targets={"jobs": [port]}, rules=yaml.safe_dump(rule["spec"]))
        prometheus.start()
        try:
            yield prometheus
        finally:
            prometheus.stop()


async def failed_jobs(prometheus: Prometheus) -> tuple[Jobs, Jobs]:
    """The failed Jobs, and the Jobs that the alert fires for."""
    found = await prometheus.series(FAILED), await prometheus.series(FIRING)
    failed, ringing = ({(at["metric"]["namespace"], at["metric"]["job_name"]) for at in series} for series in found)
    return failed, ringing


async def until_failed(prometheus: Prometheus, failed: Jobs, ringing: Jobs, seconds: float) -> None:
    """Returns when exactly `failed` have failed and the alert fires for exactly `ringing`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while (found := await failed_jobs(prometheus)) != (failed, ringing):
        assert asyncio.get_running_loop().time() < deadline, f"not {failed} and {ringing}, but {found}"
        await asyncio.sleep(0.5)
