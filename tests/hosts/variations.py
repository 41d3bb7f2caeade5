# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is invented of a host's tree: each difference from the recorded guest that it is made of, with the paths it touches, and why.

What no entry here names stands in a recording (``recorded``), byte for byte: ``tests/unit/host/test_variations.py`` holds trees to that.
``MACHINE`` is carried out here, in this order, on what a recording holds beside PCI functions; ``PLACED`` is what ``tree.py`` and
``recording.py`` do to functions, groups and drivers; ``LEFT_OUT`` is what a recording has and no tree.

Of no recording at all is what single tests add to a tree: other boot loaders (``boot.py``), and what storage, networks and processes do with a
device (``furniture.py``), which the recorder leaves out.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
from collections.abc import Callable

from tests.hosts.recording import Machine
from tests.hosts.specification import KERNEL, HostSpec

_LIBRARY = f"usr/lib/modules/{KERNEL}"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclasses.dataclass(frozen=True)
class Boot:
    """A boot of a host: the arguments that its boot loader hands to the kernel, the boot's id, and whether the IOMMU is then on."""

    arguments: str
    identity: str
    iommu: bool


class Variation(t.NamedTuple):
    """``paths``: what it touches, as a regular expression for whole paths below the root."""

    paths: str
    why: str
    make: Callable[[Machine, HostSpec, Boot], None]


MACHINE: list[Variation] = []


def _variation(paths: str, why: str) -> Callable[[Callable[[Machine, HostSpec, Boot], None]], None]:
    return lambda make: MACHINE.append(Variation(paths, why, make))


def carry_out(machine: Machine, spec: HostSpec, boot: Boot) -> Machine:
    """All of ``MACHINE`` on what a recording holds; the same object."""
    for variation in MACHINE:
        variation.make(machine, spec, boot)
    return machine


# ------------------------------------------------------------------ the system


@_variation(
    rf"(boot/(vmlinuz|initrd\.img)-|usr/lib/modules/)({KERNEL}|[\d.-]+-amd64)(/.*)?|proc/(cmdline|sys/kernel/osrelease)|boot/grub/grub\.cfg",
    "kernel 5.15 of Ubuntu 22.04, taken to need intel_iommu=on (tree.py, iommu_is_on); the guest's 6.1 of Debian 12 turns the IOMMU on unasked",
)
def _kernel(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    recorded = machine.text("proc/sys/kernel/osrelease").strip()
    machine.files = {
        path.replace(recorded, KERNEL): content.replace(recorded.encode(), KERNEL.encode()) for path, content in machine.files.items()
    }
    machine.directories = {path.replace(recorded, KERNEL) for path in machine.directories}


@_variation("etc/os-release", "Ubuntu, as the lab's nodes have it; the guest is Debian")
def _system(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    text = re.sub(r"(?m)^ID=.*$", f"ID={spec.os_id}", machine.text("etc/os-release"))
    machine.write("etc/os-release", re.sub(r"(?m)^VERSION_ID=.*$", f'VERSION_ID="{spec.os_version}"', text))


@_variation(
    "proc/cpuinfo", "a machine of Intel's, or with an AMD IOMMU of AMD's, and no guest; QEMU shows a processor of AMD's under either IOMMU"
)
def _processor(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    maker, flag = ("AuthenticAMD", "svm") if spec.firmware == "ivrs" else ("GenuineIntel", "vmx")
    flags = f"{flag} hypervisor" if spec.hypervisor else flag
    text = re.sub(r"(?m)^(vendor_id\s*: ).*$", rf"\g<1>{maker}", machine.text("proc/cpuinfo"))
    machine.write("proc/cpuinfo", re.sub(r"(?m)^(flags\s*: ).*$", rf"\g<1>{flags}", text))


@_variation(r"sys/class/dmi/id/(sys_vendor|product_name|bios_version)", "a server's firmware, of a maker that does not exist")
def _maker(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    for name, value in (("sys_vendor", "Example Inc."), ("product_name", "Lab R750"), ("bios_version", "2.1.3")):
        machine.write(f"sys/class/dmi/id/{name}", f"{value}\n")


@_variation(_SECURE_BOOT, "hosts boot by UEFI, which says whether Secure Boot is on; guests boot by a BIOS")
def _secure_boot(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.write(_SECURE_BOOT, bytes([6, 0, 0, 0, int(spec.secure_boot)]))  # four bytes of attributes, then the value


@_variation(
    r"sys/firmware/acpi/tables/(DMAR|IVRS)|sys/(class|devices/virtual)/iommu/(dmar0|ivhd0)",
    "an AMD IOMMU, of which there is no recording: QEMU takes no snapshot of one. The kernel suite measures what it shows (test_amd.py)",
)
def _amd_iommu(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    if spec.firmware != "ivrs":
        return
    machine.files["sys/firmware/acpi/tables/IVRS"] = machine.files.pop("sys/firmware/acpi/tables/DMAR")
    if boot.iommu:
        machine.directories.remove("sys/devices/virtual/iommu/dmar0")
        machine.directories.add("sys/devices/virtual/iommu/ivhd0")
        machine.links["sys/class/iommu/ivhd0"] = machine.links.pop("sys/class/iommu/dmar0").replace("dmar0", "ivhd0")


# ------------------------------------------------------------------ boots


@_variation("proc/sys/kernel/random/boot_id", "each boot has its own; in a recording it is a pseudonym")
def _boot_id(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.write("proc/sys/kernel/random/boot_id", f"{boot.identity}\n")


@_variation(
    r"proc/cmdline|boot/grub/grub\.cfg",
    "the arguments that GRUB's files of this host give; and the tabs with which GRUB begins a line's words, which the recorder writes anew",
)
def _arguments(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    for path in ("proc/cmdline", "boot/grub/grub.cfg"):
        line = re.compile(r"(?m)^(.*/vmlinuz-.* ro)( .*)?$")
        machine.write(path, line.sub(lambda match: f"{match[1]} {boot.arguments}".rstrip(), machine.text(path)))
    machine.write("boot/grub/grub.cfg", re.sub(r"(?m)^\t(linux|initrd) ", r"\t\1\t", machine.text("boot/grub/grub.cfg")))


@_variation(
    "etc/default/grub",
    "the arguments of this host; and a comment, a time and a line for a shell as Debian's package has them, which the recorder lets nobody see",
)
def _grub_default(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    text = machine.text("etc/default/grub")
    for name, value in (("GRUB_CMDLINE_LINUX_DEFAULT", spec.cmdline_default), ("GRUB_CMDLINE_LINUX", spec.cmdline)):
        quoted = value.replace('"', '\\"')
        text = re.sub(rf"(?m)^{name}=.*$", lambda _match, line=f'{name}="{quoted}"': line, text)
    head = "# If you change this file, run 'update-grub' afterwards to update\n# /boot/grub/grub.cfg.\n\n"
    shell = "GRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\n"
    machine.write("etc/default/grub", head + shell + text)


@_variation(rf"boot/vmlinuz-(?!{KERNEL}$).+", "kernels beside the running one: a test's own")
def _other_kernels(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    for release in spec.other_kernels:
        machine.write(f"boot/vmlinuz-{release}", "")


@_variation("dev/kmsg", "what a test wants the kernel to have said; in the lab nothing, as in a recording of a guest without trouble")
def _kernel_log(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    lines = [f"6,{number},{number},-;{line}\n" for number, line in enumerate(spec.kernel_log)]
    machine.write("dev/kmsg", machine.text("dev/kmsg") + "".join(lines))


# ------------------------------------------------------------------ modules and drivers


@_variation(
    rf"{_LIBRARY}/modules\.dep",
    "without NVIDIA's module, which is in the driver's container unless the host has a driver of its own; or without what a test takes away",
)
def _loadable(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    recorded = machine.text(f"{_LIBRARY}/modules.dep").splitlines()
    lines = recorded if spec.loadable is None else [f"kernel/{name}.ko:" for name in [*spec.loadable, "mdev"]]
    gone = {*(() if spec.host_driver else ("nvidia",)), *(() if spec.mdev else ("mdev",))}
    machine.write(f"{_LIBRARY}/modules.dep", "".join(f"{line}\n" for line in lines if line[:-4].rpartition("/")[2] not in gone))


@_variation(
    r"sys/module/[^/]+", "which modules are loaded is the host's; the guest has QEMU's devices', and the stand-in for NVIDIA's everywhere"
)
def _loaded(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.directories = {path for path in machine.directories if not path.startswith("sys/module/")}
    for name in spec.modules:
        machine.directories.add(f"sys/module/{name}")
        if name == "vfio_pci":
            machine.directories.add("sys/module/vfio_pci_core")  # which it needs: so it is in the guest


@_variation("sys/module/nvidia/version", "the version of a driver on the host itself; in the guest that of the stand-in")
def _driver_version(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.files.pop("sys/module/nvidia/version", None)
    if spec.host_driver and "nvidia" in spec.modules:
        machine.write("sys/module/nvidia/version", f"{spec.host_driver}\n")


@_variation(r"usr/bin/nvidia-smi|var/lib/dkms/nvidia/.+", "a driver on the host itself; the guest's stand-in brings no programs")
def _host_driver(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    if spec.host_driver:
        machine.write("usr/bin/nvidia-smi", "")
        machine.write(f"var/lib/dkms/nvidia/{spec.host_driver}/source/dkms.conf", "")


@_variation("usr/lib/nvidia/sriov-manage", "NVIDIA's programs are in the driver's container; the guest has a stand-in for this one")
def _sriov_manage(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    del machine.files["usr/lib/nvidia/sriov-manage"]


@_variation(
    rf"usr/src/linux-headers-{KERNEL}/Makefile|{_LIBRARY}/build", "headers of the running kernel, which a driver's container builds with"
)
def _headers(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    if spec.headers:
        machine.write(f"usr/src/linux-headers-{KERNEL}/Makefile", "")
        machine.links[f"{_LIBRARY}/build"] = f"../../../src/linux-headers-{KERNEL}"


@_variation(
    r"etc/modprobe\.d/[^/]+\.conf", "nothing is blocked unless a test wants it: site.yml is to block nouveau. The guest's image does so"
)
def _blocked(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.files = {path: content for path, content in machine.files.items() if not path.startswith("etc/modprobe.d/")}
    if spec.blocked:
        machine.write("etc/modprobe.d/blocked.conf", "".join(f"blacklist {name}\n" for name in spec.blocked))


@_variation(
    rf"boot/initrd\.img-{KERNEL}",
    "a list of what the image holds, for the stand-ins of the programs that list and build it; a recording has the name alone",
)
def _initramfs(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    files = sorted(path for path in machine.files if re.fullmatch(r"etc/modprobe\.d/[^/]+\.conf", path))
    machine.write(f"boot/initrd.img-{KERNEL}", "".join(f"{name}\n" for name in [*modules_in_image(spec), *files]))


def modules_in_image(spec: HostSpec) -> list[str]:
    """The modules that an initial file system of the running kernel is built with, by their paths in it."""
    return [f"{_LIBRARY}/kernel/{name}.ko" for name in spec.initramfs]


@_variation("usr/share/misc/pci.ids", "names of these GPUs, as pci.ids has them; names are free text, which the recorder lets nobody see")
def _names(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    machine.write(
        "usr/share/misc/pci.ids",
        "8086  Intel Corporation\n\t159b  E810\n"
        "10de  NVIDIA Corporation\n\t1aef  GA102 High Definition Audio Controller\n\t1eb8  TU104GL [Tesla T4]\n"
        "\t20f1  GA100 [A100 PCIe 40GB]\n\t2230  GA102GL [RTX A6000]\n"
        "\t2236  GA102GL [A10]\n\t\t10de 1482  A10\n\t25b6  GA107GL [A2 / A16]\n",
    )


# ------------------------------------------------------------------ processes


@_variation(r"proc/\d+/(comm|fd|fd/\d+)", "virtual machines that a test wants; the guest's process that holds a GPU is none of a host's")
def _processes(machine: Machine, spec: HostSpec, boot: Boot) -> None:
    def other(path: str) -> bool:
        return re.match(r"proc/(?!1/|2/)\d+/", path) is not None  # than init and the kernel's threads

    machine.files = {path: content for path, content in machine.files.items() if not other(path)}
    machine.links = {path: target for path, target in machine.links.items() if not other(path)}
    machine.directories = {path for path in machine.directories if not other(path)}
    for pid in spec.qemu:
        machine.write(f"proc/{pid}/comm", "qemu-system-x86\n")
        machine.links[f"proc/{pid}/fd/12"] = "/dev/vfio/28"


# ------------------------------------------------------------------ PCI functions: made in tree.py and recording.py

_FUNCTION = r"sys/devices/pci[0-9a-f:/.]+"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

#: Paths -> why they differ, or are there although no recording has them.
PLACED = {
    rf"{_FUNCTION}/(vendor|device|class|subsystem_vendor|subsystem_device|modalias|config)":
        "ids and class: the guest's ports, disks and network cards are QEMU's, and it has no RTX A6000",
    rf"{_FUNCTION}/numa_node": "two sockets with a GPU each; the guest has one node and says none",
    rf"{_FUNCTION}/resource": "sizes of a GPU's BARs are those of the board; the guest's are emulated",
    rf"{_FUNCTION}/sriov_(totalvfs|numvfs|offset|stride|vf_device)":
        "an A10 has 16 virtual functions, the first at function 4, the others after it; the guest's device (igb) has 8, 2 apart from 0x80 on",
    rf"{_FUNCTION}/power_state": "a GPU that sleeps: a test's own",
    rf"{_FUNCTION}/boot_vga": "a GPU with display ports is a VGA device, of which the kernel says whether it is the console; the guest has none",
    r"sys/devices/virtual/devlink/.+/(supplier|consumer)": "the kernel has them in each device link; the recorder lets only the link out",
    rf"{_FUNCTION}/mdev_supported_types/nvidia-\d+/(name|available_instances|description)":
        "the types of NVIDIA's driver for an A10 and what is left of each; the guest's stand-in names seven of the ten",
    rf"{_FUNCTION}/nvidia/(creatable_vgpu_types|current_vgpu_type)": "the same, under the driver's own framework",
    r"sys/bus/pci/drivers/(ice|nvme)(/.+)?": "a network card and a disk of a server; the guest's are QEMU's",
    rf"sys/kernel/iommu_groups/\d+/devices/{_UUID}": "a vGPU in its group, as the kernel has it; the recorder lets only the way back out",
    r"sys/kernel/iommu_groups/\d+/type": "without iommu=pt the groups' domains are DMA-FQ (seen on guests); guests are recorded with it",
    "var/lib/host-tree.json": "what the tree was made of, for the lab itself: reboots start from it",
}  # fmt: skip

#: Paths of recordings that no tree has -> why.
LEFT_OUT = {
    r"sys/bus/pci/drivers/(i801_smbus|lpc_ich|igb|virtio-pci)(/.*)?": "the guest's own devices: QEMU's south bridge, disk and network cards",
    r"sys/class/vfio/\d+/dev": "numbers of VFIO's device nodes: those of a tree are plain files",
    rf"{_FUNCTION}/sound/.+": "numbers of a sound card's device nodes, for the same reason",
}
