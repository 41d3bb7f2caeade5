# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is wrong with one configuration of the vGPU Device Manager, beyond its grammar: what it would do to GPUs, and whether it can succeed.

The Device Manager applies each entry in turn to each GPU that its filter and indexes match, and takes a configuration for applied when every GPU
of the node is matched and holds what each entry that matches it says. Sources: NVIDIA/vgpu-device-manager acb72704 pkg/vgpu/config.go,
pkg/types/vgpu_config.go:36-53, api/spec/v1/helpers.go, cmd/nvidia-vgpu-dm/assert/config.go:37-66.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _gpu_fits, _type_names, _types
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._find import NVIDIA
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

Entry = t.Mapping[str, t.Any]
ERROR, WARNING = "error", "warning"
_FILTER = re.compile(
    r"0x(?P<device>[0-9A-F]{4})(?P<vendor>[0-9A-F]{4})(:0x(?P<board>[0-9A-F]{4})(?P<subvendor>[0-9A-F]{4}))?", re.IGNORECASE
)


class Finding(t.NamedTuple):
    """One thing that is wrong: an error stops the Device Manager or makes it do harm, a warning is what may not be meant."""

    severity: str
    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.problem}. {self.remedy}"


class Pattern(t.NamedTuple):
    """A device filter, read."""

    text: str
    device: str
    vendor: str
    subsystem: str

    def matches(self, vendor_device: str, subsystem: str) -> bool:
        same = vendor_device.upper() == f"{self.vendor}:{self.device}"
        return same and self.subsystem in ("", (subsystem or "").upper())


def patterns(entry: Entry) -> list[Pattern]:
    """The filters of an entry; none: every GPU."""
    given = entry.get("device-filter") or []
    found = []
    for text in [given] if isinstance(given, str) else given:
        match = _FILTER.fullmatch(text)
        if match:
            board = f"{match['subvendor']}:{match['board']}".upper() if match["board"] else ""
            found.append(Pattern(text, match["device"].upper(), match["vendor"].upper(), board))
    return found


def targets(entry: Entry) -> list[Gpu]:
    """The GPUs of the catalogue that an entry is for; without a filter, those that have its first type."""
    found = patterns(entry)
    if found:
        return list(dict.fromkeys(gpu for pattern in found if pattern.vendor == NVIDIA for gpu in _at(pattern)))
    names = [_type_names.parse(key).plain for key in entry["vgpu-devices"]]
    return [gpu for gpu in _catalogue.gpus() if names and names[0] in gpu.by_name]


def _at(pattern: Pattern) -> tuple[Gpu, ...]:
    return _catalogue.at(pattern.device, pattern.subsystem)


def _filters(where: str, entry: Entry) -> t.Iterator[Finding]:
    found = patterns(entry)
    if not found and entry["vgpu-devices"]:
        names = ", ".join(gpu.family for gpu in targets(entry)) or "the one that is meant"
        yield Finding(
            WARNING,
            where,
            "it has no device-filter, so it is applied to every GPU of its indexes and fails on a node with another model",
            f"Add the filter of {names}",
        )
    for pattern in found:
        if pattern.vendor != NVIDIA:
            problem = (
                f"the device-filter {pattern.text} has the vendor {pattern.vendor}, so it matches no GPU and the entry is ignored silently"
            )
            yield Finding(ERROR, where, problem, f"Write the device first and then the vendor {NVIDIA}, such as 0x2236{NVIDIA}")
        elif not _at(pattern) and entry["vgpu-devices"]:
            problem = f"no vGPU types are known for the GPU of the device-filter {pattern.text}"
            yield Finding(WARNING, where, problem, "Correct the id, or be sure that the driver has types for it")
        elif len(gpus := _at(pattern)) > 1 and entry["vgpu-devices"]:
            names = " and ".join(gpu.family for gpu in gpus)
            told = [pci.filter for gpu in gpus for pci in gpu.pci if pci.device == pattern.device and pci.needs_subsystem]
            right = f"Add the subsystem: {' or '.join(told)}" if told else "Tell the boards apart by their subsystem"
            problem = f"the device-filter {pattern.text} matches {names}: applied to a board that has no such type, the entry fails"
            yield Finding(ERROR, where, problem, right)


def _names(where: str, entry: Entry) -> t.Iterator[Finding]:
    """What the Device Manager makes of the names."""
    for key in entry["vgpu-devices"]:
        name = _type_names.parse(key)
        profiles = {gpu.by_name[name.plain].mig_profile for gpu in targets(entry) if name.plain in gpu.by_name}
        if name.slices and profiles and name.asked_profile not in profiles:
            needed = " or ".join(sorted(str(profile) for profile in profiles))
            problem = (
                f"by its source, the Device Manager asks for the GPU instance {name.asked_profile} for {key}, and the type needs {needed}"
            )
            yield Finding(WARNING, where, problem, "Not tried on hardware: try it on one node first")
        if name.plain != key:
            problem = f"by its source, the Device Manager never takes {key} for applied, and makes the vGPUs again at each of its restarts"
            yield Finding(WARNING, where, problem, f"Restart it only when no VM uses them; the type itself is {name.plain}")


def _capacity(where: str, entry: Entry) -> t.Iterator[Finding]:
    types: dict[str, int] = {}
    for key, count in entry["vgpu-devices"].items():
        plain = _type_names.parse(key).plain
        types[plain] = types.get(plain, 0) + count
    sliced = [name for name in types if _type_names.parse(name).slices]
    if sliced and len(sliced) < len(types):
        problem = f"{', '.join(sliced)} need MIG mode and the others need it off, and the Device Manager rejects both in one entry"
        yield Finding(ERROR, where, problem, "Give them to different GPUs")
        return
    gpus = targets(entry)
    if not gpus:
        known = [name for name in types if not any(name in gpu.by_name for gpu in _catalogue.gpus())]
        for name in known if not patterns(entry) else ():
            near = ", ".join(_types.nearest(_type_names.parse(name)))
            yield Finding(WARNING, where, f"{name} is no vGPU type that is known", f"The nearest are {near}" if near else "Check its name")
        return
    results = [(gpu, verdict(gpu, types)) for gpu in gpus]
    if not patterns(entry) and any(wrong is None for _gpu, wrong in results):
        return
    for _target, wrong in results:
        if wrong is not None:
            yield Finding(ERROR, where, *wrong)


def verdict(gpu: Gpu, types: t.Mapping[str, int]) -> tuple[str, str] | None:
    """Why one GPU cannot have these, and what to do instead."""
    foreign = [name for name in types if name not in gpu.by_name]
    if foreign:
        near = ", ".join(_types.nearest(_type_names.parse(foreign[0]), gpu))
        return f"{', '.join(foreign)} is no vGPU type of {gpu.family}, so applying it fails", f"The nearest of {gpu.family} are {near}"
    fit = _gpu_fits.fits(gpu, types)
    sizes = {gpu.by_name[name].size_gb for name in types}
    if len(sizes) > 1 and not gpu.by_name[next(iter(types))].slices:
        names = ", ".join(types)
        problem = f"{names} have several sizes, and nothing switches mixed-size mode on: it removes all vGPUs of the GPU and then fails"
        return problem, "Use one size per GPU"
    if not fit.fits:
        near = " or ".join(", ".join(f"{count} x {name}" for name, count in mix.items()) for mix in fit.nearest)
        return f"on {gpu.family}, {fit.why}", f"The nearest that fit: {near}" if near else "Ask for less"
    return None


def _overlaps(where: str, entries: t.Sequence[Entry]) -> t.Iterator[Finding]:
    """Two entries for one GPU: the later replaces what the earlier made."""
    for number, entry in enumerate(entries):
        for earlier in range(number):
            other = entries[earlier]
            if entry["vgpu-devices"] == other["vgpu-devices"] or not _same_index(entry, other) or not (shared := _same_gpu(entry, other)):
                continue
            problem = f"entries {earlier + 1} and {number + 1} are both for {shared}, with different vGPUs, so it never counts as applied"
            yield Finding(ERROR, where, problem, "Give each GPU one entry, told by device-filter or devices")


def _same_index(one: Entry, other: Entry) -> bool:
    return "all" in (one["devices"], other["devices"]) or bool(set(one["devices"]) & set(other["devices"]))


def _same_gpu(one: Entry, other: Entry) -> str:
    """The GPU that two entries are both for; empty if there is none."""
    first, second = patterns(one), patterns(other)
    if not first or not second:
        return "every GPU" if not first and not second else "the same GPU"
    for left in first:
        for right in second:
            if (left.vendor, left.device) == (right.vendor, right.device) and (
                left.subsystem == right.subsystem or "" in (left.subsystem, right.subsystem)
            ):
                return left.text if left.subsystem else right.text
    return ""


def _coverage(where: str, entries: t.Sequence[Entry]) -> t.Iterator[Finding]:
    if any(entry["devices"] == "all" for entry in entries):
        return
    indexes = {index for entry in entries for index in entry["devices"]}
    missing = sorted(set(range(max(indexes) + 1)) - indexes)
    if missing:
        problem = f"no entry is for GPU {', '.join(map(str, missing))}, so it never counts as applied"
        yield Finding(ERROR, where, problem, "Add an empty entry (vgpu-devices: {}) for GPUs that hold nothing")
    else:
        problem = f"it is for the GPUs 0 to {max(indexes)} only, so on a node with more it never counts as applied"
        yield Finding(WARNING, where, problem, "Use it on nodes with as many GPUs, or add an empty entry for each of the others")


def config(name: str, entries: t.Sequence[Entry]) -> t.Iterator[Finding]:
    """All that is wrong with one named configuration whose grammar is right."""
    for number, entry in enumerate(entries):
        where = f"{name}, entry {number + 1}"
        yield from _filters(where, entry)
        yield from _names(where, entry)
        yield from _capacity(where, entry)
    yield from _overlaps(name, entries)
    yield from _coverage(name, entries)
