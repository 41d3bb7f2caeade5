# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a GPU can be made into, as the planner sees it: types with how many fit, and where they may lie when sizes are mixed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _placement


@dataclasses.dataclass(frozen=True)
class Kind:
    """One vGPU type of one GPU model: nominal GB, how many fit on a GPU that has nothing else, and whether it takes a MIG instance."""

    name: str
    series: str
    size_gb: int
    most: int
    mig: bool


@dataclasses.dataclass(frozen=True)
class Offer:
    """A GPU model. ``places`` are, per nominal GB, what a vGPU occupies in mixed-size mode and at which ids; empty where there is no such mode."""

    family: str
    product: str
    pci: tuple[str, ...]
    region_gb: int
    kinds: tuple[Kind, ...]
    places: tuple[tuple[int, int, tuple[int, ...]], ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Kind]:
        return {kind.name: kind for kind in self.kinds}

    @functools.cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.by_name)

    def kind(self, name: str) -> Kind | None:
        return self.by_name.get(name)


@functools.cache
def offer(family: str) -> Offer:
    """What a GPU of the catalogue can be made into, by its family code."""
    gpu = _catalogue.find(family)
    region = _placement.region_of(gpu)
    sizes = sorted({kind.size_gb for kind in gpu.types if not kind.slices})
    return Offer(
        family=gpu.family,
        product=gpu.product,
        pci=tuple(f"10DE:{pci.device}" for pci in gpu.pci),
        region_gb=gpu.framebuffer_gb,
        kinds=tuple(
            sorted(
                (Kind(kind.name, kind.series, kind.size_gb, kind.most, kind.slices > 0) for kind in gpu.types),
                key=lambda kind: (kind.mig, kind.size_gb, kind.name),
            )
        ),
        places=tuple(
            (size, _placement.placement_size(gpu, size), _placement.ids(region, _placement.placement_size(gpu, size))) for size in sizes
        )
        if region
        else (),
    )


@functools.lru_cache(maxsize=1)
def every_type() -> frozenset[str]:
    """The names of all vGPU types of all GPUs."""
    return frozenset(kind.name for gpu in _catalogue.gpus() for kind in gpu.types)


def nearest(word: str, known: t.Iterable[str], most: int = 3) -> str:
    """Words for an error message: what is nearest to a name, or all of it when nothing is and it is short."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    found = [folded[name] for name in difflib.get_close_matches(word.casefold(), list(folded), n=most, cutoff=0.5)]
    return ", ".join(found or names[:most]) or "nothing"


def find(model: str, subsystem: str = "") -> Offer:
    """A GPU by family code, product name or PCI id (``10DE:2236``), with its subsystem where models share it. ValueError with the nearest names."""
    return offer(_catalogue.find(model, subsystem).family)
