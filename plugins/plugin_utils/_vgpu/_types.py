# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which type of which GPU a name means: one type name can be of two GPUs, with other figures."""

from __future__ import annotations

import difflib
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _type_names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu, VgpuType
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._type_names import Spellings, TypeName

#: How many names a message shows.
NEAREST = 4


class Known(t.NamedTuple):
    """A type, the GPU that it is of, and the name as it was read (an alias's suffix and the brand are there)."""

    gpu: Gpu
    kind: VgpuType
    name: TypeName


@functools.lru_cache(maxsize=1)
def _by_name() -> dict[str, tuple[tuple[Gpu, VgpuType], ...]]:
    found: dict[str, tuple[tuple[Gpu, VgpuType], ...]] = {}
    for gpu in _catalogue.gpus():
        for kind in gpu.types:
            found[kind.name] = (*found.get(kind.name, ()), (gpu, kind))
    return found


@functools.lru_cache(maxsize=1)
def _codes() -> frozenset[str]:
    return frozenset(gpu.code for gpu in _catalogue.gpus())


def nearest(name: TypeName, gpu: Gpu | None = None) -> list[str]:
    """Types that may have been meant: of the GPU's code and series by size, then of the code, then of codes that are spelled alike."""

    def order(kind: VgpuType) -> tuple[bool, bool, int, str]:
        return kind.series != name.series, bool(kind.slices) != bool(name.slices), abs(kind.size_gb - name.size_gb), kind.name

    if gpu is None:
        codes = [name.code] if name.code in _codes() else difflib.get_close_matches(name.code, sorted(_codes()), n=3, cutoff=0.5)
        kinds = [kind for code in codes for found in _catalogue.gpus() if found.code == code for kind in found.types]
    else:
        kinds = list(gpu.types)
    return list(dict.fromkeys(kind.name for kind in sorted(kinds, key=order)))[:NEAREST]


def resolve(text: str, gpu: Gpu | None = None) -> Known:
    """The type that a name in any spelling means, of this GPU or of the only GPU that has it.

    A brand in the name (``NVIDIA RTX Pro 6000 Blackwell DC-16Q``) decides between two GPUs; else it is not looked at, because it can differ
    between drivers.

    :raises ValueError: no GPU has such a type, or several have; names the nearest, or the GPUs.
    """
    name = _type_names.parse(text)
    if gpu is not None:
        if name.plain in gpu.by_name:
            return Known(gpu, gpu.by_name[name.plain], name)
        owners = ", ".join(owner.family for owner, _kind in _by_name().get(name.plain, ()))
        other = f"it is one of {owners}" if owners else "no GPU has it"
        raise ValueError(
            f"{text!r} is no vGPU type of {gpu.family}: {other}. The nearest of {gpu.family} are {', '.join(nearest(name, gpu))}"
        )
    found = _by_name().get(name.plain, ())
    if len(found) > 1:
        brand = " ".join(name.brand.upper().split())
        found = tuple(entry for entry in found if entry[0].prefix and entry[0].prefix.upper() == brand) or found
    if len(found) == 1:
        return Known(*found[0], name)
    if found:
        each = ", ".join(f"{owner.family} ({owner.product}; at most {kind.most})" for owner, kind in found)
        raise ValueError(f"{text!r} is a vGPU type of several GPUs: {each}. Say which GPU")
    near = nearest(name)
    raise ValueError(f"{text!r} is no vGPU type that is known" + (f": the nearest are {', '.join(near)}" if near else ""))


def spellings(gpu: Gpu, kind: VgpuType) -> Spellings:
    """A type of a GPU, spelled for each place. The driver's name is the catalogue's: on a host, the host's own counts."""
    aliases = [alias for alias, plain in _catalogue.stock_aliases().items() if plain == kind.name] if gpu.gfx_keys else []
    return _type_names.spell(kind.name, gpu.mdev_name(kind.name), aliases)
