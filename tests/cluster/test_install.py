"""A new installation starts under Pod Security "restricted" and passes its test. Installing again changes nothing."""

import asyncio
from typing import Any

import httpx

from tests.cluster.kubernetes import Release
from tests.cluster.shoppers import connect, put_on_sale, sign_up

CUSTOMERS, SEATS = 200, 20


def test_a_namespace_that_enforces_restricted_accepts_every_pod(release: Release) -> None:
    for component, count in {"api": 3, "expirer": 2, "postgresql": 1, "redis": 1, "rabbitmq": 1}.items():
        release.until_ready(component, count)
    events = release.kubectl("get", "events", "--field-selector=type=Warning", "-o", "jsonpath={.items[*].message}")
    assert "PodSecurity" not in events


async def test_the_ingress_serves_api_docs_and_no_metrics(release: Release) -> None:
    async with connect(release) as client:
        assert "swagger" in (await client.get("/api-docs")).text.lower()
        assert (await client.get("/readyz")).status_code == httpx.codes.OK
        assert (await client.get("/metrics")).status_code == httpx.codes.NOT_FOUND


def test_helm_test_passes(release: Release) -> None:
    # The test's pod is in the same namespace, so it is restricted too.
    assert "Phase:          Succeeded" in release.helm("test", "rowlock")


async def test_200_customers_get_20_seats_over_three_pods(release: Release) -> None:
    async with connect(release, seconds_max=60) as client:
        tokens, seats = await sign_up(client, CUSTOMERS), await put_on_sale(client, release, SEATS)

        async def hold(n: int) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[n]}"}
            return await client.post(f"/customer/book/{seats[n % SEATS]}", headers=headers)

        replies = await asyncio.gather(*(hold(n) for n in range(CUSTOMERS)))
        won = [reply.json() for reply in replies if reply.status_code == httpx.codes.CREATED]
        refused = [reply.json()["type"] for reply in replies if reply.status_code == httpx.codes.CONFLICT]
    assert sorted(seat["seatId"] for hold in won for seat in hold["seats"]) == sorted(seats)
    assert refused == ["urn:rowlock:problem:seats-taken"] * (CUSTOMERS - SEATS)
    for name in release.pod_names("api"):
        log = await asyncio.to_thread(release.kubectl, "logs", name, "-c", "api", "--since=2m")
        assert "/customer/book" in log, f"{name} was not asked"


def test_installing_again_changes_nothing(release: Release) -> None:
    before = state_of(release)
    release.upgrade()
    assert state_of(release) == before


def state_of(release: Release) -> dict[str, Any]:
    """The pods with their restarts, and all Secrets. Migration Jobs are left out: each revision has its own."""
    pods = [
        pod for pod in release.objects("pods") if pod["metadata"]["labels"]["app.kubernetes.io/component"] in LASTING
    ]
    restarts = {
        pod["metadata"]["uid"]: [status["restartCount"] for status in pod["status"]["containerStatuses"]]
        for pod in pods
    }
    secrets = {secret["metadata"]["name"]: secret["data"] for secret in release.objects("secrets")}
    assert len(secrets) > 0
    return {"pods": restarts, "secrets": secrets}


LASTING = ("api", "expirer", "postgresql", "redis", "rabbitmq")
