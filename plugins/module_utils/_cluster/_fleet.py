# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Everything the cluster knows about its GPUs, from one read, and who uses them.

:func:`observe` asks, everything else takes what it got: lists of plain API objects.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import gzip
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _installs, _operands, _paused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, annotations_of, labels, owner

VMIS = "/apis/kubevirt.io/v1/virtualmachineinstances"
KUBEVIRTS = "/apis/kubevirt.io/v1/kubevirts"
POLICIES = "/apis/nvidia.com/v1/clusterpolicies"


class Client(t.Protocol):
    """The part of the cluster client that reading needs."""

    server: str

    def get(self, path: str, query: dict[str, str] | None = None) -> Object: ...

    def list(self, path: str, query: dict[str, str] | None = None) -> list[Object]: ...


def list_if_served(client: Client, path: str, query: dict[str, str] | None = None) -> list[Object] | None:
    """A LIST, or None if the API server does not know the resource (its CRD is not installed)."""
    try:
        return client.list(path, query)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


# ------------------------------------------------------------------ who uses what


@dataclasses.dataclass(frozen=True)
class Use:
    """One pod or virtual machine instance that holds devices of a node."""

    node: str
    namespace: str
    pod: str | None
    vmi: str | None
    resources: dict[str, int]

    @property
    def who(self) -> str:
        return f"VM {self.namespace}/{self.vmi}" if self.vmi else f"pod {self.namespace}/{self.pod}"


def limits(pod: t.Mapping[str, t.Any], prefix: str = _operands.RESOURCE_PREFIX) -> dict[str, int]:
    """Extended resources that a pod holds: the sum over its containers, or one init container's if that is more."""
    spec = pod.get("spec") or {}

    def of(container: t.Mapping[str, t.Any]) -> dict[str, int]:
        given = container.get("resources") or {}
        found = {**(given.get("requests") or {}), **(given.get("limits") or {})}
        return {key: _operands.count(value) for key, value in found.items() if key.startswith(prefix)}

    held: dict[str, int] = {}
    for container in spec.get("containers") or []:
        for key, value in of(container).items():
            held[key] = held.get(key, 0) + value
    for container in spec.get("initContainers") or []:
        for key, value in of(container).items():
            held[key] = max(held.get(key, 0), value)
    return {key: held[key] for key in sorted(held) if held[key]}


def vmi_of(pod: t.Mapping[str, t.Any]) -> str | None:
    """The virtual machine instance that a virt-launcher pod runs, or None if it is another kind of pod."""
    if labels(pod).get("kubevirt.io") != "virt-launcher":
        return None
    return annotations_of(pod).get("kubevirt.io/domain") or labels(pod).get("vm.kubevirt.io/name")


def devices_of(vmi: t.Mapping[str, t.Any]) -> dict[str, int]:
    """Devices that a virtual machine instance asks for, by resource name; of resource claims, ``claim <name>``."""
    devices = ((vmi.get("spec") or {}).get("domain") or {}).get("devices") or {}
    asked: dict[str, int] = {}
    for kind in ("gpus", "hostDevices"):
        for entry in devices.get(kind) or []:
            name = entry.get("deviceName")
            if name is None and entry.get("claimName"):
                name = f"claim {entry['claimName']}"
            # A host device of another vendor is nothing that the operator could take away.
            if name is None or (kind == "hostDevices" and not name.startswith((_operands.RESOURCE_PREFIX, "claim "))):
                continue
            asked[name] = asked.get(name, 0) + 1
    return asked


def uses(pods: t.Iterable[Object], vmis: t.Iterable[Object]) -> list[Use]:
    """Who holds GPU devices of which node: by pods (authoritative for allocation), and by VMs that no pod shows.

    Migration targets and VMs that are still being scheduled are among the pods.
    """
    found: list[Use] = []
    seen: set[tuple[str, str, str | None]] = set()
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node or _operands.terminal(pod):
            continue
        held = limits(pod)
        if held:
            metadata = pod["metadata"]
            use = Use(node, metadata.get("namespace", ""), metadata["name"], vmi_of(pod), held)
            seen.add((node, use.namespace, use.vmi))
            found.append(use)
    for vmi in vmis:
        status, metadata = vmi.get("status") or {}, vmi["metadata"]
        node = status.get("nodeName") or labels(vmi).get("kubevirt.io/nodeName")
        if not node or status.get("phase") in ("Succeeded", "Failed"):
            continue
        asked = devices_of(vmi)
        if asked and (node, metadata.get("namespace", ""), metadata["name"]) not in seen:
            found.append(Use(node, metadata.get("namespace", ""), None, metadata["name"], asked))
    return sorted(found, key=lambda use: (use.node, use.namespace, use.pod or "", use.vmi or ""))


# ------------------------------------------------------------------ Helm's own record


def decode_release(secret: t.Mapping[str, t.Any]) -> Object:
    """What Helm keeps of a release in a Secret of type ``helm.sh/release.v1``: base64 twice (Helm's and the Secret's) of gzipped JSON.

    Raises ValueError if it is none.
    """
    try:
        packed = base64.b64decode(base64.b64decode((secret.get("data") or {})["release"], validate=True), validate=True)
        found = json.loads(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed)
    except (KeyError, TypeError, EOFError, OSError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        name = (secret.get("metadata") or {}).get("name")
        raise ValueError(f"Secret {name} is no Helm release that this module can read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise ValueError(f"Secret {(secret.get('metadata') or {}).get('name')} is no Helm release: it holds a {type(found).__name__}")
    return found


def newest_release(secrets: t.Iterable[Object]) -> Object | None:
    """The Secret of the newest revision of a release, by Helm's own labels."""
    own = [s for s in secrets if labels(s).get("owner") == "helm" and labels(s).get("version", "").isdigit()]
    return max(own, key=lambda s: int(labels(s)["version"]), default=None)


def release_of(secrets: t.Iterable[Object]) -> Object | None:
    """Name, namespace, chart, version, status and given values of a release; None if there is none or it was uninstalled."""
    secret = newest_release(secrets)
    if secret is None or labels(secret).get("status") == "uninstalled":
        return None
    content = decode_release(secret)
    chart = (content.get("chart") or {}).get("metadata") or {}
    return {
        "name": content.get("name") or labels(secret).get("name"),
        "namespace": content.get("namespace") or secret["metadata"].get("namespace"),
        "chart": chart.get("name"),
        "version": chart.get("version"),
        "app_version": chart.get("appVersion"),
        "revision": int(labels(secret)["version"]),
        "status": labels(secret).get("status"),
        "values": content.get("config") or {},
    }


# ------------------------------------------------------------------ the one read


@dataclasses.dataclass
class Observed:
    """Plain API objects as they were read; ``vmis``, ``kubevirts`` and ``policies`` are None where the CRD is absent."""

    server: str
    uid: str | None
    version: str | None
    nodes: list[Object]
    pods: list[Object]
    vmis: list[Object] | None
    kubevirts: list[Object] | None
    policies: list[Object] | None
    releases: list[Object]
    installs: _installs.Installs


def observe(client: Client, release: str, namespace: str) -> Observed:
    """Read the cluster. ``release`` and ``namespace``: where the GPU Operator is looked for if neither ClusterPolicy nor Deployment tells."""
    policies = list_if_served(client, POLICIES)
    deployments = list_if_served(client, _installs.DEPLOYMENTS, _installs.NAMED) or []
    release, namespace = _installs.release_named([*(policies or []), *deployments]) or (release, namespace)
    return Observed(
        server=client.server,
        version=client.get("/version").get("gitVersion"),
        uid=client.get("/api/v1/namespaces/kube-system")["metadata"].get("uid"),
        nodes=client.list("/api/v1/nodes"),
        pods=client.list("/api/v1/pods"),
        vmis=list_if_served(client, VMIS),
        kubevirts=list_if_served(client, KUBEVIRTS),
        policies=policies,
        releases=client.list(
            f"/api/v1/namespaces/{namespace}/secrets",
            {"labelSelector": f"owner=helm,name={release}", "fieldSelector": "type=helm.sh/release.v1"},
        ),
        installs=_installs.Installs(
            deployments=deployments,
            drivers=list_if_served(client, _installs.DRIVERS),
            gpu_clusters=list_if_served(client, _installs.GPU_CLUSTERS),
            subscriptions=list_if_served(client, _installs.SUBSCRIPTIONS),
            openshift=list_if_served(client, _installs.OPENSHIFT) is not None,
        ),
    )


def _condition(item: t.Mapping[str, t.Any], kind: str) -> Object:
    found = ((item.get("status") or {}).get("conditions")) or []
    return next((c for c in found if c.get("type") == kind), {})


def policy_of(policies: t.Iterable[Object] | None) -> Object | None:
    """What matters of the ClusterPolicy; of several, the oldest, as the operator does. None if there is none."""
    by_age = sorted(policies or [], key=lambda p: (p["metadata"].get("creationTimestamp") or "", p["metadata"]["name"]))
    if not by_age:
        return None
    policy = by_age[0]
    spec, ready = policy.get("spec") or {}, _condition(policy, "Ready")
    sandbox = spec.get("sandboxWorkloads") or {}
    return {
        "name": policy["metadata"]["name"],
        "state": (policy.get("status") or {}).get("state"),
        "ready": ready.get("status") == "True",
        "reason": ready.get("reason"),
        "message": ready.get("message"),
        "sandbox_enabled": bool(sandbox.get("enabled")),
        "default_workload": sandbox.get("defaultWorkload") or "container",
        "update_strategy": (spec.get("daemonsets") or {}).get("updateStrategy") or "RollingUpdate",
        "vgpu_config": ((spec.get("vgpuDeviceManager") or {}).get("config")) or {},
        "driver_crd": bool((spec.get("driver") or {}).get("useNvidiaDriverCRD")),
        "operands": _installs.switches_of(policy),
    }


#: Where another tool that writes the KubeVirt object leaves its name: key prefix of a label or an annotation -> tool.
_WRITERS = {
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "helm.toolkit.fluxcd.io/": "Flux",
    "olm.owner": "OLM",
}


def writer_of(item: t.Mapping[str, t.Any]) -> str | None:
    """Who else writes an object: ``HyperConverged <name>``, ``Argo CD``, ``Flux`` or ``OLM``; None if nobody shows."""
    for reference in (item.get("metadata") or {}).get("ownerReferences") or []:
        if reference.get("kind") == "HyperConverged":
            return f"HyperConverged {reference.get('name')}"
    keys = [*labels(item), *annotations_of(item)]
    return next((tool for prefix, tool in _WRITERS.items() if any(key.startswith(prefix) for key in keys)), None)


def kubevirt_of(kubevirts: t.Iterable[Object] | None) -> Object | None:
    """What matters of the KubeVirt object; None if there is none. ``permitted`` None means: no allow list, all is allowed."""
    found = sorted(kubevirts or [], key=lambda k: (k["metadata"].get("namespace", ""), k["metadata"]["name"]))
    if not found:
        return None
    kubevirt = found[0]
    configuration = (kubevirt.get("spec") or {}).get("configuration") or {}
    status = kubevirt.get("status") or {}
    return {
        "namespace": kubevirt["metadata"].get("namespace"),
        "name": kubevirt["metadata"]["name"],
        "version": status.get("observedKubeVirtVersion"),
        "phase": status.get("phase"),
        "permitted": configuration.get("permittedHostDevices"),
        "feature_gates": (configuration.get("developerConfiguration") or {}).get("featureGates") or [],
        "owner": writer_of(kubevirt),
    }


def _shown_labels(node: t.Mapping[str, t.Any]) -> dict[str, str]:
    own = labels(node)
    return {k: own[k] for k in sorted(own) if k.startswith(_operands.RESOURCE_PREFIX) or k in _operands.NFD_GPU}


def _node(node: Object, pods: list[Object], held: list[Use]) -> Object:
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    advertised = _operands.resources(node)
    used: dict[str, list[Object]] = {}
    for use in held:
        for resource, count in use.resources.items():
            used.setdefault(resource, []).append({"namespace": use.namespace, "pod": use.pod, "vmi": use.vmi, "count": count})
    running = [pod for pod in pods if not _operands.terminal(pod)]
    return {
        "name": metadata["name"],
        "boot_id": (status.get("nodeInfo") or {}).get("bootID"),
        "ready": _condition(node, "Ready").get("status") == "True",
        "schedulable": not spec.get("unschedulable"),
        "taints": [{key: taint[key] for key in ("key", "value", "effect") if taint.get(key)} for taint in spec.get("taints") or []],
        "gpu": _operands.gpu_evidence(node),
        "labels": _shown_labels(node),
        "annotations": {k: v for k, v in sorted(annotations_of(node).items()) if k.startswith(_operands.ANNOTATION_PREFIX)},
        "workload": labels(node).get(_operands.WORKLOAD),
        "operands": sorted({app for app in map(_operands.app_of_pod, running) if app}),
        "at_work": _paused.at_work(node, running),
        "allocatable": {name: count for name, count in advertised.items() if count},
        "withdrawn": [name for name, count in advertised.items() if not count],
        "used": {name: used[name] for name in sorted(used)},
        "pods": sorted(
            (
                {
                    "namespace": pod["metadata"].get("namespace"),
                    "name": pod["metadata"]["name"],
                    "kind": owner(pod).get("kind"),
                    "phase": (pod.get("status") or {}).get("phase"),
                }
                for pod in running
                # A static pod's mirror has the Node as its owner: the kubelet's own, it comes back with the machine.
                if owner(pod).get("kind") not in ("DaemonSet", "Node")
            ),
            key=lambda entry: (str(entry["namespace"]), str(entry["name"])),
        ),
    }


def possible(nodes: t.Iterable[t.Mapping[str, t.Any]], release: t.Mapping[str, t.Any] | None) -> list[str]:
    """Nodes that have a GPU or may have one. NFD comes with the operator: before the first install, silence proves nothing."""
    return [node["name"] for node in nodes if node["gpu"] or (node["gpu"] is None and release is None)]


def node_facts(nodes: t.Iterable[Object], pods: t.Sequence[Object], vmis: t.Iterable[Object]) -> list[Object]:
    """The entries of ``nodes`` in the result of ``gpu_fleet_info``, by name."""
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        by_node.setdefault((pod.get("spec") or {}).get("nodeName") or "", []).append(pod)
    held: dict[str, list[Use]] = {}
    for use in uses(pods, vmis):
        held.setdefault(use.node, []).append(use)
    found = [_node(node, by_node.get(node["metadata"]["name"], []), held.get(node["metadata"]["name"], [])) for node in nodes]
    return sorted(found, key=lambda node: str(node["name"]))


def summary(seen: Observed) -> Object:
    """The result of ``gpu_fleet_info`` from what was read. Raises ValueError if Helm's record cannot be read."""
    nodes = node_facts(seen.nodes, seen.pods, seen.vmis or [])
    release = release_of(seen.releases)
    return {
        "cluster": {"server": seen.server, "uid": seen.uid, "version": seen.version},
        "nodes": nodes,
        "cluster_policy": policy_of(seen.policies),
        "release": release,
        "operator": _installs.installs_of(seen.installs, seen.policies or [], seen.vmis or []),
        "kubevirt": kubevirt_of(seen.kubevirts),
        "possible_gpu_nodes": possible(nodes, release),
    }
