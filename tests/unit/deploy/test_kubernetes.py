"""deploy/kuberay/ is what Kubernetes and KubeRay ask for, and what docs/cluster.md promises of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sftlab.studies.load import load_runtime

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kuberay"
RUNTIMES = sorted((ROOT / "jobs" / "configs" / "runtimes").glob("*h100*.yaml"))
KUBERAY = json.loads((Path(__file__).parent / "kuberay-v1.7.0.json").read_text())
KUBERNETES = ("1.31", "1.37")
Document = dict[str, Any]


def documents() -> list[Document]:
    return [d for file in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text())]


def the(kind: str) -> Document:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def pods(document: Document) -> Iterator[tuple[str, Document]]:
    """Name and spec of every pod that KubeRay makes of a document."""
    spec = document.get("spec", {})
    if document["kind"] == "RayCluster":
        yield "head", spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield group["groupName"], group["template"]["spec"]
    if document["kind"] == "RayJob":
        yield "submitter", spec["submitterPodTemplate"]["spec"]


def validate(document: Document) -> None:
    """By KubeRay's schema and its pods by Kubernetes', or by Kubernetes' alone; unknown fields are errors."""
    if document["apiVersion"] != "ray.io/v1":
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
        return
    jsonschema.validate(document, KUBERAY | {"oneOf": [{"$ref": f"#/$defs/{document['kind']}"}]})
    for name, spec in pods(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        for version in KUBERNETES:
            kubernetes_validate.validate(pod, version, strict=True)


def weaknesses(document: Document) -> list[str]:
    """What the "restricted" pod security standard, or this project, does not allow in a document's pods."""
    found = []
    for name, pod in pods(document):
        if pod.get("automountServiceAccountToken") is not False:
            found.append(f"{name}: a token of the API server in every container")
        rights = pod.get("securityContext", {})
        if rights.get("runAsNonRoot") is not True or rights.get("runAsUser") == 0:
            found.append(f"{name}: may run as root")
        if rights.get("seccompProfile") != {"type": "RuntimeDefault"}:
            found.append(f"{name}: no seccomp profile")
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            found.append(f"{name}: shares the host's namespaces")
        found += [f"{name}: {fault}" for c in pod["containers"] for fault in container_weaknesses(c)]
    return found


def container_weaknesses(container: Document) -> Iterator[str]:
    rights = container.get("securityContext", {})
    if rights.get("allowPrivilegeEscalation") is not False or rights.get("privileged"):
        yield "may gain privileges"
    if rights.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if not re.search(r":[^/:]+$", container["image"]) or container["image"].endswith(":latest"):
        yield "an image without a version"
    for entry in container.get("env", []):
        if re.search("TOKEN|PASSWORD|SECRET|_KEY", entry["name"]) and "value" in entry:
            yield f"{entry['name']} in plain text"
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= container.get("resources", {}).get(kind, {}).keys():
            yield f"no {kind}"
    if container["name"].startswith("ray-"):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"no {probe}"


@pytest.mark.parametrize("document", documents(), ids=lambda d: d["kind"])
def test_every_document_passes_the_schemas_and_the_pods_have_no_more_rights_than_needed(
    document: Document,
) -> None:
    validate(document)
    assert weaknesses(document) == []
    namespace = document["metadata"].get("namespace")
    assert namespace == (None if document["kind"] == "Namespace" else "sftlab")


def put(*path: str | int, value: Any) -> Callable[[Document], None]:
    """Writes `value` at a path of a document."""

    def change(document: Document) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


HEAD = ("spec", "headGroupSpec", "template", "spec")
WORKER = ("spec", "workerGroupSpecs", 0, "template", "spec")
SUBMITTER = ("spec", "submitterPodTemplate", "spec")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("RayCluster", put("spec", "headGroupSpecs", value={})),
        ("RayCluster", put("spec", "authOptions", "mode", value="tokens")),
        ("RayCluster", put("spec", "authOptions", "secret", value="x")),
        ("RayCluster", put("spec", "workerGroupSpecs", 0, "maxReplicas", value="4")),
        ("RayCluster", put("spec", "autoscalerOptions", "idleTimeout", value=900)),
        ("RayCluster", put(*HEAD, "container", value=[])),
        ("RayCluster", put(*HEAD, "containers", 0, "readinessProbe", "httpGet", "prot", value=1)),
        ("RayCluster", put(*WORKER, "containers", 0, "resources", "limits", value=8)),
        ("RayJob", put("spec", "submissionMode", value=3)),
        ("RayJob", put("spec", "entryPoint", value="python x.py")),
        ("RayJob", put(*SUBMITTER, "containers", 0, "image", value=7)),
        ("NetworkPolicy", put("spec", "policyType", value=["Ingress"])),
        ("PersistentVolumeClaim", put("spec", "accessModes", value="ReadWriteMany")),
    ],
)
def test_a_document_with_a_mistake_does_not_pass(kind: str, change: Callable[[Document], None]) -> None:
    broken = copy.deepcopy(the(kind))
    change(broken)
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("RayCluster", put(*HEAD, "automountServiceAccountToken", value=True), "token of the API"),
        ("RayCluster", put(*HEAD, "securityContext", "runAsUser", value=0), "root"),
        ("RayCluster", put(*HEAD, "containers", 0, "image", value="sftlab:latest"), "version"),
        ("RayCluster", put(*WORKER, "securityContext", value={}), "seccomp"),
        ("RayCluster", put(*WORKER, "hostNetwork", value=True), "host"),
        ("RayCluster", put(*WORKER, "containers", 0, "securityContext", value={}), "capabilities"),
        ("RayCluster", put(*WORKER, "containers", 0, "resources", "limits", value={"cpu": 1}), "limits"),
        (
            "RayCluster",
            put(*WORKER, "containers", 0, "env", value=[{"name": "RAY_AUTH_TOKEN", "value": "x"}]),
            "plain text",
        ),
        ("RayJob", put(*SUBMITTER, "containers", 0, "securityContext", value={}), "privileges"),
    ],
)
def test_a_pod_with_more_rights_is_found(kind: str, change: Callable[[Document], None], fault: str) -> None:
    broken = copy.deepcopy(the(kind))
    change(broken)
    assert any(fault in found for found in weaknesses(broken))


def test_the_cluster_asks_for_a_token_from_a_secret_that_no_file_holds() -> None:
    spec = the("RayCluster")["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "sftlab-ray-token"}
    assert "Secret" not in {document["kind"] for document in documents()}
    # The autoscaler alone gets the API server's token: by the volume that its options mount.
    (mount,) = spec["autoscalerOptions"]["volumeMounts"]
    users = [c["name"] for _, pod in pods(the("RayCluster")) for c in pod["containers"]
             if mount["name"] in {m["name"] for m in c["volumeMounts"]}]  # fmt: skip
    assert users == [] and mount["name"] in {
        v["name"] for v in dict(pods(the("RayCluster")))["head"]["volumes"]
    }


def test_the_network_policy_covers_the_cluster_and_lets_in_what_must_come_in() -> None:
    policy, name = the("NetworkPolicy")["spec"], the("RayCluster")["metadata"]["name"]
    assert policy["podSelector"] == {"matchLabels": {"ray.io/cluster": name}}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    own, dashboard = policy["ingress"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [port["port"] for port in dashboard["ports"]] == [8265]
    assert all(rule.get("from") for rule in policy["ingress"])  # a rule without it would let everybody in
    assert the("RayJob")["spec"]["clusterSelector"] == {"ray.io/cluster": name}


def test_the_pod_that_submits_a_job_is_one_that_the_network_policy_lets_in() -> None:
    labels = the("RayJob")["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    admitted = [
        peer["podSelector"]["matchLabels"]
        for rule in the("NetworkPolicy")["spec"]["ingress"]
        if 8265 in [port["port"] for port in rule.get("ports", [])]
        for peer in rule["from"]
        if "namespaceSelector" not in peer
    ]
    assert any(wanted.items() <= labels.items() for wanted in admitted)


def test_lines_to_be_filled_in_are_sound_once_they_stand() -> None:
    policy = (FOLDER / "network-policy.yaml").read_text()
    (filled,) = yaml.safe_load_all(re.sub(r"(?m)^    # (- to:|  )", r"    \1", policy))
    assert len(filled["spec"]["egress"]) == len(the("NetworkPolicy")["spec"]["egress"]) + 1
    validate(filled)
    cluster = (FOLDER / "cluster.yaml").read_text().replace("emptyDir: {}\n", "\n")
    (filled,) = yaml.safe_load_all(re.sub(r"(?m)^( +)# (ephemeral:|  )", r"\1\2", cluster))
    volumes = [volume for _, pod in pods(filled) for volume in pod["volumes"] if volume["name"] == "mirror"]
    assert len(volumes) == 2 and all("ephemeral" in volume for volume in volumes)
    spec = {"containers": [{"name": "x", "image": "x:1"}], "volumes": volumes}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES[-1], strict=True)


def test_nodes_share_one_folder_and_the_job_reads_and_writes_there_alone() -> None:
    claim = the("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for _, pod in pods(the("RayCluster")):
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod[
            "volumes"
        ]
        mounts = pod["containers"][0]["volumeMounts"]
        assert mounts == [{"name": name, "mountPath": f"/{name}"} for name in ("shared", "mirror")]
    command = the("RayJob")["spec"]["entrypoint"].split()
    for word in command[1:]:
        path = word.rpartition("=")[2]
        if path.startswith("/opt/sftlab/"):
            assert (ROOT / path.removeprefix("/opt/sftlab/")).is_file()
        elif not word.startswith("--") and word != "runtime.track=false":
            assert path.startswith("/shared/")


@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_every_shipped_gpu_runtime_fits_on_the_worker_group(path: Path) -> None:
    (group,) = the("RayCluster")["spec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    runtime = load_runtime(path)
    assert sum(b["GPU"] for b in runtime.most_bundles) <= group["maxReplicas"] * limits["nvidia.com/gpu"]
    cpus = runtime.training.cpus_per_worker * limits["nvidia.com/gpu"] / runtime.training.gpus_per_worker
    assert cpus <= int(limits["cpu"])
    head = the("RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]
    assert "nvidia.com/gpu" not in head["limits"]
