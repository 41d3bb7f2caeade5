# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The GPU that a question is about: named, given by PCI id, or read from a host; and what the host itself says of its types."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import GPU_CLASSES, plain_type
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu


@dataclasses.dataclass(frozen=True)
class HostGpu:
    """A GPU of the catalogue.

    ``names`` are the driver's names of types by plain type, where a host was read and lists some; ``backend`` and ``why`` (no backend) are the
    host's, None where no host was read. ``pci`` is the vendor and device id of the host's GPU.
    """

    gpu: Gpu
    names: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    backend: str | None = None
    why: str | None = None
    pci: str | None = None
    mig_on: bool | None = None


def _mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    """Facts as they are; what was not read is empty."""
    return value if isinstance(value, t.Mapping) else {}


def _read(entry: t.Mapping[str, t.Any]) -> HostGpu:
    pci = entry.get("vendor_device")
    if not isinstance(pci, str) or ":" not in pci:
        raise ValueError(
            f"vendor_device of the GPU is {pci!r}: give a model, a PCI id, or an entry of the list gpus that gpu_node_info returned, "
            "which has vendor_device such as 10DE:2236"
        )
    where = f"{entry.get('address') or 'a function'} ({pci})"
    if entry.get("class") not in (None, *GPU_CLASSES):
        raise ValueError(f"{where} has PCI class {entry['class']} and is no GPU (those are {', '.join(GPU_CLASSES)}): give another entry")
    subsystem = entry.get("subsystem")
    try:
        gpu = _catalogue.find(pci, subsystem if isinstance(subsystem, str) else "")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    vgpu, mode = _mapping(entry.get("vgpu")), _mapping(entry.get("mig")).get("mode")
    names = [_mapping(kind).get("name") for kind in vgpu.get("types") or ()]
    listed = {plain_type(name) or name: name for name in names if isinstance(name, str)}
    return HostGpu(
        gpu, listed, vgpu.get("backend"), vgpu.get("why"), pci.upper(), None if mode is None else mode in (True, "enabled", "Enabled")
    )


def of(given: t.Any) -> HostGpu:
    """What is meant by a model name, a PCI id (with subsystem or not) or an entry of ``gpus`` of ``gpu_node_info``.

    :raises ValueError: no or several GPUs are meant, or one without vGPU types; names them or the nearest.
    """
    if isinstance(given, t.Mapping):
        return _read(given)
    return HostGpu(_catalogue.find(given))


def of_plan(entry: t.Mapping[str, t.Any]) -> Gpu | None:
    """The catalogue's entry of a GPU of a plan, or None if it has none."""
    for key in ("gpu", "vendor_device"):
        if isinstance(entry.get(key), str):
            try:
                return _catalogue.find(entry[key], entry.get("subsystem") or "")
            except ValueError:
                continue
    return None
