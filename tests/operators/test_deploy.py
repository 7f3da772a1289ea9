"""deploy/: every overlay composes, holds Kubernetes' own schemas, and its parts fit each other and the service."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from metering.api.routes import ROUTES
from metering.settings import Settings
from tests.house.repo import ROOT
from tests.operators.files import programs
from tests.operators.kustomize import CannotComposeError, Object, composed, documents

DEPLOY: Final = ROOT / "deploy"
OVERLAYS: Final = tuple(sorted(path.name for path in (DEPLOY / "overlays").iterdir()))
KUBERNETES: Final = ("1.31", kubernetes_validate.latest_version())
"""The oldest version that the files are for, and the newest whose schemas the package has."""

NO_SCHEMA: Final = frozenset({"ServiceMonitor"})
"""Kinds of the Prometheus operator: Kubernetes has no schema of them, so that what they say is held by tests below."""


@cache
def overlay(name: str) -> tuple[Object, ...]:
    return tuple(composed(DEPLOY / "overlays" / name))


def one(name: str, kind: str) -> Any:
    """The only object of a kind."""
    (found,) = [each for each in overlay(name) if each["kind"] == kind]
    return found


def pod(name: str) -> Any:
    return one(name, "Deployment")["spec"]["template"]["spec"]


def container(name: str) -> Any:
    (found,) = pod(name)["containers"]
    return found


# ── composing ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("program", programs("kubectl"))
def test_an_overlay_is_what_kubectl_makes_of_it(name: str, program: str) -> None:
    done = subprocess.run(
        [program, "kustomize", DEPLOY / "overlays" / name], capture_output=True, text=True, check=True
    )
    made = list(YAML(typ="safe", pure=True).load_all(done.stdout))
    assert sorted(made, key=str_of) == sorted(overlay(name), key=str_of)


def str_of(made: Object) -> str:
    return f"{made['kind']}/{made['metadata']['name']}"


def test_every_file_is_part_of_an_overlay() -> None:
    read: set[Path] = set()

    def walk(folder: Path) -> None:
        read.add(folder / "kustomization.yaml")
        (told,) = documents(folder / "kustomization.yaml")
        for place in (*told.get("resources", ()), *told.get("components", ())):
            path = (folder / place).resolve()
            walk(path) if path.is_dir() else read.add(path)

    for name in OVERLAYS:
        walk(DEPLOY / "overlays" / name)
    assert read == {path for path in DEPLOY.rglob("*") if path.is_file()}


BASE: Final = """
resources: [map.yaml]
patches:
  - target: {kind: ConfigMap, name: NAME}
    patch: '[{op: OP, path: PATH, value: "2"}]'
"""
MAP: Final = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a: '1'}}"


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True), ({"NAME": "other"}, False), ({"PATH": "/data/b"}, False), ({"PATH": "/nothing/a"}, False),
        ({"OP": "move"}, False), ({"map.yaml": "gone.yaml"}, False), ({"resources": "helmCharts"}, False),
        ({"[map.yaml]": "[map.yaml, map.yaml]"}, False),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(tmp_path: Path, changed: dict[str, str], fits: bool) -> None:
    text = BASE
    for old, new in (changed | {"NAME": changed.get("NAME", "m")} | {"OP": changed.get("OP", "replace")}).items():
        text = text.replace(old, new)
    (tmp_path / "kustomization.yaml").write_text(text.replace("PATH", "/data/a"))
    (tmp_path / "map.yaml").write_text(MAP)
    if fits:
        assert composed(tmp_path)[0]["data"] == {"a": "2"}
        return
    with pytest.raises(CannotComposeError):
        composed(tmp_path)


# ── by the schemas ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_holds_the_schema_of_its_kind(name: str, version: str) -> None:
    for made in overlay(name):
        if made["kind"] not in NO_SCHEMA:
            held = kubernetes_validate.validate(made, version, strict=True)
            assert version.startswith(held)


def test_a_field_that_is_misspelt_is_found() -> None:
    made = {**one("production", "Service"), "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, KUBERNETES[0], strict=True)


# ── by what fits what ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_of_it_is_about_the_same_pods_in_one_namespace(name: str) -> None:
    labels = one(name, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(name, "Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert one(name, "Service")["spec"]["selector"] == labels
    assert one(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert one(name, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    for spread in pod(name)["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels
    scaled = one(name, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", one(name, "Deployment")["metadata"]["name"])
    assert pod(name)["serviceAccountName"] == one(name, "ServiceAccount")["metadata"]["name"]
    space = one(name, "Namespace")["metadata"]["name"]
    assert {made["metadata"]["namespace"] for made in overlay(name) if made["kind"] != "Namespace"} == {space}


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_are_those_of_the_service_and_secrets_come_from_the_secret(name: str) -> None:
    known = {field.upper() for field in Settings.model_fields}
    values = one(name, "ConfigMap")["data"]
    variables = {each["name"]: each for each in container(name)["env"]}
    assert values.keys() | variables.keys() <= known
    assert [each["configMapRef"]["name"] for each in container(name)["envFrom"]] == [
        one(name, "ConfigMap")["metadata"]["name"]
    ]
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    from_secret = {n: each["valueFrom"]["secretKeyRef"] for n, each in variables.items() if "valueFrom" in each}
    assert variables.keys() - from_secret.keys() == {"DATA_DIR"}
    assert all(f"--from-literal={told['key']}=" in page for told in from_secret.values())
    assert not pod(name)["enableServiceLinks"]
    Settings.model_validate({field.lower(): value for field, value in values.items()})


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_and_scrapes_ask_what_the_service_answers_where_it_listens(name: str) -> None:
    routes = {route.path for route in ROUTES if route.method == "GET"}
    (port,) = container(name)["ports"]
    (served,) = one(name, "Service")["spec"]["ports"]
    probes = {kind: container(name)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready",
    }  # fmt: skip
    assert {probe["path"] for probe in probes.values()} <= routes
    assert {probe["port"] for probe in probes.values()} | {served["targetPort"]} == {port["name"]}
    arguments = container(name)["args"]
    assert arguments[arguments.index("--port") + 1] == str(port["containerPort"])
    for made in overlay(name):
        for rule in made["spec"]["ingress"] if made["kind"] == "NetworkPolicy" else ():
            assert [each["port"] for each in rule["ports"]] == [port["name"]]
    for monitor in (made for made in overlay(name) if made["kind"] == "ServiceMonitor"):
        (scraped,) = monitor["spec"]["endpoints"]
        assert scraped["path"] in routes
        assert (scraped["port"], scraped["path"]) == (served["name"], "/metrics")
        labels = one(name, "Service")["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert labels[monitor["spec"]["jobLabel"]] == "usage-metering"  # the job of alerts and dashboards
        token = next(each for each in container(name)["env"] if each["name"] == "METRICS_TOKEN")
        assert scraped["authorization"] == {"type": "Bearer", "credentials": token["valueFrom"]["secretKeyRef"]}


def test_production_is_scraped_and_has_three_replicas_of_a_release() -> None:
    assert one("production", "ServiceMonitor")["apiVersion"] == "monitoring.coreos.com/v1"
    assert len(one("production", "NetworkPolicy")["spec"]["ingress"]) == 2
    assert one("production", "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3
    assert container("production")["image"].endswith(f":{release()}")


def release() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text.partition('\nversion = "')[2].partition('"')[0]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_may_do_no_more_than_it_needs(name: str) -> None:
    own = container(name)["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    whole = pod(name)["securityContext"]
    assert (whole["runAsNonRoot"], whole["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert f"USER {whole['runAsUser']}:{whole['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    assert not pod(name)["automountServiceAccountToken"]
    writable = {each["mountPath"] for each in container(name)["volumeMounts"]}
    assert writable == {"/data", "/tmp"}
    assert {each["name"] for each in pod(name)["volumes"] if "emptyDir" in each} == {"data", "tmp"}, "nothing stays"
    labels = one(name, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
