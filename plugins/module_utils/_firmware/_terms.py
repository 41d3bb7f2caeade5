# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What vendors call the firmware settings that GPU virtualization needs.

A name in this table is only a candidate: it counts on a machine whose BMC reports an attribute of that name. Sources:

- NVIDIA/libredfish, ``tests/mockups``: the Redfish trees of a Dell PowerEdge R750, an HPE ProLiant DL385 Gen10 Plus v2, a Lenovo ThinkSystem
  SR670 V2 and a Supermicro SYS-821GE-TNHR, with their attribute registries, whose help texts say what a setting does: Dell's
  ``ProcVirtualization`` announces the IOMMU ("through the DMAR table") too, and Lenovo's ``Auto`` also allocates above 4 GB.
- NVIDIA/libredfish, ``src/lenovo.rs``: ``Processors_SVMMode``; ``src/hpe.rs``: ``IntelProcVtd`` and ``ProcAmdIoVt``; ``src/supermicro.rs``:
  the names with ``#`` and without.
- openstack-archive/proliantutils, ``proliantutils/tests/redfish/json_samples/bios.json``: ``ProcVirtualization``, ``IntelProcVtd`` and ``Sriov``.
- TUM-DSE/doctor-cluster-config, ``docs``: ``IommuSupport`` of Dell's AMD machines; NVIDIA/cloud-native-stack,
  ``playbooks/cns_cc_bios.yaml``: ``IOMMU`` of Supermicro's.

HPE's firmware has no switch for decoding above 4 GB in any of these.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

TERMS = ("above_4g", "iommu", "sriov", "virtualization")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One attribute that a term may stand for. ``also_on`` are values besides the usual ones that mean on."""

    name: str
    also_on: t.Tuple[str, ...] = ()


#: Per vendor and term the candidates in order: the first one that the machine has is the setting.
SETTINGS: t.Dict[str, t.Dict[str, t.Tuple[Setting, ...]]] = {
    "dell": {
        "above_4g": (Setting("MmioAbove4Gb"),),
        "iommu": (Setting("IommuSupport"), Setting("ProcVirtualization")),
        "sriov": (Setting("SriovGlobalEnable"),),
        "virtualization": (Setting("ProcVirtualization"),),
    },
    "hpe": {
        "iommu": (Setting("IntelProcVtd"), Setting("ProcAmdIoVt")),
        "sriov": (Setting("Sriov"),),
        "virtualization": (Setting("ProcVirtualization"),),
    },
    "lenovo": {
        "above_4g": (Setting("DevicesandIOPorts_PCI64BitResourceAllocation", also_on=("Auto",)),),
        "iommu": (Setting("DevicesandIOPorts_IntelVTforDirectedIOVTd"),),
        "sriov": (Setting("DevicesandIOPorts_SRIOV"),),
        "virtualization": (Setting("Processors_IntelVirtualizationTechnology"), Setting("Processors_SVMMode")),
    },
    "supermicro": {
        "above_4g": (Setting("Above4GDecoding"),),
        "iommu": (Setting("IntelVTforDirectedI/O(VT-d)"), Setting("IOMMU")),
        "sriov": (Setting("SR-IOVSupport"),),
        "virtualization": (Setting("IntelVirtualizationTechnology"), Setting("SVMMode")),
    },
}
VENDORS = tuple(sorted(SETTINGS))

#: How the vendors name themselves in ``Manufacturer``, ``Vendor`` or as a key of ``Oem``.
_VENDOR_NAMES = (
    ("dell", "dell"),
    ("hpe", "hpe"),
    ("hewlett", "hpe"),
    ("lenovo", "lenovo"),
    ("supermicro", "supermicro"),
    ("super micro", "supermicro"),
)

#: How values say on and off: pairs of the same spelling.
ON_OFF = (("Enabled", "Disabled"), ("Enable", "Disable"), ("On", "Off"), ("Yes", "No"))

#: What a name looks like that could be meant by a term, for the message that finds none.
LOOKS_LIKE = {
    "above_4g": re.compile(r"above_?4|4g|64_?bit|mmio", re.IGNORECASE),
    "iommu": re.compile(r"iommu|vt_?-?d(?![a-z])|directed|amdiovt|dmar", re.IGNORECASE),
    "sriov": re.compile(r"sr_?-?iov", re.IGNORECASE),
    "virtualization": re.compile(r"virtualization|virtualisation|svm|vmx", re.IGNORECASE),
}

#: Supermicro ends a name with four hexadecimal digits that differ per board: ``#0048`` or, in newer firmware, ``_0047``.
_SUFFIX = re.compile(r"[#_][0-9A-F]{4}$")


def vendor_of(names: t.Iterable[t.Any]) -> t.Optional[str]:
    """The vendor that the first telling one of ``names`` stands for, or None."""
    for name in names:
        text = str(name or "").casefold()
        for start, vendor in _VENDOR_NAMES:
            if text.startswith(start):
                return vendor
    return None


def plain_name(name: str) -> str:
    """A name without its board's suffix and without signs: firmware writes ``SR-IOVSupport#0048`` and ``SR_IOVSupport_0047``."""
    return re.sub(r"[^0-9A-Za-z]", "", _SUFFIX.sub("", name))


def found(name: str, attributes: t.Iterable[str]) -> t.List[str]:
    """The attributes that ``name`` names: itself, or else all that are it but for a suffix."""
    known = list(attributes)
    if name in known:
        return [name]
    plain = plain_name(name)
    return sorted(other for other in known if _SUFFIX.search(other) and plain_name(other) == plain)


def yes_or_no(value: t.Any) -> t.Optional[bool]:
    """What a term is to be: true, false, or None if the value says neither."""
    text = str(value).strip().casefold()
    if text in ("true", "yes", "on", "1", "enabled", "enable"):
        return True
    if text in ("false", "no", "off", "0", "disabled", "disable"):
        return False
    return None


def spelling(on: bool, choices: t.Sequence[str], current: t.Any) -> t.Any:
    """The value that says on or off: one of ``choices`` if there are any, else in the spelling of the current value. None if neither tells."""
    if isinstance(current, bool):
        return on
    side = 0 if on else 1
    for pair in ON_OFF:
        if pair[side] in choices if choices else current in pair:
            return pair[side]
    return None
