# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What each GPU of a node can hold, holds, and can no longer hold, per profile, from what the host and the cluster say.

What nobody knows is None, never 0. Kubernetes counts devices per node, not per GPU: ``allocatable`` of one GPU is known where the node
advertises all that its GPUs have of a profile, or none of it, or where one GPU alone has it.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _wait
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import plain_type
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet_facts, _gpu_fits, _holdings, _strips
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

Facts = t.Mapping[str, t.Any]
WHOLE = "whole GPU"
#: What a GPU's driver is where the whole GPU can be handed out: by the word in its name.
DRIVERS = {"container": "nvidia", "vm-passthrough": "vfio"}
VGPU = "vm-vgpu"


def drives(workload: str | None, driver: str | None) -> bool | None:
    """Is a GPU on the driver that its workload needs? None: there is no such driver for this workload (a vGPU's is NVIDIA's own or VFIO's)."""
    word = DRIVERS.get(str(workload))
    return None if word is None else word in (driver or "")


def gpus(facts: Facts, node: Facts | None, kubevirt: Facts | None, intent: Facts, workload: str | None) -> list[dict[str, t.Any]]:
    """The GPUs of one host with their profiles, holders, placements and free room. ``node`` is None where the cluster has no such Node."""
    seen, blind = _fleet_facts.look(facts, node or {}, kubevirt)
    offered = _Offered(node, kubevirt, seen)
    sliced = workload == VGPU
    whole = {} if sliced else _whole_holders(seen, node, offered)
    rows = []
    for entry in seen:
        row = _head(entry)
        made = dict(entry.board.present)
        wanted = _wanted(entry, intent) if sliced else []
        held = _held(entry) if sliced else whole[entry.index]
        row["profiles"] = [_profile(entry, name, made, held, offered) for name in dict.fromkeys([*made, *wanted])]
        if not sliced:
            row["profiles"].insert(0, _whole(entry, workload, held, offered))
        row["used"] = held
        row["why"] = entry.unknown or entry.left_out or (None if held is not None else _why(entry, blind))
        rows.append({**row, **_region(entry, sliced, held)})
    return rows


def _head(entry: _fleet_facts.Seen) -> dict[str, t.Any]:
    facts = entry.facts
    return {
        "index": entry.index,
        "address": str(facts["address"]),
        "model": entry.gpu.family if entry.gpu else facts.get("model"),
        "pci": entry.board.pci,
        "driver": facts.get("driver"),
        "backend": entry.backend,
    }


def _why(entry: _fleet_facts.Seen, blind: str) -> str:
    return "; ".join(dict.fromkeys(entry.board.stays)) or blind or "the cluster does not say on which GPU its users are"


def _wanted(entry: _fleet_facts.Seen, intent: Facts) -> list[str]:
    """The vGPU types that the inventory wants of this GPU."""
    if entry.gpu is None:
        return []
    for gpu in intent.get("vgpus") or ():
        if gpu["address"] == entry.facts["address"]:
            return list(gpu["types"])
    names = [expected.get("vgpu_type") for expected in intent.get("expect") or ()]
    return [name for name in [*names, plain_type(str(intent.get("profile")))] if name in entry.gpu.by_name]


# ------------------------------------------------------------------ who holds what


def _held(entry: _fleet_facts.Seen) -> list[dict[str, t.Any]] | None:
    if entry.unknown or not entry.board.sure:
        return None
    return [{"vm": who, "type": name, "count": count} for (who, name), count in sorted(entry.board.held.items())]


def _whole_holders(seen: t.Sequence[_fleet_facts.Seen], node: Facts | None, offered: _Offered) -> dict[int, list[dict[str, t.Any]] | None]:
    """Who has each whole GPU: the VM that the host sees on it, else the pods of its resource where only one division is possible."""
    found: dict[int, list[dict[str, t.Any]] | None] = {}
    by_resource: dict[str | None, list[_fleet_facts.Seen]] = collections.defaultdict(list)
    for entry in seen:
        by_resource[offered.whole_resource(entry)].append(entry)
    for resource, entries in by_resource.items():
        waiting: collections.Counter[str] = collections.Counter()
        for use in ((node or {}).get("used") or {}).get(resource) or ():
            waiting[who(use)] += int(use["count"])
        left = []
        for entry in entries:
            names = sorted(name for name, kind in entry.board.held if kind == _holdings.WHOLE and not name.startswith("process "))
            found[entry.index] = [{"vm": name, "type": WHOLE, "count": 1} for name in names]
            for name in names:
                waiting[name] -= 1
            left += [] if names else [entry]
        open_uses = sorted((+waiting).items())
        unknown_node = node is None or resource is None
        if left and sum(count for _name, count in open_uses) == len(left):
            # All of them are held; by whom is known if it is one for all.
            names = [name for name, _count in open_uses]
            vm = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
            found.update({entry.index: [{"vm": vm, "type": WHOLE, "count": 1}] for entry in left})
        elif open_uses or unknown_node:
            found.update({entry.index: None for entry in left})
    return found


def who(use: Facts) -> str:
    """The VM or pod of a use, as the cluster names it."""
    return f"{use['namespace']}/{use['vmi']}" if use.get("vmi") else f"pod {use['namespace']}/{use['pod']}"


# ------------------------------------------------------------------ what the node advertises of it


@dataclasses.dataclass
class _Offered:
    """What a node advertises, by the resource that stands for a GPU or a vGPU type."""

    node: Facts | None
    kubevirt: Facts | None
    seen: t.Sequence[_fleet_facts.Seen]

    @functools.cached_property
    def allocatable(self) -> dict[str, int]:
        return {str(name): int(count) for name, count in ((self.node or {}).get("allocatable") or {}).items()}

    @functools.cached_property
    def _by_pci(self) -> dict[str, str]:
        permitted = (self.kubevirt or {}).get("permitted") or {}
        return {str(entry["pciVendorSelector"]).upper(): str(entry["resourceName"]) for entry in permitted.get("pciHostDevices") or []}

    def whole_resource(self, entry: _fleet_facts.Seen) -> str | None:
        """The resource of a whole GPU; None if it cannot be told which it is."""
        workload = (self.node or {}).get("workload")
        if workload == "container":
            return _wait.CONTAINER_RESOURCE
        known = self._by_pci.get(entry.board.pci)
        if known:
            return known
        names = {name for name in [*self.allocatable, *((self.node or {}).get("used") or {})] if name.startswith(_operands.RESOURCE_PREFIX)}
        rest = [n for n in sorted(names) if n != _wait.CONTAINER_RESOURCE and plain_type(n) is None and not _operands.companion(n)]
        others = {one.board.pci for one in self.seen}
        return rest[0] if len(rest) == 1 and len(others) == 1 else "" if not rest else None

    def whole(self, entry: _fleet_facts.Seen) -> int | None:
        resource = self.whole_resource(entry)
        if self.node is None or resource is None:
            return None
        return _share(self.allocatable.get(resource, 0), 1, sum(self.whole_resource(one) == resource for one in self.seen))

    def vgpus(self, entry: _fleet_facts.Seen, name: str) -> int | None:
        if self.node is None:
            return None
        if entry.board.vfio:
            count = self.allocatable.get(self._by_pci.get(entry.board.pci, ""), 0)
            peers = [sum(one.board.present.values()) for one in self.seen if one.board.pci == entry.board.pci]
        else:
            count = sum(count for resource, count in self.allocatable.items() if plain_type(resource) == name)
            peers = [one.board.present.get(name, 0) for one in self.seen]
        if any(one.unknown for one in self.seen):
            return 0 if count == 0 else None
        return _share(count, entry.board.present.get(name, 0), sum(peers))


def _share(advertised: int, own: int, total: int) -> int | None:
    """What of ``advertised`` units is one GPU's, which has ``own`` of the ``total`` of its node; None if that is open."""
    if advertised == 0 or own == 0:
        return 0
    if advertised == total:
        return own
    return min(advertised, own) if own == total else None


# ------------------------------------------------------------------ profiles


def _count(held: t.Sequence[Facts] | None, name: str) -> int | None:
    return None if held is None else sum(int(one["count"]) for one in held if one["type"] == name)


def _whole(entry: _fleet_facts.Seen, workload: str | None, held: t.Sequence[Facts] | None, offered: _Offered) -> dict[str, t.Any]:
    gone = bool(entry.facts.get("fell_off_bus"))
    ready = False if gone else drives(workload, entry.facts.get("driver"))
    created = None if ready is None else int(ready)
    used = None if held is None else min(1, sum(int(one["count"]) for one in held if one["type"] == WHOLE))
    return {
        "profile": WHOLE,
        "max": 1,
        "created": created,
        "creatable": 0 if gone else None if created is None else 1 - created,
        "allocatable": offered.whole(entry),
        "used": used,
        "free": None if created is None or used is None else max(created - used, 0),
        "stranded": int(gone),
    }


def _profile(entry: _fleet_facts.Seen, name: str, made: Facts, held: t.Sequence[Facts] | None, offered: _Offered) -> dict[str, t.Any]:
    gpu = entry.gpu
    kind = gpu.by_name.get(name) if gpu else None
    known = not entry.unknown
    created = int(made.get(name, 0)) if known else None
    used = _count(held, name)
    row: dict[str, t.Any] = {"profile": name, "max": kind.most if kind else None, "created": created, "creatable": None}
    row |= {"allocatable": offered.vgpus(entry, name), "used": used, "stranded": None}
    # What a GPU that does not answer still shows in sysfs is nothing that anybody could have.
    row["free"] = 0 if entry.facts.get("fell_off_bus") else None if created is None or used is None else max(created - used, 0)
    if kind is None or gpu is None or not known or entry.left_out:
        return row
    more = _creatable(t.cast(t.Any, gpu), tuple(sorted(made.items())), name)
    if more is not None and entry.backend != "none":
        # The host's word: each virtual function takes one vGPU, and its driver may not have the type.
        listed = [kind for kind in entry.facts["vgpu"].get("types") or () if kind.get("plain") == name]
        more = min(more, sum(int(kind["available"]) for kind in listed)) if entry.facts["vgpu"].get("types") else more
    by_size = _by_size(gpu, made, name)
    if more is not None and by_size is not None:
        row.update(creatable=more, stranded=max(by_size - more, 0))
    return row


@functools.lru_cache(maxsize=4096)
def _creatable(gpu: t.Any, made: tuple[tuple[str, int], ...], name: str) -> int | None:
    """How many of a type can be made beside what is there. A GPU with one size stays in that mode: nothing but a person switches it."""
    mix = dict(made)
    sizes = {gpu.by_name[one].size_gb for one in mix if one in gpu.by_name and not gpu.by_name[one].slices}
    more = 0
    try:
        while more < gpu.by_name[name].most:
            found = _gpu_fits.fits(gpu, {**mix, name: mix.get(name, 0) + more + 1})
            if not found.fits or (found.mode == _gpu_fits.MIXED and len(sizes) < 2):
                break
            more += 1
    except ValueError:
        return None
    return more


def _by_size(gpu: Gpu, made: Facts, name: str) -> int | None:
    """How many of a type the framebuffer that nothing holds would take, were there no rule but size: at most as many as are still to be made."""
    if any(one not in gpu.by_name for one in made):
        return None
    kind = gpu.by_name[name]
    left = gpu.framebuffer_gb * 1024 - sum(gpu.by_name[one].framebuffer_mib * int(count) for one, count in made.items())
    return max(min(left // kind.framebuffer_mib, kind.most - int(made.get(name, 0))), 0)


# ------------------------------------------------------------------ the region


def strip_of(gpu: Gpu | None, made: t.Mapping[str, int], held: t.Sequence[Facts] | None) -> _strips.Strip:
    """The GPU's framebuffer from left to right, as pictures and placements show it."""
    holds = [{"vm": one["vm"], "type": one["type"], "count": one["count"]} for one in held or () if one["type"] in made]
    return _strips.strip({"types": dict(made), "holds": holds}, gpu)


def _region(entry: _fleet_facts.Seen, sliced: bool, held: t.Sequence[Facts] | None) -> dict[str, t.Any]:
    size = entry.gpu.framebuffer_gb if entry.gpu else None
    row: dict[str, t.Any] = {"size_gb": size, "free_gb": None, "stranded_gb": None, "placements": None, "placed": None}
    if not sliced or entry.gpu is None or entry.unknown or entry.left_out:
        return row
    strip = strip_of(entry.gpu, entry.board.present, held)
    if strip.size_gb != size:
        return row
    shown = [part for part in strip.stretches if part.what in (_strips.USED, _strips.IDLE)]
    return {
        "size_gb": size,
        "free_gb": strip.gb(_strips.FREE),
        "stranded_gb": strip.gb(_strips.LOST),
        "placements": [{"begin_gb": part.begin, "end_gb": part.end, "type": part.type} for part in shown],
        # The host's facts name no places: this is where the driver's rule puts them.
        "placed": "computed" if strip.order_known else "order not known",
    }
