# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where intent and observation differ, each with the playbook that mends it. Only what was observed is compared; see ``unknown`` of a report."""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _wait
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import plain_type
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _capacity

Facts = t.Mapping[str, t.Any]

CLUSTER, DEVICES, SITE = "gpufleet.kubevirt.cluster", "gpufleet.kubevirt.host_devices", "gpufleet.kubevirt.site"
#: Words in the name of a Helm value that may be a secret: its value is never shown.
SECRET = ("password", "token", "secret", "key")
VMS = ("vm-passthrough", "vm-vgpu")


class Drift(t.NamedTuple):
    """One difference. ``says`` is the same in a sentence."""

    where: str
    wanted: str
    found: str
    remedy: str  #: name of the playbook
    says: str


def _mender(intent: Facts) -> str:
    return DEVICES if intent.get("owner") == "host" else SITE


def labels(node: Facts, intent: Facts) -> list[Drift]:
    """Workload and profile of a node against the inventory's."""
    found = []
    have = node.get("labels") or {}
    if intent.get("owner") == "host":
        operands = have.get(_names.OPERANDS_LABEL)
        if operands != "false":
            says = (
                f"its host owns its devices, and its label {_names.OPERANDS_LABEL} is {operands or 'not set'}: the operator may take them"
            )
            found.append(Drift(f"label {_names.OPERANDS_LABEL}", "false", operands or "not set", CLUSTER, says))
        return found
    workload = node.get("workload")
    if workload != intent["workload"]:
        says = f"its label says {workload or 'nothing'}, the inventory {intent['workload']}"
        found.append(Drift(f"label {_names.WORKLOAD_LABEL}", str(intent["workload"]), workload or "not set", CLUSTER, says))
    profile = have.get(_names.VGPU_CONFIG_LABEL)
    # Types per GPU have a name only once the GPUs have been read.
    named = intent["profile"] is not None or intent.get("device_config") is None
    if intent["workload"] == "vm-vgpu" and named and profile != intent["profile"]:
        says = f"its profile is {profile or 'not set'}, the inventory says {intent['profile']}"
        found.append(Drift(f"label {_names.VGPU_CONFIG_LABEL}", str(intent["profile"]), profile or "not set", CLUSTER, says))
    return found


def advertised(intent: Facts, allocatable: t.Mapping[str, int]) -> list[Drift]:
    """What the node advertises against what its GPUs should make it advertise, by the rule that a run waits by."""
    matched, missing = _wait.match(intent["expect"], allocatable)
    have = ", ".join(f"{name}: {count}" for name, count in allocatable.items()) or "nothing"
    found = []
    for expected in missing:
        what = str(expected.get("resource") or expected.get("vgpu_type") or expected.get("pci"))
        says = f"{what}: {expected['count']} expected, and it advertises {have}"
        found.append(Drift("allocatable", f"{what}: {expected['count']}", have, _mender(intent), says))
    extra = [name for name in allocatable if name not in matched and not _operands.companion(name)]
    if extra and not missing:
        says = f"it also advertises {', '.join(extra)}, which nobody planned"
        found.append(Drift("allocatable", "nothing else", ", ".join(extra), _mender(intent), says))
    return found


def devices(intent: Facts, gpus: t.Iterable[Facts]) -> list[Drift]:
    """What a host's sysfs shows of its GPUs against what its workload needs. ``gpus``: as the report has them."""
    gpus = list(gpus)
    remedy = _mender(intent)
    found = []
    for gpu in gpus:
        if _capacity.drives(intent["workload"], gpu["driver"]) is False:
            word = _capacity.DRIVERS[str(intent["workload"])]
            wanted, have = "vfio-pci" if word == "vfio" else word, gpu["driver"] or "no driver"
            says = f"GPU {gpu['address']} is on {have}, and {intent['workload']} needs {wanted}"
            found.append(Drift(f"driver of GPU {gpu['address']}", wanted, have, remedy, says))
    if any(profile["created"] is None for gpu in gpus for profile in gpu["profiles"]):
        return found  # what is made cannot be told
    made: dict[str, int] = collections.Counter()
    for gpu in gpus:
        for profile in gpu["profiles"]:
            if profile["profile"] != _capacity.WHOLE:
                made[profile["profile"]] += profile["created"] or 0
    wanted_types = {str(one["vgpu_type"]): int(one["count"]) for one in intent["expect"] if one.get("vgpu_type")}
    for name in sorted({*wanted_types, *made}):
        if wanted_types.get(name, 0) != made.get(name, 0) and (wanted_types or intent["workload"] != "vm-vgpu"):
            says = f"{made.get(name, 0)} vGPUs {name} are made on its GPUs, and {wanted_types.get(name, 0)} are wanted"
            found.append(Drift(f"vGPUs {name}", str(wanted_types.get(name, 0)), str(made.get(name, 0)), remedy, says))
    return found


# ------------------------------------------------------------------ the cluster's own objects


def cluster(fleet: Facts, intents: t.Sequence[Facts], wanted: Facts) -> list[Drift]:
    """What is one for the whole fleet: the operator's release and policy, and KubeVirt's list of permitted devices.

    ``wanted``: ``{version, values}`` of the operator's chart; what is missing in it is not compared.
    """
    return [*_release(fleet, wanted), *_policy(fleet, intents), *_permits(fleet, intents)]


def _release(fleet: Facts, wanted: Facts) -> t.Iterator[Drift]:
    release = fleet.get("release")
    if not release:
        return
    where = f"Helm release {release.get('namespace')}/{release.get('name')}"
    version, found = str(wanted.get("version") or ""), str(release.get("version"))
    if version and version.removeprefix("v") != found.removeprefix("v"):
        yield Drift(f"{where}, version", version, found, CLUSTER, f"{where} is version {found}, and {version} is wanted")
    for path, want, have in _different(wanted.get("values") or {}, release.get("values") or {}, ()):
        name = ".".join(path)
        shown = ["another value", "not shown"] if any(word in name.lower() for word in SECRET) else [_short(want), _short(have)]
        yield Drift(f"{where}, value {name}", shown[0], shown[1], CLUSTER, f"{where}: {name} is {shown[1]}, and {shown[0]} is wanted")


def _different(wanted: Facts, found: Facts, path: tuple[str, ...]) -> t.Iterator[tuple[tuple[str, ...], t.Any, t.Any]]:
    """The leaves of the wanted values that the release does not have."""
    for key in sorted(wanted):
        want, have = wanted[key], found.get(key, _MISSING)
        if isinstance(want, t.Mapping) and isinstance(have, t.Mapping):
            yield from _different(want, have, (*path, str(key)))
        elif want != have:
            yield (*path, str(key)), want, have


_MISSING = object()


def _short(value: t.Any) -> str:
    text = "not set" if value is _MISSING else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _policy(fleet: Facts, intents: t.Sequence[Facts]) -> t.Iterator[Drift]:
    policy = fleet.get("cluster_policy")
    if policy and policy.get("sandbox_enabled") is False and any(_by_operator(intent) for intent in intents):
        where = f"ClusterPolicy {policy.get('name')}, sandboxWorkloads.enabled"
        yield Drift(where, "true", "false", CLUSTER, f"{where} is false, so no GPU is prepared for VMs")


def _by_operator(intent: Facts) -> bool:
    return intent["workload"] in VMS and intent["state"] == "wanted" and intent.get("owner") != "host"


def _permits(fleet: Facts, intents: t.Sequence[Facts]) -> t.Iterator[Drift]:
    kubevirt = fleet.get("kubevirt")
    ours = {str(intent["node"]) for intent in intents if intent["workload"] in VMS and intent["state"] == "wanted"}
    advertisers: dict[str, list[str]] = collections.defaultdict(list)
    for node in fleet["nodes"]:
        for name in node.get("allocatable") or {} if str(node["name"]) in ours else ():
            if _operands.RESOURCE_PREFIX in name and name != _wait.CONTAINER_RESOURCE and not _operands.companion(name):
                advertisers[name].append(str(node["name"]))
    if not kubevirt or not advertisers:
        return
    where = f"KubeVirt {kubevirt.get('namespace')}/{kubevirt.get('name')}, permittedHostDevices"
    permitted = kubevirt.get("permitted")
    if permitted is None:
        yield Drift(where, "a list of devices", "no list", CLUSTER, "KubeVirt has no list of permitted devices: any VM may take any device")
        return
    known = {str(entry["resourceName"]) for key in ("pciHostDevices", "mediatedDevices") for entry in permitted.get(key) or []}
    for name in sorted(advertisers.keys() - known):
        nodes = sorted(advertisers[name])
        shown = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        kind = "vGPU" if plain_type(name) else "GPU"
        yield Drift(where, f"{name} permitted", "not permitted", CLUSTER, f"no VM may use the {kind} {name}, advertised by {shown}")
