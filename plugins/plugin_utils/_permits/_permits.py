# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which devices KubeVirt must permit, from what the nodes advertise: GPUs only, under the names that the plugin really gave them.

Of a host that owns its devices nothing is advertised before it is permitted, and the name is ours to choose: ``_owned.py``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents import _owned
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits import _plugin_names

Facts = t.Mapping[str, t.Any]

CONTAINER_RESOURCE = "nvidia.com/gpu"


def permitted_devices(intents: t.Iterable[Facts], nodes: t.Iterable[Facts] = (), planned: bool = False) -> dict[str, t.Any]:
    """``{pci_devices, mediated_devices, blockers, text}``, arguments of ``kubevirt_permit``.

    ``nodes``: what ``gpu_operator_wait`` returned, ``[{name, allocatable, resources}]``. ``planned``: check mode, in which no node
    advertises anything yet; a PCI device's resource name is then ``known after apply``.
    """
    advertised = {str(node["name"]): node for node in nodes}
    found: dict[tuple[str, str, str], dict[str, t.Any]] = {}
    blockers: list[Problem] = []
    for intent in intents:
        if intent["state"] != "wanted" or not intent["limited"] or intent["workload"] not in ("vm-passthrough", "vm-vgpu"):
            continue
        if intent.get("owner") == _owned.HOST:
            for device in _owned.devices(intent):
                found.setdefault(device[:3], _entry(device, intent, planned, blockers))
            continue
        node = advertised.get(str(intent["node"]))
        entries = _planned(intent) if node is None and planned else _advertised(intent, node or {}, blockers)
        for kind, selector, name in entries:
            found.setdefault((kind, selector, name), {"selector": selector, "resource_name": name, "external": True})
    text = ""
    if blockers:
        text = "\n".join(["Naming the devices that VMs may use: stopped.", *(f"- {blocker}" for blocker in blockers)])
    return {
        "pci_devices": [entry for (kind, _selector, _name), entry in sorted(found.items()) if kind == "pci"],
        "mediated_devices": [entry for (kind, _selector, _name), entry in sorted(found.items()) if kind != "pci"],
        "blockers": [blocker._asdict() for blocker in blockers],
        "text": text,
    }


def _entry(device: _owned.Device, intent: Facts, planned: bool, blockers: list[Problem]) -> dict[str, t.Any]:
    """KubeVirt's own plugin gives it the name that it is permitted by."""
    if device.kind == _owned.UNKNOWN and not planned:
        problem = f"it should have {device.plain}, and its driver does not say whether as mediated devices or on virtual functions"
        blockers.append(Problem(f"node {intent['node']}", problem, "Look at the vGPU manager of the host, and run again"))
    name = device.name if device.kind != _owned.UNKNOWN else KNOWN_AFTER_APPLY
    return {"selector": device.selector, "resource_name": name, "external": False}


def _planned(intent: Facts) -> list[tuple[str, str, str]]:
    if intent["workload"] == "vm-passthrough":
        return [("pci", _names.pci_id_key(pci), KNOWN_AFTER_APPLY) for pci in dict.fromkeys(gpu["pci"] for gpu in intent["gpus"])]
    entries = []
    for expected in intent["expect"]:
        selector = _owned.full_name(intent, expected["vgpu_type"])
        # The plugin makes the name from the type's: blanks become underscores.
        name = f"nvidia.com/{_names.mdev_name_key(selector)}" if selector else KNOWN_AFTER_APPLY
        entries.append(("mdev", selector or expected["vgpu_type"], name))
    return entries


def _advertised(intent: Facts, node: Facts, blockers: list[Problem]) -> list[tuple[str, str, str]]:
    matched = node.get("resources")
    resources = [
        str(name)
        for name, count in sorted((node.get("allocatable") or {}).items())
        if int(count) > 0 and name != CONTAINER_RESOURCE and (matched is None or name in matched)
    ]
    if intent["workload"] == "vm-vgpu":
        entries = []
        for name in resources:
            plain = _device_names.plain_type(name)
            if plain:
                # KubeVirt takes a blank for an underscore. A spelling that differs in more than that would be another device.
                advertised, selector = name.partition("/")[2], _owned.full_name(intent, plain)
                same = selector is not None and _names.mdev_name_key(selector) == advertised
                entries.append(("mdev", selector if selector and same else advertised, name))
        return entries or _nothing(intent, blockers)
    whole = [name for name in resources if not _device_names.plain_type(name)]
    ids = list(dict.fromkeys(gpu["pci"] for gpu in intent["gpus"]))
    if not whole:
        return _nothing(intent, blockers)
    if len(ids) == 1:
        return (
            [("pci", _names.pci_id_key(ids[0]), name) for name in whole[:1]]
            if len(whole) <= 1
            else _ambiguous(intent, ids, whole, blockers)
        )
    # Several models: names tell them apart where they are known, counts where they differ.
    entries = [("pci", _names.pci_id_key(pci), name) for pci in ids for name in whole if _named(pci, name)]
    ids = [pci for pci in ids if ("pci", _names.pci_id_key(pci)) not in {entry[:2] for entry in entries}]
    whole = [name for name in whole if name not in {entry[2] for entry in entries}]
    for pci in ids:
        count = sum(gpu["pci"] == pci for gpu in intent["gpus"])
        fitting = [name for name in whole if int(node["allocatable"][name]) == count]
        rivals = [other for other in ids if other != pci and sum(gpu["pci"] == other for gpu in intent["gpus"]) == count]
        if len(fitting) != 1 or rivals:
            return _ambiguous(intent, ids, whole, blockers)
        entries.append(("pci", _names.pci_id_key(pci), fitting[0]))
    return entries


def _named(pci: str, name: str) -> bool:
    device = pci.upper().partition(":")[2]
    return name.partition("/")[2] in (_plugin_names.NAMES.get(device), device.lower())


def _nothing(intent: Facts, blockers: list[Problem]) -> list[tuple[str, str, str]]:
    problem = f"it is meant for {intent['workload']}, and is not known to advertise any device for it"
    blockers.append(Problem(f"node {intent['node']}", problem, "Let gpu_operator_wait succeed for it first, in the same run"))
    return []


def _ambiguous(intent: Facts, ids: list[str], names: list[str], blockers: list[Problem]) -> list[tuple[str, str, str]]:
    problem = f"it advertises {', '.join(names) or 'nothing'} for the PCI ids {', '.join(ids)}, and which is which cannot be told"
    blockers.append(Problem(f"node {intent['node']}", problem, "Permit them yourself with gpufleet.kubevirt.kubevirt_permit"))
    return []
