# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From an intent and the facts of its host: which functions go to VFIO, which virtual functions and vGPUs are made, and by whom.

On a host that the operator owns, its VFIO Manager binds the GPUs and its device manager makes the vGPUs; all that is left is what the
VFIO Manager leaves in a GPU's IOMMU group (it binds at most one companion, NVIDIA/k8s-driver-manager, vfio-manage). On a host that owns
its devices itself, all of it is asked for here.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents import _vgpu_config
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _type_names

Facts = t.Mapping[str, t.Any]


def host_device_requests(intent: Facts, facts: Facts, vgpus: t.Sequence[Facts] = ()) -> dict[str, t.Any]:
    """``{vfio, scope, sriov, vgpus, shared, problems, text}``: arguments of ``vfio_bind``, ``sriov_vfs`` and ``mdev_create``, empty if there is
    nothing to do, and in ``shared`` the GPUs whose IOMMU group holds something else that is not on VFIO.

    ``facts``: what ``gpu_node_info`` returned. ``vgpus``: the types per GPU in the form of ``mdev_create``, instead of the intent's profile.
    """
    gpus = list(facts.get("gpus") or [])
    problems: list[Problem] = []
    shared = [gpu for gpu in gpus if _has_neighbours(gpu, facts)]
    out: dict[str, t.Any] = {"vfio": [], "scope": "group", "sriov": [], "vgpus": [], "shared": [gpu["address"] for gpu in shared]}
    if intent["owner"] == "operator":
        if vgpus:
            problems.append(
                Problem(
                    f"host {intent['host']}",
                    "gpufleet_vgpus is set, and the operator's device manager makes this host's vGPUs",
                    "Remove it, or set gpufleet_device_owner: host",
                )
            )
        if intent["workload"] == "vm-passthrough":
            # Before its VFIO Manager has bound a GPU, nobody knows what it will leave.
            out["vfio"] = [{"address": gpu["address"]} for gpu in shared if "vfio" in (gpu.get("driver") or "")]
            out["scope"] = "companions"
    elif intent["workload"] == "vm-passthrough":
        out["vfio"] = [{"address": gpu["address"]} for gpu in gpus]
    elif intent["workload"] == "vm-vgpu":
        out["sriov"] = [{"address": gpu["address"], "count": "max"} for gpu in gpus if _on_virtual_functions(gpu)]
        out["vgpus"] = [dict(entry) for entry in vgpus] or _without_mig(_from_profile(intent, gpus, problems), problems)
    text = ""
    if problems:
        text = "\n".join(["Planning the devices: stopped. Nothing was changed on this host.", *(f"- {problem}" for problem in problems)])
    return {**out, "problems": [problem._asdict() for problem in problems], "text": text}


def _has_neighbours(gpu: Facts, facts: Facts) -> bool:
    """Is there something beside the GPU in its group that a VFIO driver has not got, going by what was read?"""
    group = (facts.get("groups") or {}).get(str(gpu["iommu_group"])) if gpu.get("iommu_group") is not None else None
    return any(blocker["address"] != gpu["address"] for blocker in (group or {}).get("blockers") or [])


def _on_virtual_functions(gpu: Facts) -> bool:
    """Does this GPU need virtual functions for its vGPUs? The data says so; a GPU that it does not have is asked itself."""
    known = _catalogue.uses_virtual_functions(gpu["vendor_device"], gpu.get("subsystem") or "")
    return known if known is not None else bool((gpu.get("sriov") or {}).get("total"))


def _from_profile(intent: Facts, gpus: list[Facts], problems: list[Problem]) -> list[dict[str, t.Any]]:
    """What the profile says of each GPU, or as many vGPUs of its type as fit."""
    found = []
    made = intent.get("device_config")
    if made is not None:
        wanted, wrong = _vgpu_config.types(made, gpus)
        problems += [Problem(f"host {intent['host']}", *problem) for problem in wrong]
        return [
            {"address": gpu["address"], "types": [{"type": name, "count": count} for name, count in gpu["types"].items()]} for gpu in wanted
        ]
    for gpu in gpus:
        pci, subsystem = gpu["vendor_device"], gpu.get("subsystem") or ""
        if intent["profile"] == _catalogue.DEFAULT:
            kinds = _catalogue.default_types(pci)
        else:
            kind = _catalogue.type_of(str(intent["profile"]))
            most = _catalogue.most(pci, subsystem, kind)
            kinds = [(kind, most)] if most else []
        if len(kinds) != 1:
            problem = f"it has no single type for the profile {intent['profile']} (by its PCI id {pci})"
            problems.append(
                Problem(f"GPU {gpu['address']}", problem, "Choose a profile of this GPU, or say the types per GPU in gpufleet_vgpus")
            )
            continue
        found.append({"address": gpu["address"], "types": [{"type": kinds[0][0], "count": kinds[0][1]}]})
    return found


def _without_mig(wanted: list[dict[str, t.Any]], problems: list[Problem]) -> list[dict[str, t.Any]]:
    """A vGPU of a MIG-backed type lives in a GPU instance. The operator's device manager makes those; on a host of its own, nothing here does."""
    for gpu in wanted:
        backed = [kind["type"] for kind in gpu["types"] if _type_names.parse(kind["type"]).slices]
        if backed:
            problem = f"{', '.join(backed)} lives in a MIG GPU instance, which only the operator makes, and the host owns its devices"
            remedy = "Set gpufleet_device_owner: operator, choose a time-sliced type, or make the instances yourself and say gpufleet_vgpus"
            problems.append(Problem(f"GPU {gpu['address']}", problem, remedy))
    return wanted
