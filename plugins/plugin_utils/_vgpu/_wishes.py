# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a configuration of the vGPU Device Manager is to make on the GPUs of each node: read from a plan or from intents, and checked.

The Device Manager itself checks neither capacity nor sizes. Source of what it does with an entry: NVIDIA/vgpu-device-manager acb72704,
pkg/vgpu/config.go (it removes all vGPUs of a GPU, then creates, in no fixed order) and cmd/nvidia-vgpu-dm/assert.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _gpu_fits, _plan_shape, _type_names, _types
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._find import NVIDIA
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

Entry = t.Mapping[str, t.Any]
GPU_CLASSES = ("0300", "0302")


@dataclasses.dataclass(frozen=True)
class Wish:
    """What one GPU of a node is to hold: ``index`` counts the node's GPUs by PCI address; ``gpu`` is None where it has no vGPU types."""

    index: int
    gpu: Gpu | None
    filters: tuple[str, ...]
    types: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class NodeWish:
    """A node: its GPUs, and the name that its configuration must have, if one was given."""

    node: str
    gpus: tuple[Wish, ...]
    profile: str | None = None


class Problems(list[str]):
    """What stops the making of a configuration; all of it is told at once."""

    def add(self, target: str, problem: str, remedy: str) -> None:
        self.append(f"{target}: {problem}. {remedy}")


def filters(gpu: Gpu | None, vendor_device: str | None, subsystem: str | None) -> tuple[str, ...]:
    """What selects a GPU: all ids of its family, with the subsystem where another product has the id too."""
    device = (vendor_device or "").upper().rpartition(":")[2]
    if gpu is None:
        return (f"0x{device}{NVIDIA}",)
    found = []
    for pci in gpu.pci:
        known = {board.upper() for board, _product in pci.subsystems}
        board = (subsystem or "").upper()
        if pci.needs_subsystem and pci.device == device and board and board not in known:
            vendor, _colon, number = board.partition(":")
            found.append(f"0x{device}{NVIDIA}:0x{number}{vendor}")
        else:
            found.append(pci.filter)
    return tuple(found)


def check_types(target: str, gpu: Gpu, types: t.Mapping[str, int], problems: Problems) -> None:
    """Can the Device Manager make these on one GPU?"""
    unread = [name for name in types if not _type_names.device_manager_reads(name)]
    if unread:
        problems.add(
            target, f"the vGPU Device Manager does not read {', '.join(unread)}", "Choose another type, or let the host own its devices"
        )
        return
    try:
        found = _gpu_fits.fits(gpu, types)
    except ValueError as error:
        problems.add(target, str(error), "Correct the types")
        return
    if not found.fits:
        near = " or ".join(", ".join(f"{count} x {name}" for name, count in mix.items()) for mix in found.nearest)
        problems.add(target, found.why, f"The nearest that fit: {near}" if near else "Ask for less")
    elif found.mode == _gpu_fits.MIXED:
        names = ", ".join(types)
        problems.add(
            target,
            f"{names} have several sizes, and the vGPU Device Manager does not switch mixed-size mode on: "
            "it would remove all vGPUs of the GPU and then fail",
            "Plan one size per GPU, or let the host own its devices",
        )


def _order(target: str, addresses: t.Sequence[tuple[int, str]], problems: Problems) -> None:
    """Is the index the place in the order of the PCI addresses, as the Device Manager counts?"""
    indexes = [index for index, _address in addresses]
    if indexes != sorted(indexes) or len(set(indexes)) < len(indexes):
        by_address = ", ".join(f"{index} is {address}" for index, address in addresses)
        problems.add(target, f"the GPUs are not counted by PCI address ({by_address})", "Number them by address, from 0 on")


def _covered(target: str, indexes: t.Collection[int], problems: Problems) -> None:
    missing = sorted(set(range(max(indexes, default=-1) + 1)) - set(indexes))
    if missing:
        problems.add(
            target,
            f"nothing is said of GPU {', '.join(map(str, missing))}, so the configuration would never count as applied",
            "Name every GPU of the node; one that holds nothing is unused",
        )


def _family(target: str, entry: Entry, problems: Problems) -> Gpu | None:
    """The GPU of an entry of a plan; None for one without vGPU types, which is a problem only if it is to hold some."""
    vendor_device, subsystem = entry.get("vendor_device"), entry.get("subsystem") or ""
    if not (vendor_device or entry.get("gpu")):
        problems.add(target, "nothing says which GPU it is", "Give its model as gpu, or its PCI id as vendor_device")
        return None
    here = _catalogue.at(vendor_device, subsystem) if vendor_device else ()
    try:
        gpu = _catalogue.find(str(entry.get("gpu") or vendor_device), subsystem)
    except ValueError as error:
        if any(entry["types"].values()) or not vendor_device or here:
            problems.add(target, str(error), "Correct the GPU")
        return None
    if vendor_device and gpu not in here:
        names = " or ".join(other.family for other in here) or "no GPU with vGPU types"
        problems.add(target, f"it is called {gpu.family}, and its PCI id {vendor_device} is that of {names}", "Correct one of the two")
    return gpu


def from_plan(plan: t.Any, nodes: t.Collection[str] | None, problems: Problems) -> list[NodeWish]:
    """The nodes of a plan of ``vgpu_plan``, or those of them that are named.

    :raises ValueError: it is no plan.
    """
    found = []
    planned = _plan_shape.check(plan)
    for name in sorted(set(nodes or ()) - {node for node, _gpus in planned}):
        problems.add(f"node {name}", "the plan has no such node", f"It has {', '.join(node for node, _gpus in planned) or 'none'}")
    for node, gpus in planned:
        if nodes is not None and node not in nodes:
            continue
        if not gpus:
            problems.add(f"node {node}", "the plan has no GPU for it", "Leave the node out")
            continue
        wishes = []
        for entry in gpus:
            target = f"node {node}, GPU {entry['index']}"
            gpu = _family(target, entry, problems)
            types = {name: count for name, count in entry["types"].items() if count}
            if gpu and types:
                check_types(target, gpu, types, problems)
            if entry["mode"] == "keep" and entry.get("before") is None and not types:
                problems.add(
                    target,
                    "it is kept as it is, and the plan does not say what it holds, so the vGPU Device Manager would clear it",
                    "Give its present profile to the planner",
                )
            wishes.append(
                Wish(entry["index"], gpu, filters(gpu, entry.get("vendor_device"), entry.get("subsystem")), tuple(sorted(types.items())))
            )
        addressed = sorted((str(entry["address"]).lower(), entry["index"]) for entry in gpus if entry.get("address"))
        _order(f"node {node}", [(index, address) for address, index in addressed], problems)
        _covered(f"node {node}", [wish.index for wish in wishes], problems)
        found.append(NodeWish(node, tuple(sorted(wishes, key=lambda wish: wish.index))))
    return found


def _profile(target: str, profile: str, gpu: Gpu | None, pci: str, problems: Problems) -> dict[str, int]:
    """What a profile of an intent makes of a GPU. ``default`` is that of NVIDIA's stock configuration, of the GPU's own family."""
    if profile == _catalogue.DEFAULT:
        kinds = {kind for kind in _catalogue.default_types(pci) if gpu and kind[0] in gpu.by_name}
        if not kinds:
            problems.add(target, f"NVIDIA's stock configuration has no default for its PCI id {pci}", "Choose a type as the profile")
        return dict(kinds)
    if gpu is None:
        problems.add(target, f"no vGPU types are known for its PCI id {pci}", "Choose another workload for the host")
        return {}
    try:
        kind = _types.resolve(profile, gpu).kind
    except ValueError as error:
        problems.add(target, str(error), "Choose a profile of this GPU")
        return {}
    return {kind.name: kind.most}


def from_intents(intents: t.Iterable[Entry], nodes: t.Collection[str] | None, problems: Problems) -> tuple[list[NodeWish], list[str]]:
    """The nodes whose vGPUs the operator makes, and the hosts among them of whose GPUs nothing is known."""
    found, unread = [], []
    for intent in intents:
        node, profile = str(intent["node"]), intent.get("profile")
        if intent.get("workload") != "vm-vgpu" or intent.get("owner") == "host" or (nodes is not None and node not in nodes):
            continue
        gpus = [gpu for gpu in intent.get("gpus") or [] if str(gpu.get("class") or GPU_CLASSES[0])[:4] in GPU_CLASSES]
        if not all(gpu.get("address") and gpu.get("pci") for gpu in gpus):
            problems.add(f"node {node}", "one of its GPUs has no address or no pci", "Hand over what node_intents returned")
            continue
        own = {str(entry["address"]): entry["types"] for entry in intent.get("vgpus") or []}
        if intent.get("state", "wanted") != "wanted" or not gpus or not (profile or own):
            unread.append(str(intent.get("host") or node))
            continue
        wishes = []
        for index, entry in enumerate(sorted(gpus, key=lambda gpu: str(gpu["address"]).lower())):
            target = f"node {node}, GPU {entry['address']}"
            pci, subsystem = str(entry["pci"]), entry.get("subsystem") or ""
            here = _catalogue.at(pci, subsystem)
            if len(here) > 1:
                problems.add(
                    target,
                    f"{' and '.join(gpu.family for gpu in here)} have the PCI id {pci}",
                    "Give its subsystem, so that one can be told",
                )
                continue
            gpu = here[0] if here else None
            types = own.get(str(entry["address"]), {}) if own else _profile(target, str(profile), gpu, pci, problems)
            if own and gpu and types:
                check_types(target, gpu, types, problems)
            wishes.append(Wish(index, gpu, filters(gpu, pci, subsystem), tuple(sorted(types.items()))))
        # Types per GPU have no name of their own: it follows from what they make.
        found.append(NodeWish(node, tuple(wishes), None if own else str(profile)))
    return found, unread
