"""Every pod of the chart: its permissions, start and stop."""

from typing import Any

import pytest

from tests.chart.rendering import containers, of_kind, pod_specs, rendered

ZONE = "topology.kubernetes.io/zone"
LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def test_the_defaults_install_the_whole_system() -> None:
    objects = rendered()
    assert set(pod_specs(objects)) == {
        "Deployment/rowlock-api",
        "Deployment/rowlock-expirer",
        "Job/rowlock-migrate-0-1-0-1",
        "Pod/rowlock-smoke",
        "StatefulSet/rowlock-postgresql",
        "StatefulSet/rowlock-rabbitmq",
        "StatefulSet/rowlock-redis",
    }
    images = {container["image"] for spec in pod_specs(objects).values() for container in containers(spec)}
    assert images == {"rowlock:0.1.0", "postgres:17", "redis:8", "rabbitmq:4"}


def test_every_pod_meets_pod_security_restricted() -> None:
    for name, spec in pod_specs(rendered()).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == (999 if name.startswith("StatefulSet") else 10001), name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_no_pod_gets_access_to_the_cluster() -> None:
    for name, spec in pod_specs(rendered()).items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["serviceAccountName"] == "rowlock", name
    assert of_kind(rendered(), "ServiceAccount")["rowlock"]["automountServiceAccountToken"] is False


def test_containers_have_requests_and_no_cpu_limit() -> None:
    for name, spec in pod_specs(rendered()).items():
        # A store without a volume keeps its data in ephemeral storage.
        disk = set() if name.startswith("StatefulSet") else {"ephemeral-storage"}
        for container in containers(spec):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"} | disk, name
            assert set(container["resources"]["limits"]) == {"memory"} | disk, name
            assert container["imagePullPolicy"] == "IfNotPresent", name


def test_the_service_account_may_be_an_existing_one() -> None:
    objects = rendered({"serviceAccount": {"create": False}})
    assert not of_kind(objects, "ServiceAccount")
    assert {spec["serviceAccountName"] for spec in pod_specs(objects).values()} == {"default"}
    named = rendered({"serviceAccount": {"create": False, "name": "theirs"}, "imagePullSecrets": [{"name": "pull"}]})
    for spec in pod_specs(named).values():
        assert spec["serviceAccountName"] == "theirs"
        assert spec["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize("component", ["api", "expirer"])
def test_a_rollout_removes_no_pod_before_a_new_one_is_ready(component: str) -> None:
    deployment = of_kind(rendered(), "Deployment")[f"rowlock-{component}"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("component", ["api", "expirer"])
def test_api_and_expirer_wait_for_the_schema(component: str) -> None:
    spec = pod_specs(rendered())[f"Deployment/rowlock-{component}"]
    assert [first["command"] for first in spec["initContainers"]] == [
        ["python", "-m", "service.migrate", "--wait", "300"]
    ]
    assert spec["initContainers"][0]["env"] == spec["containers"][0]["env"]


def test_only_the_apis_readiness_depends_on_the_database() -> None:
    specs = pod_specs(rendered())
    paths = {
        component: [
            specs[f"Deployment/rowlock-{component}"]["containers"][0][f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "liveness", "readiness")
        ]
        for component in ("api", "expirer")
    }
    assert paths == {"api": ["/livez", "/livez", "/readyz"], "expirer": ["/livez", "/livez", "/livez"]}


def test_a_pod_of_the_api_leaves_the_service_before_it_stops() -> None:
    spec = pod_specs(rendered())["Deployment/rowlock-api"]
    container = spec["containers"][0]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert {"name": "ROWLOCK_SHUTDOWN_SECONDS", "value": "20"} in container["env"]
    assert spec["terminationGracePeriodSeconds"] == 40


def test_the_timing_of_probes_may_be_template_code() -> None:
    probes = {"readiness": {"periodSeconds": "{{ .Values.api.preStopSeconds }}", "failureThreshold": 7}}
    container = pod_specs(rendered({"api": {"probes": probes}}))["Deployment/rowlock-api"]["containers"][0]
    assert container["readinessProbe"]["periodSeconds"] == 5
    assert container["readinessProbe"]["failureThreshold"] == 7
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/livez", "port": "http"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
    }


def test_a_slow_store_is_not_restarted() -> None:
    for name, spec in pod_specs(rendered()).items():
        if name.startswith("StatefulSet"):
            assert "livenessProbe" not in spec["containers"][0], name
            assert "readinessProbe" in spec["containers"][0], name


@pytest.mark.parametrize("component", ["api", "expirer"])
def test_pods_spread_softly_over_nodes_and_prefer_zones(component: str) -> None:
    spec = pod_specs(rendered())[f"Deployment/rowlock-{component}"]
    # One constraint: with a second key, nodes that lack it are not scored at all.
    (constraint,) = spec["topologySpreadConstraints"]
    (preferred,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    for term, key in ((constraint, "kubernetes.io/hostname"), (preferred["podAffinityTerm"], ZONE)):
        assert term["topologyKey"] == key
        assert term["matchLabelKeys"] == ["pod-template-hash"]
        assert term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component


def test_pods_of_a_lost_node_are_replaced_soon() -> None:
    specs = pod_specs(rendered({"expirer": {"lostNodeSeconds": 60}}))
    for component, seconds in (("api", 30), ("expirer", 60)):
        found = {
            toleration["key"]: (toleration["effect"], toleration["tolerationSeconds"])
            for toleration in specs[f"Deployment/rowlock-{component}"]["tolerations"]
        }
        assert found == dict.fromkeys(LOST, ("NoExecute", seconds))


def test_values_of_one_component_reach_only_its_pods() -> None:
    given: dict[str, Any] = {
        "image": {"repository": "mirror/rowlock", "tag": "fixed"},
        "env": [{"name": "ROWLOCK_LOG_LEVEL", "value": "debug"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "tickets", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraInitContainers": [{"name": "first", "image": "{{ .Release.Name }}:1"}],
        "extraContainers": [{"name": "beside", "image": "{{ .Release.Name }}:2"}],
    }
    deployments = of_kind(rendered({"expirer": given}), "Deployment")
    template = deployments["rowlock-expirer"]["spec"]["template"]
    spec = template["spec"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["c"] == "d"
    assert [c["image"] for c in containers(spec)] == [
        "mirror/rowlock:fixed",
        "rowlock:1",
        "mirror/rowlock:fixed",
        "rowlock:2",
    ]
    for container in (spec["initContainers"][0], spec["containers"][0]):
        assert container["env"][-1] == {"name": "ROWLOCK_LOG_LEVEL", "value": "debug"}
        assert container["volumeMounts"][-1]["mountPath"] == "/more"
    assert spec["volumes"][-1]["name"] == "more"
    for key in ("nodeSelector", "affinity", "priorityClassName"):
        assert spec[key] == given[key]
    assert spec["tolerations"][0] == given["tolerations"][0]
    assert deployments["rowlock-api"] == of_kind(rendered(), "Deployment")["rowlock-api"]


def test_migrations_and_smoke_test_use_the_values_of_the_api() -> None:
    given: dict[str, Any] = {
        "image": {"repository": "mirror/rowlock", "tag": "fixed"},
        "securityContext": {"runAsGroup": 7},
        "podSecurityContext": {"fsGroup": 8},
        "env": [{"name": "ROWLOCK_LOG_LEVEL", "value": "debug"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "priorityClassName": "high",
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "tickets", "operator": "Exists"}],
    }
    specs = pod_specs(rendered({"api": given}))
    for name in ("Job/rowlock-migrate-0-1-0-1", "Pod/rowlock-smoke"):
        spec = specs[name]
        assert spec["securityContext"]["fsGroup"] == 8, name
        for container in containers(spec):
            assert container["image"] == "mirror/rowlock:fixed", name
            assert container["securityContext"]["runAsGroup"] == 7, name
            assert container["env"].count(given["env"][0]) == 1, name
            assert container["volumeMounts"][-1] == given["extraVolumeMounts"][0], name
        assert spec["volumes"][-1] == given["extraVolumes"][0], name
        for key in ("priorityClassName", "nodeSelector"):
            assert spec[key] == given[key], (name, key)
        assert spec["tolerations"][0] == given["tolerations"][0], name


def test_the_smoke_pod_has_values_of_its_own() -> None:
    given: dict[str, Any] = {
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "200Mi"}},
        "env": [{"name": "A", "value": "b"}],
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "nodeSelector": {"disk": "slow"},
        "tolerations": [{"key": "tests", "operator": "Exists"}],
        "priorityClassName": "low",
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    objects = rendered({"smoke": given, "api": {"priorityClassName": "high", "env": [{"name": "C", "value": "d"}]}})
    pod = of_kind(objects, "Pod")["rowlock-smoke"]
    assert pod["metadata"]["annotations"].items() >= given["podAnnotations"].items()
    for container in containers(pod["spec"]):
        assert container["resources"]["requests"].items() >= {"cpu": "10m", "memory": "96Mi"}.items()
        assert container["resources"]["limits"]["memory"] == "200Mi"
        assert {"name": "C", "value": "d"} in container["env"]
        assert container["env"][-1] == given["env"][0]
        assert container["volumeMounts"][-1] == given["extraVolumeMounts"][0]
    assert pod["spec"]["volumes"][-1] == given["extraVolumes"][0]
    assert (pod["spec"]["nodeSelector"], pod["spec"]["priorityClassName"]) == ({"disk": "slow"}, "low")
    assert pod["spec"]["tolerations"][0] == given["tolerations"][0]
    assert pod_specs(objects)["Deployment/rowlock-api"]["priorityClassName"] == "high"


def test_a_digest_takes_precedence_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    spec = pod_specs(rendered({"image": {"tag": "ignored", "digest": digest}}))["Deployment/rowlock-api"]
    assert {c["image"] for c in containers(spec)} == {f"rowlock@{digest}"}
    own = pod_specs(rendered({"image": {"digest": digest}, "api": {"image": {"tag": "own"}}}))["Deployment/rowlock-api"]
    assert {c["image"] for c in containers(own)} == {"rowlock:own"}


def test_migrations_are_a_job_per_revision_and_no_hook() -> None:
    (job,) = of_kind(rendered(), "Job").values()
    assert "annotations" not in job["metadata"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 15 * 60
    assert job["spec"]["activeDeadlineSeconds"] == 20 * 60, "after the last of its tries"
    assert job["spec"]["backoffLimit"] == 6


def test_pods_of_a_failed_migration_are_kept() -> None:
    (job,) = of_kind(rendered({"migrations": {"backoffLimit": 0}}), "Job").values()
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_names_fit_the_limits_of_kubernetes() -> None:
    for found in rendered(release="a-release-with-a-name-of-fifty-three-characters-long"):
        assert len(found["metadata"]["name"]) <= (52 if found["kind"] == "StatefulSet" else 63), found["metadata"][
            "name"
        ]
        for value in found["metadata"]["labels"].values():
            assert len(value) <= 63


def test_selectors_are_of_name_instance_and_component_only() -> None:
    for found in rendered({"commonLabels": {"team": "tickets"}}):
        assert found["metadata"]["labels"]["team"] == "tickets"
        if found["kind"] in {"Deployment", "StatefulSet"}:
            expected = {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}
            assert set(found["spec"]["selector"]["matchLabels"]) == expected
            assert set(found["spec"]["template"]["metadata"]["labels"]) == expected
        for claim in found["spec"].get("volumeClaimTemplates", []) if found["kind"] == "StatefulSet" else []:
            assert "team" not in claim["metadata"]["labels"]


def test_helm_test_buys_as_a_manager_from_an_init_container() -> None:
    objects = rendered({"service": {"port": 80}})
    smoke = of_kind(objects, "Pod")["rowlock-smoke"]
    assert smoke["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert smoke["spec"]["containers"][0]["command"] == ["python", "-m", "service.smoke", "http://rowlock-api:80"]
    assert "service.make_manager" in smoke["spec"]["initContainers"][0]["command"][-1]
    assert smoke["spec"]["restartPolicy"] == "Never"
    assert not of_kind(rendered({"smoke": {"enabled": False}}), "Pod")
