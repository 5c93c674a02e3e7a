"""The Helm chart, rendered by Helm itself: Kubernetes' schemas take it, pods are confined, and what is
wrong is refused with a word.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.charts import CHART, mistakes, render, run_helm
from tests.support import REPOSITORY
from tests.support.names import NAMES
from workers.amqp.topology import DEFAULT_RETRY_DELAYS, topology
from workers.bootstrap import DRAIN_LIMIT
from workers.settings import GatewaySettings, Settings

NEEDED: dict[str, Any] = {
    "image": {"repository": "registry.example/ecs-worker"},
    "config": {"ECS_TRUST_PUBLISHERS": "true", "ECS_REGION": "cn-north-3"},
    "secret": {"existing": "ecs-secrets"},
}
EVERYTHING: dict[str, Any] = NEEDED | {
    "config": NEEDED["config"] | {"ECS_MAX_AGE": 2592000},
    "brokerTls": {"secret": "broker-tls", "clientCertificate": True},
    "secret": {
        "brokerUrl": "amqps://ecs:secret@rabbitmq:5671//",
        "journalUrl": "postgresql+psycopg://ecs:secret@postgres/ecs",
        "cloudsYaml": "clouds: {ecs-worker: {auth: {password: secret}}}",
        "managementUrl": "http://ecs:secret@rabbitmq:15672/%2F",
    },
    "gateway": {"console": True, "extraEnv": [{"name": "OTEL_SERVICE_NAME", "value": "gateway"}]},
    "probes": {"type": "exec"},
    "autoscaling": {"enabled": True},
    "monitoring": {
        "labels": {"release": "prometheus"},
        "rules": {"enabled": True},
        "podMonitor": {"enabled": True},
    },
    "networkPolicy": {"egress": [{"ports": [{"port": 5671}]}]},
    "worker": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"disk": "ssd"}},
    "priorityClassName": "high",
}
#: The oldest that the chart takes, and the newest whose schemas there are.
VERSIONS = ("1.27", "1.37")


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


@pytest.mark.parametrize(
    ("values", "versions"),
    [(NEEDED, VERSIONS[-1:]), (EVERYTHING, VERSIONS)],
    ids=["needed", "everything"],
)
def test_the_schemas_take_what_is_rendered(
    values: dict[str, Any], versions: tuple[str, ...], tmp_path: Path
) -> None:
    objects = render(values, tmp_path)
    assert [mistakes(objects, tmp_path, one) for one in versions] == [[]] * len(versions)
    if values is NEEDED:
        return
    # What is said of a mistake is seen.
    for one in objects:
        if one["kind"] == "Deployment":
            one["spec"]["replcas"] = 2
        if one["kind"] == "ScaledObject":
            one["spec"]["triggers"][0]["metadata"]["value"] = 300
    said = " ".join(mistakes(objects, tmp_path, VERSIONS[-1]))
    assert "replcas" in said
    assert "metadata/value" in said


def test_helm_has_nothing_to_say_against_the_chart() -> None:
    words = ["image.repository=r/e", "secret.existing=s", "config.ECS_TRUST_PUBLISHERS=true"]
    done = run_helm("lint", "--strict", str(CHART), "--set", ",".join(words))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_the_charts_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    version = (REPOSITORY / "ecs_client" / "VERSION").read_text(encoding="utf-8").strip()
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_pods_are_confined_end_in_time_and_are_restarted_for_liveness_alone(
    tmp_path: Path,
) -> None:
    drains = {
        "night-ecs-worker": DRAIN_LIMIT,
        # The hook that waits for the Service comes first.
        "night-ecs-worker-gateway": GatewaySettings.model_fields["command_timeout"].default + 7 + 5,
    }
    deployments = named(render(NEEDED, tmp_path), "Deployment")
    assert deployments.keys() == drains.keys()
    for name, one in deployments.items():
        pod = one["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= drains[name] + 5
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    asked = {
        name: one["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
        for name, one in named(
            render(NEEDED | {"probes": {"type": "exec"}}, tmp_path), "Deployment"
        ).items()
    }
    assert asked == {
        "night-ecs-worker": ["ecs-worker", "probe", "live"],
        "night-ecs-worker-gateway": ["ecs-worker", "probe", "live", "--gateway"],
    }


def test_passwords_are_files_of_a_secret_and_nowhere_else(tmp_path: Path) -> None:
    objects = render(EVERYTHING, tmp_path)
    assert ["secret" in str(one) and "ecs:secret@" in str(one) for one in objects].count(True) == 1
    (secret,) = named(objects, "Secret").values()
    assert secret["stringData"].keys() == {
        "broker-url",
        "journal-url",
        "clouds.yaml",
        "management-url",
    }
    # Every variable that the chart sets is one that worker and gateway know.
    known = {f"ECS_{name.upper()}" for name in Settings.model_fields | GatewaySettings.model_fields}
    for one in named(objects, "Deployment").values():
        (container,) = one["spec"]["template"]["spec"]["containers"]
        names = {entry["name"] for entry in container["env"]}
        assert {name for name in names if name.startswith("ECS_")} <= known
        assert {"ECS_BROKER_URL_FILE", "ECS_BROKER_KEY_FILE", "OS_CLIENT_CONFIG_FILE"} <= names
    (config,) = named(objects, "ConfigMap").values()
    assert {name for name in config["data"] if name.startswith("ECS_")} <= known
    # Helm reads numbers as floats.
    assert config["data"]["ECS_MAX_AGE"] == "2592000"
    # Only a gateway with the console reads the journal.
    gateway = named(render(NEEDED, tmp_path), "Deployment")["night-ecs-worker-gateway"]
    assert "journal" not in str(gateway)


def test_workers_are_scaled_by_the_queues_that_they_consume(tmp_path: Path) -> None:
    objects = render(EVERYTHING, tmp_path)
    (scaled,) = named(objects, "ScaledObject").values()
    asked = {one["metadata"]["queueName"] for one in scaled["spec"]["triggers"]}
    declared = {one.name for one in topology(DEFAULT_RETRY_DELAYS, NAMES).queues}
    assert asked == {"ecs.reads", "ecs.servers", "ecs.images", "ecs.orders"}
    assert asked <= declared
    # What workers hold counts: they take up to ECS_PREFETCH messages.
    assert {one["metadata"]["protocol"] for one in scaled["spec"]["triggers"]} == {"http"}
    assert {one["metadata"]["excludeUnacknowledged"] for one in scaled["spec"]["triggers"]} == {
        "false"
    }
    worker = named(objects, "Deployment")[scaled["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in worker["spec"]
    assert named(objects, "PodDisruptionBudget").keys() == {
        "night-ecs-worker-worker",
        "night-ecs-worker-gateway",
    }


def test_the_charts_rules_are_those_of_deploy_prometheus(tmp_path: Path) -> None:
    rules = {
        group["name"]: group
        for path in (REPOSITORY / "deploy" / "prometheus").glob("*.y*ml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8")).get("groups", ())
    }
    found = {
        group["name"]: group
        for one in named(render(EVERYTHING, tmp_path), "PrometheusRule").values()
        for group in one["spec"]["groups"]
    }
    assert found == rules
    assert found
    linked = EVERYTHING | {
        "monitoring": {"rules": {"enabled": True, "runbooks": "https://git.example/e/blob/v1/"}}
    }
    for one in named(render(linked, tmp_path), "PrometheusRule").values():
        for rule in (rule for group in one["spec"]["groups"] for rule in group["rules"]):
            page = rule["annotations"]["runbook_url"].removeprefix("https://git.example/e/blob/v1/")
            assert (REPOSITORY / page).is_file()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image": {"repository": ""}}, "image.repository"),
        ({"config": {"ECS_TRUST_PUBLISHERS": ""}}, "ECS_JWT_JWKS"),
        ({"config": {"ECS_TRUST_PUBLISHERS": "false"}}, "ECS_JWT_JWKS"),
        ({"config": {"ECS_TRUST_PUBLISHERS": True, "ECS_JWT_JWKS": "https://i"}}, "just one"),
        ({"config": NEEDED["config"] | {"ECS_BROKER_URL": "amqp://a:b@c"}}, "secret.existing"),
        ({"config": NEEDED["config"] | {"PATH": "/"}}, "PATH"),
        ({"config": NEEDED["config"] | {"ECS_HTTP_PORT": 9090}}, "ECS_HTTP_PORT"),
        ({"config": NEEDED["config"] | {"OTEL_EXPORTER_OTLP_HEADERS": "key=k"}}, "extraEnv"),
        ({"secret": {}}, "secret.existing"),
        ({"secret": EVERYTHING["secret"] | {"journalUrl": "sqlite:///a"}}, "PostgreSQL"),
        (
            {
                "secret": EVERYTHING["secret"] | {"managementUrl": ""},
                "autoscaling": {"enabled": True},
            },
            "management",
        ),
        ({"worker": {"replica": 3}}, "replica"),
        ({"worker": {"terminationGracePeriodSeconds": 30}}, "terminationGracePeriodSeconds"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(
    change: dict[str, Any], word: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(NEEDED | change), encoding="utf-8")
    done = run_helm("template", "night", str(CHART), "--values", str(file))
    assert done.returncode != 0
    assert word in done.stderr
