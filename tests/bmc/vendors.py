# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What BMCs of some vendors say about the settings that matter here: a small part of each, for tests.

Facts (paths, names of attributes and values, how pending settings are shown, which registry is announced and listed) are from the Redfish
trees in NVIDIA/libredfish, ``tests/mockups``; Supermicro's names with ``#`` from its ``src/supermicro.rs``; Intel's settings of HPE from
openstack-archive/proliantutils, ``proliantutils/tests/redfish/json_samples/bios.json``. The rest is made up.
"""

from __future__ import annotations

import dataclasses
import typing as t

Json = dict[str, t.Any]

ENABLED = (("Enabled", "Enabled"), ("Disabled", "Disabled"))


def enumeration(name: str, values: t.Iterable[tuple[str, str]] = ENABLED, **more: t.Any) -> Json:
    shown = [{"ValueName": value, "ValueDisplayName": display} for value, display in values]
    return {"AttributeName": name, "Type": "Enumeration", "ReadOnly": False, "Value": shown, **more}


@dataclasses.dataclass
class Machine:
    """One system and how its service behaves."""

    manufacturer: str
    system: str
    bios: str  #: last part of the path
    settings: str
    attributes: Json
    registry: list[Json] | None = None
    announced: str = "BiosAttributeRegistry.v1_0_0"  #: the registry's name in the Bios resource
    listed: str = "BiosAttributeRegistry.v1_0_0"  #: and among the registries
    registry_path: str = "/redfish/v1/Registries/BiosRegistry"
    root: Json = dataclasses.field(default_factory=dict)
    apply_times: tuple[str, ...] = ()
    pending_shows: str = "all"  #: all attributes, those that differ ("differing"), or no Attributes at all if none differ ("nothing")
    makes_jobs: bool = False  #: pending settings become a job if told when; until it has run, nothing else can be set
    keeps_aside: bool = False  #: without being told when, settings are kept aside and never applied
    etags: str = ""  #: "" none, "strong", or "weak"
    slash: bool = False  #: redirects to the path with a slash at its end


def dell() -> Machine:
    return Machine(
        "Dell Inc.",
        "System.Embedded.1",
        "Bios",
        "Settings",
        {
            "SysProfile": "PerfPerWattOptimizedDapc",
            "ProcVirtualization": "Enabled",
            "SriovGlobalEnable": "Disabled",
            "MmioAbove4Gb": "Disabled",
            "AcPwrRcvryUserDelay": 60,
            "AssetTag": "",
            "SetupPassword": None,
            "SystemModelName": "PowerEdge R750",
        },
        [
            enumeration("SysProfile", [(name, name) for name in ("PerfPerWattOptimizedDapc", "PerfOptimized", "Custom")]),
            enumeration("ProcVirtualization"),
            enumeration("SriovGlobalEnable"),
            enumeration("MmioAbove4Gb"),
            {"AttributeName": "AcPwrRcvryUserDelay", "Type": "Integer", "LowerBound": 60, "UpperBound": 600, "ScalarIncrement": 0},
            {"AttributeName": "AssetTag", "Type": "String", "MinLength": 0, "MaxLength": 63},
            {"AttributeName": "SetupPassword", "Type": "Password", "ReadOnly": False},
            {"AttributeName": "SystemModelName", "Type": "String", "ReadOnly": True, "MinLength": 0, "MaxLength": 32},
        ],
        announced="BiosAttributeRegistry.v1_0_3",
        registry_path="/redfish/v1/Systems/System.Embedded.1/Bios/BiosRegistry",
        root={"Vendor": "Dell", "Oem": {"Dell": {}}},
        apply_times=("OnReset", "AtMaintenanceWindowStart", "InMaintenanceWindowOnReset"),
        pending_shows="differing",
        makes_jobs=True,
        keeps_aside=True,
    )


def hpe() -> Machine:
    return Machine(
        "HPE",
        "1",
        "Bios",
        "settings",
        {"IntelProcVtd": "Disabled", "ProcVirtualization": "Enabled", "Sriov": "Disabled", "PciResourcePadding": "Normal"},
        [
            enumeration("IntelProcVtd"),
            enumeration("ProcVirtualization"),
            enumeration("Sriov"),
            enumeration("PciResourcePadding", [(name, name) for name in ("Normal", "Medium", "High")]),
        ],
        announced="BiosAttributeRegistryU31.v1_1_00",
        listed="BiosAttributeRegistryU31.v1_1_00",
        root={"Vendor": "HPE", "Oem": {"Hpe": {}}},
        etags="weak",
        slash=True,
    )


def lenovo() -> Machine:
    return Machine(
        "Lenovo",
        "1",
        "Bios",
        "Pending",
        {
            "DevicesandIOPorts_IntelVTforDirectedIOVTd": "Disabled",
            "DevicesandIOPorts_SRIOV": "Enabled",
            "DevicesandIOPorts_PCI64BitResourceAllocation": "Auto",
            "Processors_IntelVirtualizationTechnology": "Disabled",
            "SystemRecovery_POSTWatchdogTimer": False,
        },
        [
            enumeration("DevicesandIOPorts_IntelVTforDirectedIOVTd"),
            enumeration("DevicesandIOPorts_SRIOV"),
            enumeration("DevicesandIOPorts_PCI64BitResourceAllocation", [*ENABLED, ("Auto", "Auto")]),
            enumeration("Processors_IntelVirtualizationTechnology"),
            {"AttributeName": "SystemRecovery_POSTWatchdogTimer", "Type": "Boolean", "ReadOnly": False},
        ],
        announced="BiosAttributeRegistry.1.0.0",
        listed="BiosAttributeRegistry.1.0.0",
        registry_path="/redfish/v1/schemas/registries/BiosAttributeRegistry.1.0.0.json",
        root={"Vendor": "Lenovo"},
        apply_times=("OnReset",),
        etags="strong",
    )


def supermicro() -> Machine:
    """Newer firmware: names end in ``_XXXX``, and its registry names values 0 and 1 that are never spoken."""
    numbers = {
        "enabled": (("0", "Disabled"), ("1", "Enabled")),
        "enable": (("1", "Enable"), ("0", "Disable")),
    }
    return Machine(
        "Supermicro",
        "1",
        "Bios",
        "SD",
        {
            "Above4GDecoding_0041": "Disabled",
            "ConsoleRedirection_007E": True,
            "ConsoleRedirection_0080": False,
            "IntelVirtualizationTechnology_3C6F": "Enable",
            "IntelVTforDirectedI_O_VT_d__1E32": "Disable",
            "SR_IOVSupport_0047": "Disabled",
        },
        [
            enumeration("Above4GDecoding_0041", numbers["enabled"]),
            {"AttributeName": "ConsoleRedirection_007E", "Type": "Boolean"},
            {"AttributeName": "ConsoleRedirection_0080", "Type": "Boolean"},
            enumeration("IntelVirtualizationTechnology_3C6F", numbers["enable"]),
            enumeration("IntelVTforDirectedI_O_VT_d__1E32", numbers["enable"]),
            enumeration("SR_IOVSupport_0047", numbers["enabled"]),
        ],
        listed="BiosAttributeRegistry",
        registry_path="/registries/BiosAttributeRegistry.1.0.0.json",
        root={"Oem": {"Supermicro": {}}},
        pending_shows="nothing",
        etags="strong",
    )


def supermicro_older() -> Machine:
    """Older firmware: names end in ``#XXXX``, and no registry is served."""
    return Machine(
        "Supermicro",
        "1",
        "Bios",
        "SD",
        {
            "IntelVTforDirectedI/O(VT-d)#1E12": "Disable",
            "IntelVirtualizationTechnology#3C2E": "Enable",
            "SR-IOVSupport#0048": "Disabled",
            "QuietBoot#002E": True,
        },
        root={"Oem": {"Supermicro": {}}},
        pending_shows="nothing",
    )


#: With what each vendor's terms must lead to: the attributes that all terms (the vendor has) write when everything is wanted.
VENDORS: dict[str, tuple[t.Callable[[], Machine], Json]] = {
    "dell": (dell, {"MmioAbove4Gb": "Enabled", "SriovGlobalEnable": "Enabled"}),
    "hpe": (hpe, {"IntelProcVtd": "Enabled", "Sriov": "Enabled"}),
    "lenovo": (lenovo, {"DevicesandIOPorts_IntelVTforDirectedIOVTd": "Enabled", "Processors_IntelVirtualizationTechnology": "Enabled"}),
    "supermicro": (
        supermicro,
        {"Above4GDecoding_0041": "Enabled", "IntelVTforDirectedI_O_VT_d__1E32": "Enable", "SR_IOVSupport_0047": "Enabled"},
    ),
    "supermicro older": (supermicro_older, {"IntelVTforDirectedI/O(VT-d)#1E12": "Enable", "SR-IOVSupport#0048": "Enabled"}),
}
