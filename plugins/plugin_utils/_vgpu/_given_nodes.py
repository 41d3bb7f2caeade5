# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The nodes of a fleet and their GPUs, read from what ``vgpu_plan`` is given."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet, _given, _offers


def _known_type(item: _given.Item, offer: _offers.Offer, name: str) -> _offers.Kind:
    kind = offer.kind(name)
    if kind is None:
        item.wrong(f"the {offer.family} has no vGPU type {name!r}; nearest: {_offers.nearest(name, (kind.name for kind in offer.kinds))}")
    return kind


def _present(item: _given.Item, offer: _offers.Offer) -> tuple[tuple[str, int], ...] | None:
    given = item.mapping("present")
    if given is None:
        return None
    for name, count in given.items():
        kind = _known_type(item, offer, str(name))
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            item.wrong(f"present {name}: a count of at least 1 is needed, not {count!r}")
        if count > kind.most:
            item.wrong(f"present {name}: {count} do not fit on one {offer.family}, at most {kind.most} do")
    kinds = {_known_type(item, offer, str(name)).mig for name in given}
    if len(kinds) > 1:
        item.wrong(f"present {', '.join(sorted(given))}: time-sliced and MIG-backed types never share a GPU")
    return tuple(sorted((str(name), count) for name, count in given.items()))


def _holdings(item: _given.Item, offer: _offers.Offer, present: tuple[tuple[str, int], ...] | None) -> tuple[_fleet.Holding, ...]:
    found = []
    for entry in item.entries("vms"):
        vm = _given.Item(f"{item.where}, vms", entry, ("name", "type", "count"))
        vm.where = f"{item.where}, VM {vm.text('name')}"
        found.append(_fleet.Holding(vm.text("name"), _known_type(vm, offer, vm.text("type")).name, vm.whole("count", 1, 1)))
    if found and present is None:
        item.wrong(f"VM {found[0].vm} runs there, but present is not given; say what is made on the GPU now")
    made = dict(present or ())
    for name in sorted({holding.type for holding in found}):
        held = sum(holding.count for holding in found if holding.type == name)
        if held > made.get(name, 0):
            item.wrong(f"VMs hold {held} of {name}, but present has {made.get(name, 0)}; correct one of them")
    return tuple(sorted(found, key=lambda holding: (holding.vm, holding.type)))


def _check_mode(item: _given.Item, mode: str, offer: _offers.Offer, owner: str, vfio_pool: str | None) -> None:
    if mode != "mixed":
        return
    if owner != "host":
        item.wrong("mode mixed needs owner host: the operator's device manager never switches mixed sizes on; use mode equal")
    if not offer.places:
        item.wrong(f"the {offer.family} has no mixed-size mode; use mode equal")
    if vfio_pool is not None:
        item.wrong("mode mixed cannot be used where KubeVirt picks virtual functions by PCI id, which all sizes share; use mode equal")


_GPU_KEYS = ("index", "address", "gpu", "vendor_device", "subsystem", "mode", "present", "vms")
_NODE_KEYS = ("name", "labels", "owner", "mode", "backend", "pool", "gpus")


def _gpu(node: _given.Item, value: t.Any, mode: str, owner: str, vfio_pool: str | None) -> _fleet.Gpu:
    item = _given.Item(f"{node.where}, gpus", value, _GPU_KEYS)
    index = item.whole("index", 0)
    item.where = f"{node.where}, GPU {index}"
    model, pci = item.optional("gpu"), item.optional("vendor_device")
    if not model and not pci:
        item.wrong("gpu or vendor_device is needed")
    try:
        offer = _offers.find(model or pci or "", item.optional("subsystem") or "")
    except ValueError as error:
        item.wrong(str(error))
    if pci and pci.upper() not in offer.pci:
        item.wrong(f"vendor_device {pci} is no {offer.family}, which has {', '.join(offer.pci)}")
    mode = item.choice("mode", _fleet.MODES, mode)
    _check_mode(item, mode, offer, owner, vfio_pool)
    present = _present(item, offer)
    return _fleet.Gpu(
        node=node.text("name"),
        index=index,
        address=item.optional("address"),
        offer=offer,
        vendor_device=(pci or offer.pci[0]).upper(),
        subsystem=item.optional("subsystem"),
        mode=mode,
        present=present,
        holdings=_holdings(item, offer, present),
        vfio_pool=vfio_pool,
    )


def nodes(values: t.Any) -> tuple[list[_fleet.Gpu], dict[str, dict[str, str]]]:
    """All GPUs in the order of node and index, and the labels per node."""
    if not isinstance(values, list) or not values:
        raise ValueError("fleet: a list of nodes is needed, with at least one")
    gpus: list[_fleet.Gpu] = []
    labels: dict[str, dict[str, str]] = {}
    for value in values:
        node = _given.Item("fleet", value, _NODE_KEYS)
        name = node.text("name")
        node.where = f"node {name}"
        if name in labels:
            node.wrong("it is in the fleet twice; merge its GPUs into one entry")
        labels[name] = {str(key): str(entry) for key, entry in (node.mapping("labels") or {}).items()}
        owner = node.choice("owner", ("operator", "host"), "operator")
        mode = node.choice("mode", _fleet.MODES, "equal")
        vfio = node.choice("backend", ("mdev", "vendor_vfio"), "mdev") == "vendor_vfio"
        pool = node.text("pool", "default")
        seen: set[int] = set()
        for entry in node.entries("gpus"):
            gpu = _gpu(node, entry, mode, owner, pool if vfio else None)
            if gpu.index in seen:
                node.wrong(f"GPU {gpu.index} is there twice")
            seen.add(gpu.index)
            gpus.append(gpu)
    return sorted(gpus, key=lambda gpu: (gpu.node, gpu.index)), labels
