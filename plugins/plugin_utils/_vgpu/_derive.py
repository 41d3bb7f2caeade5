# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From the entries of ``catalogue.toml`` to GPUs with all their types. What the keys of an entry mean is said at the top of that file.

Rules: a GPU holds min(32, framebuffer / size) vGPUs of a size; a GPU instance that is shared holds min(12, its memory / size), and all
instances of a profile together that many times as many. Types of A and B have the maximum of the Q or C type of their size.
Sources: NVIDIA/open-gpu-kernel-modules df1c9a3de ctrla081.h:46-49 (32, 12), NVIDIA/vgpu-device-manager acb72704 (the names and maxima).
"""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Display, Gpu, PciId, VgpuType, code_of

Entry = t.Mapping[str, t.Any]

NVIDIA = "10de"
#: In names of the driver, ``B4`` are types of the series B.
OLD_B = "B4"
#: What a suffix of a type name is in the name of its GPU-instance profile; graphics on instances is the GPU's.
#: Source: vgpu-device-manager, api/spec/v1/spec.go:186-197.
PROFILE_SUFFIX = {"": "", "ME": "+me"}


class Row(t.NamedTuple):
    """A type before its numbers: ``key`` is its series in the catalogue (``B4`` apart from ``B``), ``room`` the GB that hold its vGPUs."""

    key: str
    size: int
    room: int
    slices: int = 0
    suffix: str = ""
    instances: int | None = None
    graphics: str = ""
    flag: str | None = None

    @property
    def label(self) -> str:
        """The type's name without the GPU's code."""
        return f"{self.slices}-{self.size}{self.key}{self.suffix}" if self.slices else f"{self.size}{self.key}"

    @property
    def profile(self) -> str:
        return f"{self.slices}g.{self.room}gb{PROFILE_SUFFIX[self.suffix]}{self.graphics}"


def _sizes(given: Entry) -> dict[str, list[int]]:
    """GB by series; A has the sizes of Q where it has none of its own."""
    sizes = {key: list(found) for key, found in given.items()}
    sizes.setdefault("A", sizes.get("Q", []))
    return sizes


def _time_sliced(entry: Entry) -> list[Row]:
    return [Row(key, size, entry["framebuffer_gb"]) for key, sizes in _sizes(entry["sizes"]).items() for size in sizes]


def _mig_backed(entry: Entry, layouts: Entry) -> list[Row]:
    whole = [
        Row("C", gb, gb, layout["slices"], layout.get("suffix", ""), layout["most"], flag=layout["flag"])
        for layout in layouts.get(entry.get("mig", ""), ())
        for gb in [entry["mig_gb"][layout["memory"]]]
    ]
    shared = [
        Row(key, size, instance["gb"], instance["slices"], "", instance["most"], "+gfx", instance.get("flag"))
        for instance in entry.get("instances", ())
        for key, sizes in _sizes(instance["sizes"]).items()
        for size in sizes
    ]
    return whole + shared


def _numbers(text: str, base: int) -> t.Iterator[tuple[int | None, bool]]:
    """The numbers that ``588-589 - I:598`` stands for, None for an unknown one, each with whether it is inferred."""
    for part in text.split():
        if part == "-":
            yield None, False
            continue
        mark, _colon, numbers = part.rpartition(":")
        first, _dash, last = numbers.partition("-")
        for number in range(int(first, base), int(last or first, base) + 1):
            yield number, mark == "I"


def _ids(entry: Entry, rows: t.Sequence[Row], name: str, base: int) -> dict[Row, tuple[int, bool]]:
    """The known numbers of types, by row.

    :raises ValueError: an entry has more or fewer numbers than types.
    """
    found = {}
    for key, text in entry.get(name, {}).items():
        if key == "source":
            continue
        if key == "MIG":
            block = sorted((row for row in rows if row.slices), key=lambda row: (row.slices, row.size, row.suffix, "QABC".index(row.key)))
        else:
            keys = [key] if key == OLD_B else list(key)
            block = sorted((row for row in rows if not row.slices and row.key in keys), key=lambda row: (row.size, keys.index(row.key)))
        numbers = list(_numbers(text, base))
        if len(numbers) != len(block):
            raise ValueError(f"{name} of {key}: {len(numbers)} numbers for {len(block)} types ({', '.join(row.label for row in block)})")
        found.update({row: (number, inferred) for row, (number, inferred) in zip(block, numbers, strict=True) if number is not None})
    return found


def _evidence(entry: Entry, row: Row, sizes: t.Mapping[str, list[int]]) -> str:
    """Where a maximum comes from."""
    printed = entry.get("printed", "V")
    if row.slices:
        return "V" if row.key in "QC" else entry.get("instances_from", "same")
    if row.label in entry.get("most_from", {}):
        return str(entry["most_from"][row.label])
    if printed and row.key in "QC":
        return str(printed)
    return "same" if printed and row.size in sizes.get("Q", []) + sizes.get("C", []) else "floor"


def _most(entry: Entry, row: Row, limits: Entry) -> int:
    if row.label in entry.get("most", {}):
        return int(entry["most"][row.label])
    # Twice the sizes: size 0 is half a GB.
    held = 2 * row.room // (2 * row.size or 1)
    if row.instances is None:
        return int(min(limits["per_gpu_time_sliced"], held))
    return row.instances * int(min(limits["per_gpu_instance"], held))


def _sources(entry: Entry, row: Row, evidence: str, type_id: tuple[int, bool] | None, guest: bool) -> str:
    """The letters of a row's sources."""
    stated = "S" if row.flag else ""
    if type_id and not row.slices:
        stated = "I" if type_id[1] else entry["type_ids"]["source"]
    printed = evidence if evidence in ("V", "D", "L") else ""
    return printed + ("N" if guest else "") + stated


def _types(code: str, entry: Entry, tables: Entry, displays: t.Mapping[str, Display]) -> tuple[VgpuType, ...]:
    sizes = _sizes(entry["sizes"])
    rows = _time_sliced(entry) + _mig_backed(entry, tables["mig"])
    rows.sort(key=lambda row: (row.slices, row.key[0], row.size, row.key, row.suffix))
    type_ids, guests = _ids(entry, rows, "type_ids", 10), _ids(entry, rows, "guest_ids", 16)
    found = []
    for row in rows:
        series, name = row.key[0], f"{code}-{row.label}"
        given = entry.get("figures", {}).get(name, {})
        evidence = given.get("evidence") or _evidence(entry, row, sizes)
        type_id, guest = type_ids.get(row), guests.get(row)
        found.append(
            VgpuType(
                name,
                series,
                row.size,
                _most(entry, row, tables["limits"]),
                row.slices,
                row.profile if row.slices else None,
                row.instances,
                given.get("flag") or row.flag,
                type_id[0] if type_id else None,
                f"{guest[0]:04x}" if guest else None,
                evidence,
                given.get("sources") or _sources(entry, row, evidence, type_id, guest is not None),
                tables["series"][series]["licence"],
                displays.get(f"{row.size}{series}") or displays[series],
            )
        )
    return tuple(found)


def _pci(entry: Entry, shared: t.Collection[str]) -> tuple[PciId, ...]:
    found = []
    for device, text in entry["pci"].items():
        subsystems = []
        for word in text.split():
            subsystem = word if ":" in word else f"{NVIDIA}:{word}"
            subsystems.append((subsystem, entry.get("boards", {}).get(word, entry["product"])))
        pattern = f"0x{device}{NVIDIA.upper()}"
        if device in shared:
            vendor, _colon, board = subsystems[0][0].upper().partition(":")
            pattern += f":0x{board}{vendor}"
        found.append(PciId(device, tuple(subsystems), pattern, device in shared))
    return tuple(found)


def gpus(tables: Entry) -> tuple[Gpu, ...]:
    """All GPUs of the catalogue's file, in its order.

    :raises ValueError: an entry contradicts itself; names the entry.
    """
    displays = {key: Display(**limits) for key, limits in tables["display"].items()}
    users = collections.Counter(device for entry in tables["gpu"].values() if not entry.get("legacy") for device in entry["pci"])
    shared = {device for device, count in users.items() if count > 1}
    found = []
    for family, given in tables["gpu"].items():
        shape = tables["shapes"][given["shape"]] if "shape" in given else {}
        entry = {**shape, **given, "sizes": {**shape.get("sizes", {}), **given.get("sizes", {})}}
        generation = tables["architecture"][entry["architecture"]]
        try:
            types = _types(code_of(family), entry, tables, displays)
        except ValueError as error:
            raise ValueError(f"Reading the catalogue: {family}: {error}") from error
        divided = any(not kind.slices and kind.size_gb < entry["framebuffer_gb"] for kind in types)
        found.append(
            Gpu(
                family=family,
                product=entry["product"],
                architecture=entry["architecture"],
                framebuffer_gb=entry["framebuffer_gb"],
                gpus_per_board=entry.get("gpus_per_board", 1),
                pci=_pci(entry, shared),
                sriov=generation["sriov"],
                mig_capable=any(kind.slices for kind in types),
                prefix=entry.get("prefix", generation["prefix"]) or None,
                mixed_rule=generation.get("mixed_rule") if divided else None,
                equal_size_ids=generation.get("equal_size_ids", False),
                legacy=entry.get("legacy", False),
                stock=entry.get("stock", True),
                gfx_keys=entry.get("gfx_keys", False),
                also=tuple(entry.get("also", ())),
                types=types,
            )
        )
    return tuple(found)
