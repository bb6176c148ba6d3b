"""What the chart finds in the cluster decides what it refuses and keeps."""

from pathlib import Path

import pytest

from tests.chart.clusters import chart_with, claim, secret, stateful_set
from tests.chart.rendering import Object, of_kind, refusal, rendered

EXTERNAL: Object = {"host": "away", "existingSecret": "s"}
AWAY: Object = {"postgresql": {"enabled": False}, "externalPostgresql": EXTERNAL}
OLD = claim("postgresql", "8Gi")


@pytest.mark.parametrize(
    ("values", "name", "key", "block"),
    [
        ({"auth": {"tokenSecret": "t" * 32}}, "auth", "token-secret", "auth.tokenSecret"),
        ({"postgresql": {"auth": {"password": "b"}}}, "postgresql", "password", "postgresql.auth.password"),
        ({"redis": {"auth": {"password": "b"}}}, "redis", "password", "redis.auth.password"),
        ({"rabbitmq": {"auth": {"password": "b"}}}, "rabbitmq", "password", "rabbitmq.auth.password"),
        ({"rabbitmq": {"reader": {"password": "b"}}}, "rabbitmq-reader", "password", "rabbitmq.reader.password"),
    ],
)
def test_another_password_than_the_one_in_use_is_refused(
    tmp_path: Path, values: Object, name: str, key: str, block: str
) -> None:
    chart = chart_with(tmp_path, secret(f"rowlock-{name}", **{key: "a"}))
    told = f"{block} is not the one in the Secret rowlock-{name}, which is in use: change it there first"
    assert told in refusal(values, chart=chart)
    assert rendered(
        values, chart=chart_with(tmp_path, secret(f"rowlock-{name}", **{key: "b" if key == "password" else "t" * 32}))
    )


def test_a_password_may_be_given_where_none_is_in_use(tmp_path: Path) -> None:
    values: Object = {"redis": {"auth": {"password": "b"}}}
    assert rendered(values, chart=chart_with(tmp_path, secret("rowlock-redis", other="a")))
    unread: Object = {"redis": {"enabled": False, "auth": {"password": "b"}}, "externalRedis": EXTERNAL}
    assert rendered(unread, chart=chart_with(tmp_path, secret("rowlock-redis", password="a")))


@pytest.mark.parametrize(
    ("left", "named"),
    [(OLD, "claim data-rowlock-postgresql-0"), (stateful_set("postgresql"), "StatefulSet rowlock-postgresql, without")],
)
def test_data_of_the_bundled_postgresql_stop_a_switch(tmp_path: Path, left: Object, named: str) -> None:
    chart = chart_with(tmp_path, left)
    told = refusal(AWAY, chart=chart)
    assert f"postgresql.enabled is false, but the bundled PostgreSQL has data ({named}" in told
    assert "then set postgresql.dataStayBehind to true" in told
    confirmed = AWAY | {"postgresql": {"enabled": False, "dataStayBehind": True}}
    assert "rowlock-postgresql" not in of_kind(rendered(confirmed, chart=chart), "StatefulSet")


@pytest.mark.parametrize(
    ("persistence", "told"),
    [
        (
            {"size": "16Gi"},
            "size is 16Gi, but the claim data-rowlock-postgresql-0 asks for 8Gi: expand the claim first",
        ),
        ({"size": "8193Mi"}, "size is 8193Mi, but the claim data-rowlock-postgresql-0 asks for 8Gi: expand"),
        ({"size": "8G"}, "size is 8G, but the claim data-rowlock-postgresql-0 asks for 8Gi, and volumes can't shrink"),
        ({"storageClass": "fast"}, "storageClass is fast, but the claim data-rowlock-postgresql-0 has standard"),
    ],
)
def test_a_volume_that_would_have_to_change_is_refused(tmp_path: Path, persistence: Object, told: str) -> None:
    chart = chart_with(tmp_path, OLD)
    assert f"postgresql.persistence.{told}" in refusal({"postgresql": {"persistence": persistence}}, chart=chart)


@pytest.mark.parametrize("size", ["8Gi", "8192Mi", "8388608Ki", "8589934592", "8.0Gi"])
def test_the_same_size_may_be_written_in_another_unit(tmp_path: Path, size: str) -> None:
    values: Object = {"postgresql": {"persistence": {"size": size, "storageClass": "standard"}}}
    assert rendered(values, chart=chart_with(tmp_path, OLD))


@pytest.mark.parametrize("templates", [(), (OLD,)])
def test_a_running_store_neither_gains_nor_loses_its_volume(tmp_path: Path, templates: tuple[Object, ...]) -> None:
    chart = chart_with(tmp_path, stateful_set("rabbitmq", *templates))
    values: Object = {"rabbitmq": {"persistence": {"enabled": not templates}}}
    told = "rabbitmq.persistence.enabled can't change while the StatefulSet rowlock-rabbitmq exists"
    assert told in refusal(values, chart=chart)
    values = {"rabbitmq": {"persistence": {"enabled": bool(templates)}}}
    assert rendered(values, chart=chart)


def test_an_expanded_claim_leaves_the_immutable_template(tmp_path: Path) -> None:
    running = stateful_set("postgresql", claim("postgresql", "8Gi", "slow"))
    chart = chart_with(tmp_path, running, claim("postgresql", "16Gi", "slow"))
    made = of_kind(rendered({"postgresql": {"persistence": {"size": "16Gi"}}}, chart=chart), "StatefulSet")
    (template,) = made["rowlock-postgresql"]["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "8Gi"
    assert template["spec"]["storageClassName"] == "slow"


def test_stores_replace_a_broken_pod_without_waiting_for_it(tmp_path: Path) -> None:
    for found in of_kind(rendered(), "StatefulSet").values():
        assert found["spec"]["podManagementPolicy"] == "Parallel"
    chart = chart_with(tmp_path, stateful_set("redis", policy="OrderedReady"))
    made = of_kind(rendered(chart=chart), "StatefulSet")
    assert made["rowlock-redis"]["spec"]["podManagementPolicy"] == "OrderedReady", "it is immutable"
    assert made["rowlock-postgresql"]["spec"]["podManagementPolicy"] == "Parallel"
