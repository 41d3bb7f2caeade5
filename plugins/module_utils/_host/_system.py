# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host says of itself: system, boot, firmware, IOMMU, modules, and the kernel log.

Every function takes a :class:`Host` and a :class:`Unknown`, which collects why something is not known.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import _kernel_log
from ._holders import is_qemu, unseen
from ._sysfs import Host, HostError

#: Modules that a GPU host's set-up depends on, or that stand in its way.
MODULES = (
    "kvm",
    "mdev",
    "nouveau",
    "nova_core",
    "nova_drm",
    "nvidia",
    "nvidia_vgpu_vfio",
    "nvidiafb",
    "vfio",
    "vfio_iommu_type1",
    "vfio_pci",
)

_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_TABLES = "/sys/firmware/acpi/tables"


#: How hypervisors name the maker of their machines (DMI). Source: systemd, src/basic/virt.c, dmi_vendor_table.
_HYPERVISORS = (
    "Amazon EC2", "Apple Virtualization", "BHYVE", "Bochs", "Google", "Hyper-V", "KVM", "KubeVirt", "OpenStack", "Parallels", "QEMU", "VMW",
    "VMware", "VirtualBox", "Xen", "innotek GmbH",
)  # fmt: skip


Facts = t.Dict[str, t.Any]


class Unknown:
    """Why something is not known, by the name of the fact."""

    def __init__(self) -> None:
        self.reasons: t.Dict[str, str] = {}

    def text(self, host: Host, fact: str, path: str) -> str | None:
        """The stripped text of a file, or None with the reason noted under ``fact``."""
        try:
            content = host.read_text(path)
        except HostError as error:
            self.reasons[fact] = str(error)
            return None
        if content is None:
            self.reasons[fact] = f"there is no {path}"
            return None
        return content.strip()


def system(host: Host, unknown: Unknown) -> Facts:
    release = host.os_release()
    return {
        "kernel": unknown.text(host, "host.kernel", "/proc/sys/kernel/osrelease"),
        "arch": os.uname().machine if host.is_real else unknown.text(host, "host.arch", "/proc/sys/kernel/arch"),
        "os_id": release.get("ID"),
        "os_version": release.get("VERSION_ID"),
        "boot_id": unknown.text(host, "host.boot_id", "/proc/sys/kernel/random/boot_id"),
        "secure_boot": _secure_boot(host, unknown),
        "lockdown": _lockdown(host, unknown),
        "virtualised": _virtualised(host, unknown),
        "cpu_vendor": _cpu_vendor(host),
    }


def release_key(release: str) -> t.Tuple[t.List[int], str]:
    """Sorts releases of kernels and versions of drivers by their numbers."""
    return [int(number) for number in re.findall(r"\d+", release)], release


def _secure_boot(host: Host, unknown: Unknown) -> bool | None:
    if not host.exists("/sys/firmware"):
        unknown.reasons["host.secure_boot"] = "there is no /sys/firmware"
        return None
    if not host.exists("/sys/firmware/efi"):
        return False  # booted through a BIOS, which has no Secure Boot
    try:
        content = host.read_bytes(_SECURE_BOOT)
    except HostError as error:
        unknown.reasons["host.secure_boot"] = str(error)
        return None
    if not content:
        unknown.reasons["host.secure_boot"] = "the firmware shows no SecureBoot variable"
        return None
    return content[-1] == 1  # four bytes of attributes, then the value


def _lockdown(host: Host, unknown: Unknown) -> str | None:
    text = unknown.text(host, "host.lockdown", "/sys/kernel/security/lockdown")
    chosen = re.search(r"\[(\w+)\]", text or "")
    return chosen.group(1) if chosen else None


def _cpu_vendor(host: Host) -> str | None:
    """``GenuineIntel``, ``AuthenticAMD`` and so on; None on an architecture that does not say."""
    match = re.search(r"^vendor_id\s*:\s*(\S+)$", host.quiet("/proc/cpuinfo") or "", re.MULTILINE)
    return match.group(1) if match else None


def _virtualised(host: Host, unknown: Unknown) -> bool | None:
    """Is this machine itself a virtual one? x86 says so in its CPU flags; elsewhere the name of the maker is asked."""
    text = unknown.text(host, "host.virtualised", "/proc/cpuinfo")
    if text is None:
        return None
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags is not None:
        return "hypervisor" in flags.group(1).split()
    maker = host.quiet("/sys/class/dmi/id/sys_vendor")
    if maker is None:
        unknown.reasons["host.virtualised"] = "/proc/cpuinfo shows no flags on this architecture, and the firmware names no maker"
        return None
    return maker.startswith(_HYPERVISORS)


def firmware(host: Host, unknown: Unknown) -> Facts:
    facts: Facts = dict.fromkeys(("dmar", "ivrs", "iort", "viot"))
    tables = host.names(_TABLES)
    if tables:
        facts = {name: name.upper() in tables for name in facts}
    else:
        unknown.reasons["firmware.tables"] = f"{_TABLES} shows no table"
    for fact, name in (("vendor", "sys_vendor"), ("product", "product_name"), ("bios_version", "bios_version")):
        facts[fact] = unknown.text(host, f"firmware.{fact}", f"/sys/class/dmi/id/{name}")
    return facts


def iommu(host: Host, unknown: Unknown) -> Facts:
    """Judged by what the kernel has made, never by its arguments: Debian's kernels turn VT-d on without any."""
    if not host.exists("/sys/kernel"):
        unknown.reasons["iommu"] = "there is no /sys/kernel"
        return {"enabled": None, "kind": None, "groups": None, "default_domain": None}
    groups = host.names("/sys/kernel/iommu_groups")
    units = host.names("/sys/class/iommu")
    return {
        "enabled": bool(groups and units),
        "kind": iommu_kind(units),
        "groups": len(groups),
        "default_domain": host.quiet(f"/sys/kernel/iommu_groups/{groups[0]}/type") if groups else None,
    }


def iommu_kind(units: t.Sequence[str]) -> str:
    """The kind of IOMMU by the names of its units in ``/sys/class/iommu``."""
    for start, kind in (("dmar", "intel"), ("ivhd", "amd"), ("arm-smmu", "smmu"), ("smmu", "smmu"), ("virtio", "virtio")):
        if any(unit.startswith(start) for unit in units):
            return kind
    return "none"


def modules(host: Host, unknown: Unknown) -> t.Dict[str, t.Optional[bool]]:
    loaded = set(host.names("/sys/module"))
    if not loaded:
        unknown.reasons["modules"] = "/sys/module shows nothing"
        return dict.fromkeys(MODULES)
    return {name: name in loaded for name in MODULES}


def kernel_log(host: Host, unknown: Unknown) -> t.List[Facts]:
    """Signatures of trouble found in the kernel log since boot, see :func:`_kernel_log.signatures`."""
    try:
        text = _kernel_log.read(host)
    except HostError as error:
        unknown.reasons["kernel_log"] = str(error)
        return []
    if text is None:
        unknown.reasons["kernel_log"] = f"there is no {_kernel_log.PATH}"
        return []
    return _kernel_log.signatures(text)


def qemu(host: Host, unknown: Unknown) -> t.Optional[t.List[Facts]]:
    """The QEMU processes that run, ``[{pid, comm}]``; None where the processes cannot be seen."""
    why = unseen(host)
    if why is not None:
        unknown.reasons["qemu"] = why
        return None
    found = []
    for pid in host.processes():
        comm = host.quiet(f"/proc/{pid}/comm") or ""
        if is_qemu(comm):
            found.append({"pid": pid, "comm": comm})
    return found
