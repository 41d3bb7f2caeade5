# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VFIO driver a PCI function wants, by the kernel's own table: some have one of their own (Grace, and some network cards).

The lines ``alias vfio_pci:PATTERN MODULE`` of ``modules.alias`` name them (the kernel's scripts/mod/file2alias.c,
flag PCI_ID_F_VFIO_DRIVER_OVERRIDE). The best is the one with the fewest fields that match anything; NVIDIA's vfio-manager chooses the same way.
"""

from __future__ import annotations

import re
import typing as t

DEFAULT = "vfio_pci"
_ID, _PART = r"(\*|[0-9A-F]{8})", r"(\*|[0-9A-F]{2})"
_FIELDS = re.compile(f"v{_ID}d{_ID}sv{_ID}sd{_ID}bc{_PART}sc{_PART}i{_PART}")
_LINE = re.compile(r"^alias vfio_pci:(\S+) (\S+)$", re.MULTILINE)


def parse(text: str) -> t.List[t.Tuple[t.Tuple[str, ...], str]]:
    """``[(fields of a pattern, module)]`` of all VFIO lines in the text of ``modules.alias``; a pattern of another form is passed over."""
    found = []
    for pattern, module in _LINE.findall(text):
        fields = _FIELDS.fullmatch(pattern)
        if fields:
            found.append((fields.groups(), module))
    return found


def best(aliases: t.Sequence[t.Tuple[t.Tuple[str, ...], str]], vendor: str, device: str, subsystem: str, full_class: str) -> str:
    """The module for a function: ids of four hexadecimal digits, ``subsystem`` as ``vendor:device``, the class of six."""
    sub_vendor, _colon, sub_device = subsystem.partition(":")
    values = [f"0000{part}".upper() for part in (vendor, device, sub_vendor, sub_device)]
    values += [full_class[at : at + 2].upper() for at in (0, 2, 4)]
    fitting = [
        (fields.count("*"), module) for fields, module in aliases if all(field in ("*", value) for field, value in zip(fields, values))
    ]
    return min(fitting)[1] if fitting else DEFAULT


def driver_name(module: str, drivers: t.Collection[str]) -> str:
    """The name of the driver of a module: among those that the kernel has, else as the module that is not loaded yet will call it."""
    for name in (module, module.replace("_", "-"), module.replace("-", "_")):
        if name in drivers:
            return name
    return "vfio-pci" if module.replace("-", "_") == DEFAULT else module
