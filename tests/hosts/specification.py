# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host that is a tree is to be: its GPUs, firmware, boot arguments, drivers; and the hosts of the lab."""

from __future__ import annotations

import dataclasses

#: The running kernel of every host: one of Ubuntu 22.04.
KERNEL = "5.15.0-119-generic"
#: vGPU types that the driver of an A10 names, with how many fit on one GPU (data/vgpu_types.json).
A10_TYPES = {
    588: ("NVIDIA A10-1B", 24),
    589: ("NVIDIA A10-2B", 12),
    590: ("NVIDIA A10-1Q", 24),
    591: ("NVIDIA A10-2Q", 12),
    592: ("NVIDIA A10-3Q", 8),
    593: ("NVIDIA A10-4Q", 6),
    594: ("NVIDIA A10-6Q", 4),
    595: ("NVIDIA A10-8Q", 3),
    596: ("NVIDIA A10-12Q", 2),
    597: ("NVIDIA A10-24Q", 1),
}
#: The same of other boards, by device id: time-sliced Q or C types, and of the A100 those on MIG instances.
OTHER_TYPES: dict[str, dict[int, tuple[str, int]]] = {
    "1eb8": {
        230: ("GRID T4-1Q", 16),
        231: ("GRID T4-2Q", 8),
        232: ("GRID T4-4Q", 4),
        233: ("GRID T4-8Q", 2),
        234: ("GRID T4-16Q", 1),
    },
    "20f1": {
        468: ("GRID A100-4C", 10),
        469: ("GRID A100-5C", 8),
        470: ("GRID A100-8C", 5),
        471: ("GRID A100-10C", 4),
        472: ("GRID A100-20C", 2),
        473: ("GRID A100-40C", 1),
        474: ("GRID A100-1-5C", 7),
        475: ("GRID A100-2-10C", 3),
        476: ("GRID A100-3-20C", 2),
        478: ("GRID A100-7-40C", 1),
    },
    "25b6": {
        711: ("NVIDIA A16-1Q", 16),
        712: ("NVIDIA A16-2Q", 8),
        713: ("NVIDIA A16-4Q", 4),
        714: ("NVIDIA A16-8Q", 2),
        715: ("NVIDIA A16-16Q", 1),
    },
}


@dataclasses.dataclass
class Gpu:
    """One GPU. ``neighbour`` puts a network card into its IOMMU group, ``audio`` a second function onto its board."""

    address: str
    device: str = "2236"
    subsystem: str = "10de:1482"
    kind: str = "030200"
    driver: str | None = None
    vfs: int = 0  #: virtual functions now; each is an mdev parent, or on vendor VFIO
    vfs_total: int = 16
    backend: str = "mdev"  #: what the vGPU manager offers on virtual functions: mdev or vendor_vfio
    active: dict[int, int] = dataclasses.field(default_factory=dict)  #: vGPUs: number of the virtual function -> type id
    audio: bool = False
    audio_driver: str | None = "snd_hda_intel"  #: what has the audio function now
    neighbour: bool = False
    boot_vga: bool = False
    fell_off_bus: bool = False
    bar1: int = 32 << 30
    power_state: str = "D0"
    boot_driver: str | None = None  #: what takes it with each boot, unless that module is blocked


@dataclasses.dataclass
class HostSpec:
    """One host. ``firmware`` is the IOMMU that its firmware describes: dmar, ivrs or none."""

    gpus: list[Gpu] = dataclasses.field(default_factory=list)
    firmware: str = "dmar"
    cmdline: str = ""  #: GRUB_CMDLINE_LINUX
    cmdline_default: str = "quiet splash"  #: GRUB_CMDLINE_LINUX_DEFAULT
    modules: list[str] = dataclasses.field(default_factory=lambda: ["kvm", "vfio", "vfio_pci", "vfio_iommu_type1"])
    host_driver: str | None = None  #: version of a driver that is installed on the host itself
    secure_boot: bool = False
    hypervisor: bool = False
    qemu: list[int] = dataclasses.field(default_factory=list)  #: process ids of QEMU
    kernel_log: list[str] = dataclasses.field(default_factory=list)
    loadable: list[str] | None = None  #: modules that its kernel has, without others, if not those of the recording
    blocked: list[str] = dataclasses.field(default_factory=list)  #: modules that modprobe.d forbids
    other_kernels: list[str] = dataclasses.field(default_factory=list)  #: installed beside the running one
    headers: bool = True  #: of the running kernel
    os_id: str = "ubuntu"
    os_version: str = "22.04"
    mdev: bool = True  #: does its kernel have the module
    initramfs: list[str] = dataclasses.field(default_factory=lambda: ["nouveau", "nvme"])  #: modules that an initramfs is built with


def a10s(**more: object) -> list[Gpu]:
    """The two A10 of every lab host."""
    return [Gpu(address, **more) for address in ("0000:41:00.0", "0000:a1:00.0")]  # type: ignore[arg-type]


LAB_HOSTS: dict[str, HostSpec] = {
    "gpu-container-0": HostSpec(a10s(), cmdline="intel_iommu=on"),
    # The kernel does not use the IOMMU that the firmware offers: site.yml mends that, with a reboot.
    "gpu-passthrough-0": HostSpec(a10s(), cmdline="intel_iommu=off"),
    "gpu-vgpu-0": HostSpec(
        a10s(driver="nvidia", vfs=16),
        cmdline="intel_iommu=on",
        modules=["kvm", "vfio", "vfio_pci", "vfio_iommu_type1", "mdev", "nvidia", "nvidia_vgpu_vfio"],
    ),
    # Boards whose display ports are on: class VGA, an audio function, memory behind a window of 256 MiB, no virtual functions (NVIDIA's
    # displaymodeselector calls that physical_display_enabled_256MB_bar1). Ids: vgpu_types.json and pci.ids.
    "gpu-passthrough-1": HostSpec(
        [
            Gpu(address, device="2230", subsystem="10de:1459", kind="030000", audio=True, vfs_total=0, bar1=256 << 20)
            for address in ("0000:41:00.0", "0000:a1:00.0")
        ],
        cmdline="intel_iommu=on",
    ),
    # VT-d is off in the firmware, whatever the kernel is told.
    "gpu-refused-0": HostSpec(a10s(), firmware="none", cmdline="intel_iommu=on"),
}

#: Hosts that make their own vGPUs, with a vGPU manager of their own, and have them already. ``lab owned`` adds them to a lab.
_OWNED_MODULES = ["kvm", "vfio", "vfio_pci", "vfio_iommu_type1", "mdev", "nvidia", "nvidia_vgpu_vfio"]
OWNED_HOSTS: dict[str, HostSpec] = {
    "gpu-owned-mdev-0": HostSpec(
        a10s(driver="nvidia", vfs=16, active=dict.fromkeys(range(3), 595)),
        cmdline="intel_iommu=on",
        modules=_OWNED_MODULES,
        host_driver="580.95.02",
    ),
    "gpu-owned-vf-0": HostSpec(
        a10s(driver="nvidia", vfs=16, backend="vendor_vfio", active=dict.fromkeys(range(2), 596)),
        cmdline="intel_iommu=on",
        modules=_OWNED_MODULES,
        host_driver="580.95.02",
    ),
}
