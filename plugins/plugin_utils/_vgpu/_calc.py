# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The profile calculator: one GPU and a type, a size, a number of VMs or a mix; how many fit, under which names, and what is to be known.

Answers say in ``caveats`` how far they are proven: ``[C]`` computed from sources, ``[U]`` not verified, ``[X]`` sources conflict, no tag: as
a source prints it. Nothing was measured on hardware.
"""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import (
    _catalogue,
    _gpu_fits,
    _host_gpu,
    _orders,
    _placement,
    _type_names,
    _types,
)
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu, VgpuType
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu_fits import GpuFit
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._host_gpu import HostGpu

#: The series in the order in which they are taken where none is given.
SERIES = "QCBA"
VENDOR_VFIO = "vendor_vfio"

NAMES_FROM_HOST = (
    "Names are as the driver's source has them; its words before a type differ by GPU and release. "
    "Read them from the host (gpu_node_info, or mdev_supported_types/*/name) before you permit them."
)
NO_NAME = (
    "[U] The words that the driver writes before a type of this GPU are not known: mdev, resource and selector are null. "
    "Read them from the host with gpu_node_info and give its entry."
)
BY_PCI_ID = (
    "The host uses vendor-specific VFIO: KubeVirt (1.9 or newer) permits virtual functions by PCI id, so one resource stands for all types "
    "of this PCI id, and you choose its name."
)
DOUBTS = {
    "same": "[C] {name}: its maximum is taken from the type of another series with the same size.",
    "floor": "[C] {name}: its maximum is computed from its size and the framebuffer, no source prints it.",
    "gi": "[C] {name}: its maximum is computed from the size of a GPU instance, no source prints it.",
    "Dgi": "[X] {name}: the source that prints its maximum seems to mean one GPU instance; it is multiplied here.",
}
CHECK = " Compare with 'nvidia-smi vgpu -s -v' on the host."


def _kind(gpu: Gpu, name: t.Any) -> VgpuType:
    """The type of a GPU that a name in any spelling means.

    :raises ValueError: the GPU has no such type; names the nearest, and whose type it is.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no vGPU type: write one as {gpu.types[0].name}")
    return _types.resolve(name, gpu).kind


def _whole(name: str, value: t.Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}: write a whole number from {least} on")
    return value


def _letter(gpu: Gpu, series: t.Any) -> str:
    """The series that is meant; None is the first of Q, C, B, A that the GPU has."""
    had = "".join(letter for letter in SERIES if any(kind.series == letter for kind in gpu.types))
    if series is None:
        return had[0]
    if not isinstance(series, str) or series.upper() not in tuple(SERIES):
        raise ValueError(f"series is {series!r}: write one of {', '.join(had)}")
    if series.upper() not in had:
        raise ValueError(f"{gpu.family} ({gpu.product}) has no types of series {series.upper()}; it has {', '.join(had)}")
    return series.upper()


def _of_size(gpu: Gpu, size_gb: t.Any, series: t.Any) -> VgpuType:
    _whole("size_gb", size_gb, 0)
    letters = _letter(gpu, series) if series is not None else SERIES
    found = {kind.series: kind for kind in gpu.types if not kind.slices and kind.size_gb == size_gb}
    kind = next((found[letter] for letter in letters if letter in found), None)
    if kind is None:
        sizes = sorted({kind.size_gb for kind in gpu.types if not kind.slices and kind.series in letters})
        near = sorted(sizes, key=lambda size: (abs(size - size_gb), -size))[:3]
        what = f"series {letters}" if series is not None else "any series"
        raise ValueError(
            f"{gpu.family} ({gpu.product}) has no type of {size_gb} GB of {what}; the nearest sizes are {', '.join(map(str, sorted(near)))} GB"
        )
    return kind


@functools.lru_cache(maxsize=2048)
def _mixed_most(gpu: Gpu, kind: VgpuType) -> int | None:
    """How many of a type fit in mixed-size mode, None if there is no such mode for it."""
    region = None if kind.slices else _placement.region_of(gpu)
    return None if region is None else len(_placement.ids(region, _placement.placement_size(gpu, kind.size_gb)))


def _names(host: HostGpu, kind: VgpuType) -> dict[str, str | None]:
    mdev = host.names.get(kind.name) or host.gpu.mdev_name(kind.name)
    if host.backend == VENDOR_VFIO:
        return {"plain": kind.name, "mdev": mdev, "resource": None, "selector": host.pci}
    return {"plain": kind.name, "mdev": mdev, "resource": _type_names.resource_of(mdev) if mdev else None, "selector": mdev}


def _stock_caveat(gpu: Gpu, kind: VgpuType) -> str | None:
    if kind.name in _catalogue.known_profiles() and gpu.stock:
        return None
    beside = [other.name for other in gpu.types if other.size_gb == kind.size_gb and other.slices == kind.slices]
    have = [name for name in beside if name in _catalogue.known_profiles()] if gpu.stock else []
    more = f"; of this size it has {', '.join(have)}" if have else ""
    return (
        f"{kind.name} is not in NVIDIA's stock configuration of the vGPU Device Manager, which has only series Q and C of newer GPUs{more}. "
        "Give the operator a configuration of your own (vgpu_device_config)."
    )


def _host_caveats(host: HostGpu, kinds: t.Sequence[VgpuType]) -> list[str]:
    """What the host's own word adds, or what is missing without it."""
    found = []
    if not host.names:
        found.append(NO_NAME if host.gpu.prefix is None else NAMES_FROM_HOST)
        if host.backend == "none":
            found.append(
                f"The host makes no vGPUs of this GPU now: {host.why or 'it says not why'}. This is what the GPU can have once it does."
            )
    for kind in kinds:
        if host.names and kind.name not in host.names:
            found.append(
                f"The host does not list {kind.name} now, it lists {', '.join(sorted(host.names)[:8])}: its driver may not have it, or what exists "
                "on the GPU may exclude it."
            )
    if host.backend == VENDOR_VFIO:
        found.append(BY_PCI_ID)
    wrong = {bool(kind.slices) for kind in kinds} - {host.mig_on} if host.mig_on is not None else set()
    if wrong:
        found.append(f"MIG mode of this GPU is {'on' if host.mig_on else 'off'} now, and has to be {'off' if host.mig_on else 'on'}.")
    return found


def _caveats(host: HostGpu, kinds: t.Sequence[VgpuType], said: t.Iterable[str]) -> list[str]:
    gpu = host.gpu
    found = _host_caveats(host, kinds)
    for kind in kinds:
        if kind.evidence in DOUBTS:
            found.append(DOUBTS[kind.evidence].format(name=kind.name) + CHECK)
        stock = _stock_caveat(gpu, kind)
        if stock:
            found.append(stock)
    if gpu.legacy:
        found.append(f"{gpu.family} is a GPU of old vGPU releases; its figures are of 2022.")
    if gpu.gpus_per_board > 1:
        found.append(f"A board has {gpu.gpus_per_board} GPUs; all figures are of one GPU.")
    return [*found, *said]


def _ids(gpu: Gpu, kind: VgpuType) -> dict[str, list[int] | None]:
    """The placement ids of a type in both modes; None where there are none."""
    if kind.slices:
        return {"equal": None, "mixed": None}
    equal = _placement.equal_ids(gpu, kind.size_gb)
    mixed = _placement.mixed_ids(gpu).get(_placement.placement_size(gpu, kind.size_gb))
    return {"equal": None if equal is None else list(equal), "mixed": None if mixed is None else list(mixed)}


def _placements(fit: GpuFit) -> dict[str, t.Any]:
    return {
        "mode": fit.mode or None,
        "order": fit.order or None,
        "required": fit.order == _orders.IDS,
        "placements": [
            {"type": one.type, "id": one.id, "size_gb": one.size_gb, **({"instance": one.instance} if one.instance else {})}
            for one in fit.placements
        ],
    }


def _figures(host: HostGpu, kind: VgpuType) -> dict[str, t.Any]:
    return {
        "max": {"equal": kind.most, "mixed": _mixed_most(host.gpu, kind)},
        "framebuffer_mib": kind.framebuffer_mib,
        "licence": kind.licence,
        "names": _names(host, kind),
    }


def _one(host: HostGpu, kind: VgpuType, count: int, more: t.Sequence[dict[str, int]] = ()) -> dict[str, t.Any]:
    """The answer about one type, of which ``count`` are wanted."""
    fit = _gpu_fits.fits(host.gpu, {kind.name: count})
    mixes = [dict(mix) for mix in fit.nearest] if not fit.fits else [dict(mix) for mix in more] or [{kind.name: kind.most}]
    return {
        "gpu": host.gpu.family,
        "type": kind.name,
        **_figures(host, kind),
        "fits": fit.fits,
        "why_not": fit.why,
        "mixes": mixes,
        "placement_ids": {**_placements(fit), **_ids(host.gpu, kind)},
        "caveats": _caveats(host, [kind], fit.caveats),
    }


def _for_vms(host: HostGpu, vms: t.Any, series: t.Any) -> dict[str, t.Any]:
    """The largest time-sliced type of which one GPU holds that many."""
    count, letter = _whole("vms", vms, 1), _letter(host.gpu, series)
    kinds = sorted((kind for kind in host.gpu.types if not kind.slices and kind.series == letter), key=lambda kind: -kind.size_gb)
    if not kinds:
        raise ValueError(f"{host.gpu.family} ({host.gpu.product}) has no time-sliced types of series {letter}; ask for a type")
    enough = [kind for kind in kinds if kind.most >= count]
    if not enough:
        # The one that most fit of, of these the largest.
        return _one(host, max(kinds, key=lambda kind: kind.most), count)
    return _one(host, enough[0], count, [{kind.name: kind.most} for kind in enough])


def _for_mix(host: HostGpu, mix: t.Any) -> dict[str, t.Any]:
    if not isinstance(mix, t.Mapping) or not mix:
        raise ValueError(f"mix is {mix!r}: write types with how many of each, such as {{{host.gpu.types[0].name}: 1}}")
    wanted: dict[str, int] = {}
    for name, count in mix.items():
        kind = _kind(host.gpu, name)
        wanted[kind.name] = wanted.get(kind.name, 0) + _whole(f"mix, {name}", count, 1)
    kinds = [host.gpu.by_name[name] for name in wanted]
    if len(kinds) == 1:
        return _one(host, kinds[0], next(iter(wanted.values())), [wanted])
    fit = _gpu_fits.fits(host.gpu, wanted)
    figures = {kind.name: _figures(host, kind) for kind in kinds}
    return {
        "gpu": host.gpu.family,
        "type": None,
        **{key: {name: entry[key] for name, entry in figures.items()} for key in ("max", "framebuffer_mib", "licence", "names")},
        "fits": fit.fits,
        "why_not": fit.why,
        "mixes": [wanted] if fit.fits else [dict(near) for near in fit.nearest],
        "placement_ids": _placements(fit),
        "caveats": _caveats(host, kinds, fit.caveats),
    }


def profile_calc(
    gpu: t.Any,
    type: t.Any = None,  # noqa: A002
    size_gb: t.Any = None,
    series: t.Any = None,
    vms: t.Any = None,
    mix: t.Any = None,
) -> dict[str, t.Any]:
    """What one GPU can be made into. Arguments and result: documentation of the filter ``vgpu_profile_calc``.

    :raises ValueError: no GPU or type is meant, or the question is none; the message names the item, the reason and what is nearest.
    """
    asked = [name for name, value in (("type", type), ("size_gb", size_gb), ("vms", vms), ("mix", mix)) if value is not None]
    if len(asked) != 1:
        given = f"{' and '.join(asked)} were" if asked else "nothing was"
        raise ValueError(f"{given} given: give one of type, size_gb, vms and mix")
    if series is not None and asked[0] not in ("size_gb", "vms"):
        raise ValueError(f"series goes with size_gb or vms: {asked[0]} says the series itself")
    host = _host_gpu.of(gpu)
    if asked[0] == "mix":
        return _for_mix(host, mix)
    if asked[0] == "vms":
        return _for_vms(host, vms, series)
    kind = _kind(host.gpu, type) if asked[0] == "type" else _of_size(host.gpu, size_gb, series)
    return _one(host, kind, kind.most)
