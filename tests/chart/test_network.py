"""Allowed connections, computed from the rendered NetworkPolicies."""

from itertools import product
from typing import Any, NamedTuple

from tests.chart.rendering import NAMESPACE, Object, of_kind, rendered
from tests.chart.test_stores import EXTERNAL

PORTS = {
    ("api", "http"): 3000,
    ("api", "metrics"): 9100,
    ("expirer", "livez"): 3001,
    ("expirer", "metrics"): 9101,
    ("postgresql", "postgresql"): 5432,
    ("redis", "redis"): 6379,
    ("rabbitmq", "rabbitmq"): 5672,
}
OURS = ("api", "expirer", "migrate", "smoke", "postgresql", "redis", "rabbitmq")
STRAY = {"app": "stray"}


class Peer(NamedTuple):
    """The other end of a connection."""

    labels: dict[str, str]
    namespace: str


def _labels(component: str) -> dict[str, str]:
    names = {"name": "rowlock", "instance": "rowlock", "component": component}
    return {f"app.kubernetes.io/{key}": value for key, value in names.items()}


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _allows(policies: list[Object], way: str, pod: dict[str, str], peer: Peer, port: tuple[str, int]) -> bool:
    """Whether the policies of the pod allow connections from the peer (Ingress) or to it (Egress)."""
    specs = [policy["spec"] for policy in policies]
    holding = [spec for spec in specs if _selects(spec["podSelector"], pod) and way in spec["policyTypes"]]
    if not holding:
        return True
    rules = [rule for spec in holding for rule in spec.get(way.lower(), [])]
    return any(
        any(allowed["port"] in port for allowed in rule["ports"])
        and _is_peer(rule.get("from" if way == "Ingress" else "to"), peer)
        for rule in rules
    )


def _is_peer(peers: list[Object] | None, peer: Peer) -> bool:
    if peers is None:
        return True
    return any(
        _selects(allowed.get("podSelector", {}), peer.labels)
        and (
            _selects(allowed["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
            if "namespaceSelector" in allowed
            else peer.namespace == NAMESPACE
        )
        for allowed in peers
    )


def _reached(values: Object | None = None, caller: str = "stray", namespace: str = NAMESPACE) -> set[str]:
    """The components and ports that a pod of a component, or an unrelated pod, may reach."""
    policies = list(of_kind(rendered(values), "NetworkPolicy").values())
    labels = _labels(caller) if caller in OURS else STRAY
    return {
        f"{component} {name}"
        for (component, name), number in PORTS.items()
        if _allows(policies, "Ingress", _labels(component), Peer(labels, namespace), (name, number))
        and _allows(policies, "Egress", labels, Peer(_labels(component), NAMESPACE), (name, number))
    }


def test_a_stray_pod_reaches_only_the_api() -> None:
    assert _reached() == {"api http"}
    assert _reached(namespace="elsewhere") == {"api http"}


def test_each_component_reaches_its_stores() -> None:
    stores = {"postgresql postgresql", "redis redis", "rabbitmq rabbitmq"}
    assert _reached(caller="api") == stores
    assert _reached(caller="expirer") == stores
    assert _reached(caller="migrate") == {"postgresql postgresql"}
    assert _reached(caller="smoke") == {"postgresql postgresql", "api http"}
    for store in ("postgresql", "redis", "rabbitmq"):
        assert _reached(caller=store) == set()


def test_prometheus_reads_the_metrics_from_its_namespace() -> None:
    assert _reached(namespace="monitoring") == {"api http", "api metrics", "expirer metrics"}
    assert _reached({"metrics": {"from": []}}, namespace="monitoring") == {"api http"}


def test_access_to_the_api_may_be_limited_to_the_proxy() -> None:
    values = {
        "networkPolicy": {
            "apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}}]
        }
    }
    assert _reached(values) == set()
    assert _reached(values, namespace="traefik") == {"api http"}
    assert "api http" in _reached(values, caller="smoke")


def test_keda_may_query_the_bundled_postgresql() -> None:
    assert "postgresql postgresql" not in _reached(namespace="keda")
    assert "postgresql postgresql" in _reached({"expirer": {"keda": {"enabled": True}}}, namespace="keda")


def test_pods_may_reach_dns_and_nothing_else_outside() -> None:
    policies = list(of_kind(rendered(), "NetworkPolicy").values())
    for component, port in product(OURS, (53, 443)):
        allowed = _allows(policies, "Egress", _labels(component), Peer(STRAY, "kube-system"), ("", port))
        assert allowed == (port == 53), (component, port)


def test_external_stores_are_reachable_by_port_or_by_peer() -> None:
    policies = list(of_kind(rendered(EXTERNAL), "NetworkPolicy").values())
    for component, ports in {"api": (6432, 6380, 5671), "expirer": (6432, 6380, 5671), "migrate": (6432,)}.items():
        for port in (6432, 6380, 5671, 5432):
            allowed = _allows(policies, "Egress", _labels(component), Peer(STRAY, "elsewhere"), ("", port))
            assert allowed == (port in ports), (component, port)
    database = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "databases"}}}]
    named = EXTERNAL | {"networkPolicy": {"externalPeers": {"postgresql": database}}}
    policies = list(of_kind(rendered(named), "NetworkPolicy").values())
    assert _allows(policies, "Egress", _labels("api"), Peer(STRAY, "databases"), ("", 6432))
    assert not _allows(policies, "Egress", _labels("api"), Peer(STRAY, "elsewhere"), ("", 6432))


def test_every_node_of_rabbitmq_is_reachable_by_its_peers() -> None:
    zones = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"zone-{zone}"}}} for zone in "ab"]
    nodes = {"externalRabbitmq": {"hosts": ["a.example", "b.example"], "port": 5673, "password": "secret"}}
    peers = {"networkPolicy": {"externalPeers": {"rabbitmq": zones}}}
    policies = list(of_kind(rendered({"rabbitmq": {"enabled": False}} | nodes | peers), "NetworkPolicy").values())
    for namespace in ("zone-a", "zone-b", "elsewhere"):
        allowed = _allows(policies, "Egress", _labels("expirer"), Peer(STRAY, namespace), ("", 5673))
        assert allowed == (namespace != "elsewhere"), namespace


def test_sentinels_are_reachable_where_a_url_names_them() -> None:
    external: Object = {"existingSecret": "cache", "secretKeys": {"url": "uri"}, "sentinelPort": 26379}
    for values, expected in (({}, False), (external, True)):
        given = {"redis": {"enabled": False}, "externalRedis": {"host": "cache"} | values}
        policies = list(of_kind(rendered(given), "NetworkPolicy").values())
        for component, port in product(("api", "expirer", "migrate"), (6379, 26379)):
            allowed = _allows(policies, "Egress", _labels(component), Peer(STRAY, "elsewhere"), ("", port))
            assert allowed == (component != "migrate" and (port == 6379 or expected)), (component, port)


def test_dns_may_listen_on_other_ports() -> None:
    policies = list(of_kind(rendered({"networkPolicy": {"dnsPorts": [53, 5353]}}), "NetworkPolicy").values())
    for component, port in product(OURS, (53, 5353, 5354)):
        allowed = _allows(policies, "Egress", _labels(component), Peer(STRAY, "openshift-dns"), ("", port))
        assert allowed == (port != 5354), (component, port)


def test_pods_with_our_image_get_the_extra_egress() -> None:
    receiver = [{"ports": [{"port": 4318, "protocol": "TCP"}]}]
    policies = list(of_kind(rendered({"networkPolicy": {"extraEgress": receiver}}), "NetworkPolicy").values())
    for component in OURS:
        allowed = _allows(policies, "Egress", _labels(component), Peer(STRAY, "tracing"), ("", 4318))
        assert allowed == (component in ("api", "expirer", "migrate", "smoke")), component


def test_network_policies_can_be_switched_off() -> None:
    assert not of_kind(rendered({"networkPolicy": {"enabled": False}}), "NetworkPolicy")
