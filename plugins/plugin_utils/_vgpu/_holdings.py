# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which VM holds a vGPU on which GPU of one node: from what the host sees, and from the cluster where the host sees nothing.

The host is asked first: who has a vGPU open is a QEMU process, and KubeVirt names its guest ``NAMESPACE_NAME`` (kubevirt,
pkg/virt-launcher/virtwrap/api/schema.go, ``VMINamespaceKeyFunc``; libvirt hands it to QEMU as ``-name guest=…``). The cluster knows which pod of
the node has how many of a resource, but not on which GPU. Where the two together leave that open, all GPUs in question stay as they are,
and whatever may be in use on them counts as used.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import plain_type

Facts = t.Mapping[str, t.Any]
#: In place of a type: what a VM holds that has a GPU itself.
WHOLE = "whole GPU"


@dataclasses.dataclass
class Board:
    """One GPU of a node while it is found out who holds what on it.

    ``present``: plain types that are made, with how many. ``held``: of whom it is known, per (VM, type). ``stays``: why the GPU must not be changed.
    ``vfio``: KubeVirt picks its vGPUs by PCI id. ``sure``: whose they are is known, not only whose they may be.
    """

    index: int
    pci: str
    present: dict[str, int]
    vfio: bool
    held: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    stays: list[str] = dataclasses.field(default_factory=list)
    sure: bool = True

    def free(self, types: t.Container[str] | None = None) -> dict[str, int]:
        """vGPUs of these types (None: of any) of which nobody is known to hold them."""
        used: dict[str, int] = collections.Counter()
        for (_who, name), count in self.held.items():
            used[name] += count
        left = {name: count - used[name] for name, count in self.present.items() if types is None or name in types}
        return {name: count for name, count in sorted(left.items()) if count > 0}


@dataclasses.dataclass(frozen=True, order=True)
class Use:
    """What the cluster says of one pod: ``count`` of a resource, which can be vGPUs of ``types``; None: what it is cannot be told."""

    who: str
    resource: str
    count: int
    types: frozenset[str] | None


def guest(name: str) -> str:
    """Namespace and name of a VM from the name of its guest; a Kubernetes name has no ``_``. Other names stay as they are."""
    namespace, mark, rest = name.partition("_")
    return f"{namespace}/{rest}" if mark and namespace and rest else name


def see(board: Board, active: t.Iterable[tuple[str, t.Sequence[Facts] | None]]) -> bool:
    """Note who has the vGPUs of a GPU open, as ``(type, users)`` each; False if the host cannot tell."""
    told = True
    for name, users in active:
        if users is None:
            told = False
            continue
        for user in users:
            if user.get("vm"):
                board.held[guest(str(user["vm"])), name] += 1
            else:
                board.stays.append(f"{_process(user)}, which names no VM, holds a vGPU on it")
        if users and not any(user.get("vm") for user in users):
            board.held[_process(users[0]), name] += 1
    for name, left in board.present.items():
        over = sum(count for (_who, kind), count in board.held.items() if kind == name) - left
        if over > 0:
            # Of processes with a VFIO device that does not show which one it is, each counts for every vGPU.
            _hold_all(board, name)
    return told


def see_whole(board: Board, users: t.Iterable[Facts]) -> None:
    """Note the VMs that have a GPU itself open, on which no driver offers vGPUs. Others, such as NVIDIA's daemons, are in nobody's way."""
    for user in users:
        if user.get("vm") or str(user.get("comm")).startswith("qemu"):
            who = guest(str(user["vm"])) if user.get("vm") else _process(user)
            board.held[who, WHOLE] += 1
            board.stays.append(f"{who} has the whole GPU")


def _process(user: Facts) -> str:
    """A process in place of a VM: nobody is named so in the cluster."""
    return f"process {user.get('pid')} ({user.get('comm')})"


def _hold_all(board: Board, name: str) -> None:
    """More holders than vGPUs: which of them holds which cannot be told."""
    whos = sorted({who for who, kind in board.held if kind == name})
    for who in whos:
        del board.held[who, name]
    board.held[f"one of {', '.join(whos)}", name] = board.present[name]
    board.stays.append(f"which of {', '.join(whos)} hold its {name} cannot be told")
    board.sure = False


def uses(node: Facts, kubevirt: Facts | None, boards: t.Sequence[Board]) -> list[Use]:
    """What the pods of a node use, from its entry and the KubeVirt object in the result of ``gpu_fleet_info``."""
    permitted = (kubevirt or {}).get("permitted") or {}
    named = {entry["resourceName"]: plain_type(entry["mdevNameSelector"]) for entry in permitted.get("mediatedDevices") or []}
    picked = {entry["resourceName"]: entry["pciVendorSelector"].upper() for entry in permitted.get("pciHostDevices") or []}
    found = []
    for resource, pods in (node.get("used") or {}).items():
        by_id = {name for board in boards if board.vfio and board.pci == picked.get(resource) for name in board.present}
        single = named.get(resource) or plain_type(resource)
        types = frozenset(by_id) if by_id else frozenset({single}) if single else None
        for pod in pods:
            who = f"{pod['namespace']}/{pod['vmi']}" if pod.get("vmi") else f"pod {pod['namespace']}/{pod['pod']}"
            found.append(Use(who, resource, int(pod["count"]), types))
    return sorted(found)


def settle(boards: t.Sequence[Board], used: t.Iterable[Use], why: str) -> None:
    """Bring both views together. ``why``: why the host may not see a VM that the cluster knows."""
    seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for board in boards:
        for (who, name), count in board.held.items():
            seen[who][name] += count
    missing = []
    # What cannot be told comes last: it takes what the others leave.
    for use in sorted(used, key=lambda use: (use.types is None, use)):
        left = use.count
        for name in sorted(seen[use.who]):
            if use.types is None or name in use.types:
                taken = min(left, seen[use.who][name])
                seen[use.who][name] -= taken
                left -= taken
        if left > 0:
            missing.append(dataclasses.replace(use, count=left))
    for board in boards:
        for who, name in sorted(board.held):
            if seen[who][name] > 0 and not who.startswith(("one of ", "process ")):
                board.stays.append(f"{who} holds a {name} on it, and the cluster does not show that for this node")
    by_types: dict[frozenset[str] | None, list[Use]] = collections.defaultdict(list)
    for use in missing:
        by_types[use.types].append(use)
    for types, group in by_types.items():
        _place(boards, types, group, why)


def _place(boards: t.Sequence[Board], types: frozenset[str] | None, group: t.Sequence[Use], why: str) -> None:
    """Find the GPUs of uses that the host does not see; if that is open, all GPUs in question stay."""
    able = [board for board in boards if board.free(types)]
    room = sum(sum(board.free(types).values()) for board in able)
    count = sum(use.count for use in group)
    whos = sorted({use.who for use in group})
    sure = types is not None and count <= room and (len(able) == 1 or (len(whos) == 1 and count == room))
    if sure and all(len(board.free(types)) == 1 for board in able):
        for board in able:
            [(name, free)] = board.free(types).items()
            # On one GPU each has its own count; one VM that has all that is left has it on all of them.
            for who, taken in [(use.who, use.count) for use in group] if len(able) == 1 else [(whos[0], free)]:
                board.held[who, name] += taken
        return
    resources = ", ".join(sorted({use.resource for use in group}))
    said = f"{', '.join(whos)} {'has' if len(whos) == 1 else 'have'} {count} of {resources}, and on which GPU is not known: {why}"
    if types is None or count > room:
        able = [*boards]
    for board in able:
        for name, free in board.free().items():
            if types is None or count > room or name in types:
                board.held[whos[0] if len(whos) == 1 else f"one of {', '.join(whos)}", name] += free
        board.stays.append(said)
        board.sure = False
