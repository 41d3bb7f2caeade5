# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A fleet and the demands on it, read from what a filter is given. Every error names the item, the reason and the nearest valid choice."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _offers

MODES = ("equal", "mixed", "keep", "exclude")
SERIES = ("A", "B", "C", "Q")


@dataclasses.dataclass(frozen=True)
class Holding:
    """A running VM's vGPUs of one type on one GPU."""

    vm: str
    type: str
    count: int


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU. ``present`` is what is made on it now, or None if nobody knows; ``mode`` is what the planner may do with it."""

    node: str
    index: int
    address: str | None
    offer: _offers.Offer
    vendor_device: str
    subsystem: str | None
    mode: str
    present: tuple[tuple[str, int], ...] | None
    holdings: tuple[Holding, ...]
    #: The cluster pool in which KubeVirt picks virtual functions by PCI id, or None on the mdev backend.
    vfio_pool: str | None

    @property
    def name(self) -> str:
        return f"{self.node}/{self.index}"

    def held(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for holding in self.holdings:
            held[holding.type] = held.get(holding.type, 0) + holding.count
        return held


@dataclasses.dataclass(frozen=True)
class Demand:
    """``count`` vGPUs of any of the types ``accepts`` on the GPUs ``scope``; two of one ``spread`` group never on one node."""

    name: str
    wish: str
    count: int
    accepts: frozenset[str]
    scope: frozenset[str]
    spread: str | None


@dataclasses.dataclass(frozen=True)
class Fleet:
    gpus: tuple[Gpu, ...]
    demands: tuple[Demand, ...]


class _Item:
    """A mapping that was given, with words for its errors, and no keys but those that are read."""

    def __init__(self, where: str, value: t.Any, keys: t.Iterable[str]) -> None:
        if not isinstance(value, t.Mapping):
            raise ValueError(f"{where}: a mapping is needed, not {value!r}")
        for key in value:
            if key not in keys:
                raise ValueError(f"{where}: unknown key {key!r}; nearest: {_offers.nearest(str(key), keys)}")
        self.where = where
        self.value = value

    def wrong(self, words: str) -> t.NoReturn:
        raise ValueError(f"{self.where}: {words}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value.get(key, default)
        if not isinstance(value, str) or not value:
            self.wrong(f"{key} is needed, a word" if value is None else f"{key} must be a word, not {value!r}")
        return value

    def optional(self, key: str) -> str | None:
        return None if self.value.get(key) is None else self.text(key)

    def whole(self, key: str, least: int, default: int | None = None) -> int:
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.wrong(f"{key} must be a whole number of at least {least}, not {value!r}")
        return value

    def choice(self, key: str, choices: t.Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            self.wrong(f"{key} {value!r} is none of {', '.join(choices)}; nearest: {_offers.nearest(value, choices, 1)}")
        return value

    def entries(self, key: str) -> list[t.Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(f"{key} must be a list, not {value!r}")
        return value

    def words(self, key: str) -> list[str]:
        for entry in self.entries(key):
            if not isinstance(entry, str):
                self.wrong(f"{key} must be a list of words, not {entry!r}")
        return self.entries(key)

    def mapping(self, key: str) -> dict[str, t.Any] | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, t.Mapping):
            self.wrong(f"{key} must be a mapping, not {value!r}")
        return None if value is None else dict(value)


def _known_type(item: _Item, offer: _offers.Offer, name: str) -> _offers.Kind:
    kind = offer.kind(name)
    if kind is None:
        item.wrong(f"the {offer.family} has no vGPU type {name!r}; nearest: {_offers.nearest(name, (kind.name for kind in offer.kinds))}")
    return kind


def _present(item: _Item, offer: _offers.Offer) -> tuple[tuple[str, int], ...] | None:
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


def _holdings(item: _Item, offer: _offers.Offer, present: tuple[tuple[str, int], ...] | None) -> tuple[Holding, ...]:
    found = []
    for entry in item.entries("vms"):
        vm = _Item(f"{item.where}, vms", entry, ("name", "type", "count"))
        vm.where = f"{item.where}, VM {vm.text('name')}"
        found.append(Holding(vm.text("name"), _known_type(vm, offer, vm.text("type")).name, vm.whole("count", 1, 1)))
    if found and present is None:
        item.wrong(f"VM {found[0].vm} runs there, but present is not given; say what is made on the GPU now")
    made = dict(present or ())
    for name in sorted({holding.type for holding in found}):
        held = sum(holding.count for holding in found if holding.type == name)
        if held > made.get(name, 0):
            item.wrong(f"VMs hold {held} of {name}, but present has {made.get(name, 0)}; correct one of them")
    return tuple(sorted(found, key=lambda holding: (holding.vm, holding.type)))


def _check_mode(item: _Item, mode: str, offer: _offers.Offer, owner: str, vfio_pool: str | None) -> None:
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


def _gpu(node: _Item, value: t.Any, mode: str, owner: str, vfio_pool: str | None) -> Gpu:
    item = _Item(f"{node.where}, gpus", value, _GPU_KEYS)
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
    mode = item.choice("mode", MODES, mode)
    _check_mode(item, mode, offer, owner, vfio_pool)
    present = _present(item, offer)
    return Gpu(
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


def _nodes(values: t.Any) -> tuple[list[Gpu], dict[str, dict[str, str]]]:
    """All GPUs in the order of node and index, and the labels per node."""
    if not isinstance(values, list) or not values:
        raise ValueError("fleet: a list of nodes is needed, with at least one")
    gpus: list[Gpu] = []
    labels: dict[str, dict[str, str]] = {}
    for value in values:
        node = _Item("fleet", value, _NODE_KEYS)
        name = node.text("name")
        node.where = f"node {name}"
        if name in labels:
            node.wrong("it is in the fleet twice; merge its GPUs into one entry")
        labels[name] = {str(key): str(entry) for key, entry in (node.mapping("labels") or {}).items()}
        owner = node.choice("owner", ("operator", "host"), "operator")
        mode = node.choice("mode", MODES, "equal")
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


@dataclasses.dataclass(frozen=True)
class Offers:
    """The GPU models of a fleet by family code, and all their types by name."""

    models: dict[str, _offers.Offer]
    kinds: dict[str, _offers.Kind]


def _accepted(item: _Item, offers: Offers, right_size: bool) -> tuple[str, frozenset[str]]:
    """What would serve a demand, by name, and how the demand is put."""
    kinds = offers.kinds
    named = item.optional("type")
    if named:
        if "size_gb" in item.value or "series" in item.value:
            item.wrong("give either type, or size_gb and series")
        if named not in kinds:
            why = "no GPU of this fleet has it" if named in _offers.every_type() else "no GPU has it"
            item.wrong(f"type {named}: {why}; nearest: {_offers.nearest(named, kinds)}")
        wanted = kinds[named]
        families = [offer for offer in offers.models.values() if offer.kind(named)]
        more = [] if wanted.mig or not right_size else [kind for offer in families for kind in offer.kinds]
        larger = {kind.name for kind in more if not kind.mig and kind.series == wanted.series and kind.size_gb >= wanted.size_gb}
        return named, frozenset(larger | {named})
    size, series = item.whole("size_gb", 0), item.choice("series", SERIES, "")
    sizes = sorted({kind.size_gb for kind in kinds.values() if kind.series == series and not kind.mig})
    if size not in sizes and not (right_size and sizes and size < sizes[-1]):
        have = f"series {series} has {', '.join(map(str, sizes))} GB here" if sizes else f"no GPU of this fleet has series {series}"
        close = f"; nearest: {min(sizes, key=lambda known: (abs(known - size), known))}" if sizes else ""
        item.wrong(f"no GPU of this fleet has {size} GB of series {series}; {have}{close}")
    fit = {
        kind.name
        for kind in kinds.values()
        if not kind.mig and kind.series == series and (kind.size_gb == size or (right_size and kind.size_gb > size))
    }
    return f"{size}{series}", frozenset(fit)


_DEMAND_KEYS = ("name", "type", "size_gb", "series", "count", "nodes", "gpus", "node_labels", "exclude_nodes", "spread")


def _scope(item: _Item, gpus: list[Gpu], labels: dict[str, dict[str, str]]) -> list[Gpu]:
    """The GPUs that the demand's pins and exclusions leave."""
    for key in ("nodes", "exclude_nodes"):
        for name in item.words(key):
            if name not in labels:
                item.wrong(f"{key}: the fleet has no node {name!r}; nearest: {_offers.nearest(name, labels)}")
    names = {gpu.name for gpu in gpus}
    for name in item.words("gpus"):
        if not re.fullmatch(r".+/[0-9]+", name) or name not in names:
            item.wrong(f"gpus: the fleet has no GPU {name!r}, put as NODE/INDEX; nearest: {_offers.nearest(name, names)}")
    wanted = {str(key): str(value) for key, value in (item.mapping("node_labels") or {}).items()}
    pinned, pinned_gpus, left_out = item.words("nodes"), item.words("gpus"), item.words("exclude_nodes")
    found = [
        gpu
        for gpu in gpus
        if (not pinned or gpu.node in pinned)
        and (not pinned_gpus or gpu.name in pinned_gpus)
        and gpu.node not in left_out
        and wanted.items() <= labels[gpu.node].items()
    ]
    if not found:
        known = sorted({f"{key}={value}" for given in labels.values() for key, value in given.items() if key in wanted})
        hint = f"; nodes have {', '.join(known)}" if wanted and known else ""
        item.wrong(f"its pins and exclusions (nodes, gpus, node_labels, exclude_nodes) contradict each other: no GPU is left{hint}")
    open_ = [gpu for gpu in found if gpu.mode != "exclude"]
    if not open_:
        item.wrong(f"it is pinned to {', '.join(sorted({gpu.name for gpu in found}))}, which the plan excludes; free it or pin elsewhere")
    return open_


#: What pins leave, by wish and pins: most demands share it.
Scopes = dict[tuple[str, ...], frozenset[str]]


def _demand(value: t.Any, gpus: list[Gpu], offers: Offers, labels: dict[str, dict[str, str]], right_size: bool, scopes: Scopes) -> Demand:
    item = _Item("demands", value, _DEMAND_KEYS)
    name = item.text("name")
    item.where = f"demand {name}"
    count = item.whole("count", 1, 1)
    wish, accepts = _accepted(item, offers, right_size)
    key = (wish, *(repr(item.value.get(entry)) for entry in ("nodes", "gpus", "node_labels", "exclude_nodes")))
    if key not in scopes:
        scope = _scope(item, gpus, labels)
        scopes[key] = frozenset(gpu.name for gpu in scope if not accepts.isdisjoint(gpu.offer.names))
    able = scopes[key]
    if not able:
        others = sorted({gpu.node for gpu in gpus if not accepts.isdisjoint(gpu.offer.names)})
        item.wrong(f"its pins leave only GPUs that have no {wish}; nodes that have it: {', '.join(others[:5])}")
    spread = item.value.get("spread")
    if spread is True:
        spread = f"demand {name}"
    elif spread in (None, False):
        spread = None
    elif not isinstance(spread, str):
        item.wrong(f"spread must be true or the name of a group, not {spread!r}")
    return Demand(name, wish, count, accepts, able, spread)


def read(fleet: t.Any, demands: t.Any, right_size: bool = False) -> Fleet:
    """The fleet and demands of ``vgpu_plan`` (shapes in its documentation), sorted, so that their order never matters. ValueError if wrong."""
    gpus, labels = _nodes(fleet)
    if not gpus:
        raise ValueError("fleet: none of its nodes has a GPU; list them under gpus")
    if not isinstance(demands, list):
        raise ValueError(f"demands: a list is needed, not {demands!r}")
    models = {gpu.offer.family: gpu.offer for gpu in gpus}
    offers = Offers(models, {kind.name: kind for offer in models.values() for kind in offer.kinds})
    scopes: Scopes = {}
    found: dict[str, Demand] = {}
    for value in demands:
        demand = _demand(value, gpus, offers, labels, right_size, scopes)
        if demand.name in found:
            raise ValueError(f"demand {demand.name}: it is there twice; add its counts or name them apart")
        found[demand.name] = demand
    return Fleet(tuple(gpus), tuple(found[name] for name in sorted(found)))
