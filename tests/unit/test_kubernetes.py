"""The manifests are what a cluster takes, by the schemas of its API, and keep our promises."""

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from abaco_proto import permissions, settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "kubernetes"
KUSTOMIZATION = FOLDER / "kustomization.yaml"
NO_MANIFESTS = {"kustomization.yaml", "nats-values.yaml"}
MANIFESTS = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name not in NO_MANIFESTS)
VERSIONS = ("1.29", "1.34")
"""The oldest and the newest whose schemas we check against."""

Json = dict[str, Any]


def objects(name: str) -> list[Json]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def every_object() -> list[Json]:
    return [one for name in MANIFESTS for one in objects(name)]


def pod_specs() -> dict[str, Json]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in every_object()
        if "template" in one.get("spec", {})
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_cluster_takes_it(name: str, version: str) -> None:
    for one in objects(name):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    [service] = [one for one in objects("api.yaml") if one["kind"] == "Service"]
    service["spec"]["slector"] = service["spec"].pop("selector")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


def test_all_of_it_is_applied_but_what_is_optional() -> None:
    resources = yaml.safe_load(KUSTOMIZATION.read_text())["resources"]
    assert {*resources} == {*MANIFESTS} - {"api-scaling.yaml"}


def test_selectors_select_and_policies_know_whom_they_mean() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in every_object()
        if "template" in one.get("spec", {})
    ]
    labels.append({"app.kubernetes.io/name": "nats"})  # the chart's
    for selector in selectors(every_object()):
        assert any(selector.items() <= each.items() for each in labels), selector


def selectors(node: object) -> list[Json]:
    """All ``matchLabels``, and what a Service selects, wherever they stand."""
    if isinstance(node, list):
        return [found for each in node for found in selectors(each)]
    if not isinstance(node, dict):
        return []
    found = [node["matchLabels"]] if "matchLabels" in node else []
    if node.get("kind") == "Service":
        found.append(node["spec"]["selector"])
    return found + selectors(list(node.values()))


def test_every_pod_is_confined() -> None:
    for name, spec in pod_specs().items():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsNonRoot", False) == (name != "worker")
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            assert container["readinessProbe"]


def test_what_is_mounted_is_there() -> None:
    for spec in pod_specs().values():
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_every_setting_is_one() -> None:
    names = {name for one in objects("settings.yaml") for name in one["data"]}
    for spec in pod_specs().values():
        names |= {each["name"] for container in spec["containers"] for each in container["env"]}
    ours = {name.removesuffix(settings.FROM_FILE) for name in names if name.startswith("ABACO_")}
    assert ours <= settings.NAMES


def test_every_secret_that_is_named_is_made(tmp_path: Path) -> None:
    named = {*re.findall(r"secretName: ([\w-]+)", "\n".join(map(text, MANIFESTS)))}
    named |= {*re.findall(r"secretKeyRef: {name: ([\w-]+)", text("nats-values.yaml"))}
    command = [str(FOLDER / "make-secrets"), str(tmp_path / "secrets"), "postgresql://a:b@db/c"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    made = {one["metadata"]["name"]: one for one in yaml.safe_load_all(printed.stdout)}
    assert {*made} == named
    for secret in made.values():
        kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)
    keys = {f"{user.upper()}_PASSWORD" for user in permissions.users()}
    assert {*made["abaco-nats-passwords"]["stringData"]} == keys


def test_the_log_is_on_three_disks_when_it_says_so() -> None:
    chart = yaml.safe_load(text("nats-values.yaml"))
    assert chart["config"]["cluster"] == {"enabled": True, "replicas": 3}
    assert chart["config"]["jetstream"]["merge"]["sync_interval"] == "always"
    [configured] = objects("settings.yaml")
    assert configured["data"]["ABACO_NATS_REPLICAS"] == "3"
    users = [user["user"] for user in chart["config"]["merge"]["authorization"]["users"]]
    assert users == [*permissions.users()]


def text(name: str) -> str:
    return (FOLDER / name).read_text()
