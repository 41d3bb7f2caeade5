# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The vGPU Device Manager's ConfigMap, and which device managers have to start anew for it. Pure.

The device manager reads its configuration when the label ``nvidia.com/vgpu.config`` of its node changes and at its start, and at no other time:
an edited ConfigMap, and a change that failed, wait until its pod is replaced. It removes vGPUs without asking who uses them. Sources:
NVIDIA/vgpu-device-manager v0.5.0, cmd/nvidia-k8s-vgpu-dm/main.go; NVIDIA/gpu-operator, assets/state-vgpu-device-manager/0600_daemonset.yaml.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._fleet import Use
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, annotations_of, labels

Configs = t.Mapping[str, t.Any]

KEY = "config.yaml"
#: The ConfigMap that the operator writes and mounts where no other is named.
STOCK = "default-vgpu-devices-config"
#: What a device manager makes on a node without the label (DEFAULT_VGPU_CONFIG, the chart's vgpuDeviceManager.config.default).
DEFAULT = "default"
_VOLUME = "vgpu-config"
_MANAGED, _BY = "app.kubernetes.io/managed-by", "gpufleet.kubevirt"
#: On a Node: the profile and a mark of its content that its device manager was started or labelled for.
APPLIED = _operands.ANNOTATION_PREFIX + "vgpu-config"
_REMEDY = "Stop or move them and run again"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is wanted: ``config_map`` by name (empty: the stock one, which is the operator's), with this ``text`` (None: somebody else's,
    used as it is) and its ``configs``; the ``profiles`` by node. ``keep``: entries of it that stay though the text has them not: ``nothing``,
    those that a node's label names (``used``), or ``all``. ``relabelled``: nodes whose label this run has changed. ``fresh``: this run has
    changed the ConfigMap, and what a pod has mounted may be older."""

    config_map: str
    profiles: t.Mapping[str, str]
    text: str | None = None
    configs: Configs | None = None
    keep: str = "nothing"
    relabelled: frozenset[str] = frozenset()
    fresh: bool = False

    @property
    def mounted(self) -> str:
        return self.config_map or STOCK


@dataclasses.dataclass(frozen=True)
class Seen:
    """``config_map`` as an object or None, and its ``configs``; ``nodes`` by name; ``managers``: node -> its device manager's pod."""

    config_map: Object | None = None
    configs: Configs | None = None
    nodes: t.Mapping[str, Object] = dataclasses.field(default_factory=dict)
    managers: t.Mapping[str, Object] = dataclasses.field(default_factory=dict)
    uses: tuple[Use, ...] = ()


def mounts(spec: t.Mapping[str, t.Any]) -> str | None:
    """The ConfigMap that a pod's spec mounts as the configuration."""
    for volume in spec.get("volumes") or []:
        if volume.get("name") == _VOLUME:
            return (volume.get("configMap") or {}).get("name")
    return None


def managers(pods: t.Iterable[Object]) -> dict[str, Object]:
    """Node -> its device manager's pod. One that is on its way out counts only if there is no other."""
    found: dict[str, Object] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node or _operands.operand_of_pod(pod) != "vgpu-device-manager" or _operands.terminal(pod):
            continue
        if node not in found or found[node]["metadata"].get("deletionTimestamp"):
            found[node] = pod
    return found


def mark(entries: t.Any) -> str:
    """A mark of the content of one configuration."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:10]


def users(uses: t.Iterable[Use], node: str) -> list[str]:
    """The VMs that hold devices of a node."""
    return sorted({use.who for use in uses if use.node == node and use.vmi})


# ------------------------------------------------------------------ the ConfigMap


def wanted_configs(request: Request, seen: Seen) -> tuple[dict[str, t.Any], list[Blocker]]:
    """The configurations that the ConfigMap has in the end."""
    target = f"ConfigMap {request.mounted}"
    present = dict(seen.configs or {})
    if request.configs is None:
        if seen.config_map is None:
            return {}, [Blocker(target, "there is none", f"Create it with the key {KEY}, or give the configuration as a file")]
        if seen.configs is None:
            return {}, [Blocker(target, f"its key {KEY} is no configuration of the vGPU Device Manager", "Correct it")]
        return present, []
    used = {labels(node).get(_operands.VGPU_CONFIG, DEFAULT if name in seen.managers else None) for name, node in seen.nodes.items()}
    kept = {name: entries for name, entries in present.items() if request.keep == "all" or (request.keep == "used" and name in used)}
    other = sorted(name for name in kept if name in request.configs and request.configs[name] != kept[name])
    if request.keep == "all" and other:
        problem = f"it has {', '.join(other)} with another content, and a run of a part of the fleet only adds to it"
        return present, [Blocker(target, problem, "Run once without --limit and with all hosts")]
    return {**kept, **request.configs}, []


def write(request: Request, seen: Seen, configs: Configs, dump: t.Callable[[t.Any], str]) -> tuple[str | None, list[Blocker]]:
    """The text that is to be written, None if it stands there already or is not ours to write."""
    if request.text is None:
        return None, []
    if seen.config_map is not None and labels(seen.config_map).get(_MANAGED) != _BY:
        problem = f"it is there and not this collection's (no label {_MANAGED}={_BY})"
        return None, [Blocker(f"ConfigMap {request.mounted}", problem, "Remove it, or use it as it is with gpufleet_vgpu_config_name")]
    text = request.text if configs == request.configs else dump({"version": "v1", "vgpu-configs": dict(sorted(configs.items()))})
    now = ((seen.config_map or {}).get("data") or {}).get(KEY)
    # Where entries were only added to, the order in which they stand is no difference.
    same = now == text or (configs != request.configs and configs == seen.configs)
    return (None, []) if same else (text, [])


def body(request: Request, namespace: str, text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": request.mounted, "namespace": namespace, "labels": {_MANAGED: _BY}},
        "data": {KEY: text},
    }


def _unknown(request: Request, configs: Configs) -> list[Blocker]:
    found = []
    for node, profile in sorted(request.profiles.items()):
        if profile not in configs:
            near = ", ".join(difflib.get_close_matches(profile, sorted(configs), n=4) or sorted(configs)[:6])
            found.append(Blocker(f"node {node}", f"ConfigMap {request.mounted} has no profile {profile!r}", f"Nearest: {near or 'none'}"))
    return found


def _harmed(request: Request, seen: Seen, configs: Configs) -> list[Blocker]:
    """VMs whose vGPUs the new content would cost them: at the next start of their node's device manager, whoever causes it."""
    found = []
    for name, node in sorted(seen.nodes.items()):
        names = users(seen.uses, name) if name in seen.managers else []
        if not names:
            continue
        profile = labels(node).get(_operands.VGPU_CONFIG, DEFAULT)
        before = (seen.configs or {}).get(profile)
        pod = seen.managers[name]
        mounted = mounts(pod["spec"])
        if before is not None and mounted == request.mounted and configs.get(profile) != before:
            problem = f"its profile {profile} would become another, and {', '.join(names)} use{'s' if len(names) == 1 else ''} its vGPUs"
        elif name in request.profiles and mounted and mounted != request.mounted:
            problem = (
                f"its device manager reads ConfigMap {mounted} and has to be restarted to read {request.mounted}, and {', '.join(names)} "
                f"use{'s' if len(names) == 1 else ''} its vGPUs"
            )
        else:
            continue
        found.append(Blocker(f"node {name}", problem, _REMEDY))
    return found


def plan_config(request: Request, seen: Seen, dump: t.Callable[[t.Any], str]) -> tuple[Plan, str | None]:
    """What to do to the ConfigMap, and the text to write. One problem stops all of it: the ConfigMap is every node's."""
    configs, blockers = wanted_configs(request, seen)
    if not blockers:
        blockers = _unknown(request, configs) + _harmed(request, seen, configs)
    if blockers:
        return Plan(blockers=blockers), None
    text, blockers = write(request, seen, configs, dump)
    plan = Plan(blockers=blockers)
    if text is not None:
        before = None if seen.config_map is None else {KEY: (seen.config_map.get("data") or {}).get(KEY)}
        reason = "there is none" if before is None else "its content differs"
        plan.changes.append(Change(f"ConfigMap {request.mounted}", "update" if before else "create", before, {KEY: text}, reason))
    return plan, text


# ------------------------------------------------------------------ the device managers


def note(request: Request, configs: Configs, node: str) -> str | None:
    """What the node's annotation has to say; None for the stock configuration, whose content is the operator's."""
    profile = request.profiles[node]
    return f"{profile} {mark(configs.get(profile))}" if request.config_map else None


def restart_reason(request: Request, seen: Seen, configs: Configs, node: str) -> str | None:
    """Why the node's device manager has to start anew, or None: what it does with the label by itself is enough, or nothing is to be done."""
    pod = seen.managers.get(node)
    if pod is None:
        return None  # it will read what is there when it starts
    mounted = mounts(pod["spec"])
    if mounted and mounted != request.mounted:
        return f"it reads ConfigMap {mounted}, not {request.mounted}"
    own = labels(seen.nodes[node])
    profile = request.profiles[node]
    if request.config_map:
        said = annotations_of(seen.nodes[node]).get(APPLIED)
        now = note(request, configs, node)
        if said != now and said is not None and said.split(" ")[0] == profile:
            return f"the content of {profile} in ConfigMap {request.mounted} has changed"
        if said != now and request.fresh:
            return f"ConfigMap {request.mounted} has just changed, and what it has mounted may be older"
    if own.get(_operands.VGPU_STATE) == "failed" and own.get(_operands.VGPU_CONFIG) == profile and node not in request.relabelled:
        return f"it has failed to make {profile}, and does not try again by itself"
    return None


def plan_restarts(request: Request, seen: Seen) -> Plan:
    """One Change per node whose device manager starts anew, or whose annotation differs. A node that VMs use stops itself only."""
    configs, blockers = ({}, []) if not request.config_map else wanted_configs(request, seen)
    plan = Plan(blockers=blockers)
    if blockers:
        return plan
    for node in sorted(request.profiles):
        if node not in seen.nodes:
            continue
        reason = restart_reason(request, seen, configs, node)
        names = users(seen.uses, node) if reason else []
        if names:
            plan.blockers.append(in_use(node, str(reason), names))
            continue
        said, now = annotations_of(seen.nodes[node]).get(APPLIED), note(request, configs, node)
        if reason or said != now:
            why = reason or "what its device manager was asked for is written down"
            plan.changes.append(
                Change(f"node {node}", "restart device manager" if reason else "note", {APPLIED: said}, {APPLIED: now}, why)
            )
    return plan


def in_use(node: str, reason: str, names: t.Sequence[str]) -> Blocker:
    problem = f"its device manager has to be restarted ({reason}), and {', '.join(names)} use{'s' if len(names) == 1 else ''} its vGPUs"
    return Blocker(f"node {node}", problem, _REMEDY, stops="target")
