# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds a directory that looks like the root of a GPU node, boots it again, and turns its IOMMU on in the firmware.

PCI functions are what a real kernel shows, out of recordings (``recording.py`` says what is varied). The shapes of the rest of sysfs, of procfs and
of GRUB's files are those of real machines (a 5.15 kernel of Ubuntu 22.04 that needs ``intel_iommu=on``).
What a real machine would do is done here by the few functions that say so: a reboot runs GRUB's own configuration files through a real
shell, and forgets virtual functions, vGPUs and driver bindings.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from tests.hosts import recording

KERNEL = "5.15.0-119-generic"
ROOT_DEVICE = "UUID=4f5f1b8e-6c0e-4d52-9f0a-2f4f5a9d7c11"
#: Modules that the kernel of a tree has unless told otherwise.
MODULES = ("drivers/gpu/drm/nouveau/nouveau", "drivers/vfio/pci/vfio-pci", "drivers/vfio/vfio_iommu_type1", "arch/x86/kvm/kvm")
#: Where a tree keeps what it was built from.
_MEMORY = "var/lib/host-tree.json"
#: How far the first virtual function of NVIDIA's GPUs is from its physical function: device 0, function 4. The others follow it.
FIRST_VF = 4
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
    loadable: list[str] = dataclasses.field(default_factory=lambda: list(MODULES))  #: modules that its kernel has
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


def build(root: Path, spec: HostSpec) -> None:
    """Write the tree afresh, as the host is right after a boot with this specification."""
    if root.exists():
        shutil.rmtree(root)
    _remember(root, spec)
    _disk(root, spec)
    _boot(root, spec)


def reboot(root: Path) -> None:
    """Boot the tree again: GRUB's files are read anew; what lives in the running kernel only is gone."""
    spec = _recall(root)
    build_initramfs(root, spec)
    blocked = set(_words(root, "etc/modprobe.d", "blacklist "))
    for gpu in spec.gpus:
        gpu.vfs, gpu.active, gpu.audio_driver = 0, {}, "snd_hda_intel"
        gpu.driver = None if gpu.boot_driver in blocked else gpu.boot_driver
    spec.qemu, spec.kernel_log = [], []
    kept = [name for name in spec.modules if not name.startswith(("nvidia", "mdev"))]
    spec.modules = sorted({*kept, *(name.replace("-", "_") for name in _words(root, "etc/modules-load.d", ""))})
    _remember(root, spec)
    shutil.rmtree(root / "run", ignore_errors=True)
    _boot(root, spec)


def build_initramfs(root: Path, spec: HostSpec | None = None) -> None:
    """What the pending ``update-initramfs`` does: the image holds modules, and modprobe's files as they are now. Here it is the list of both."""
    spec = spec or _recall(root)
    modules = [f"usr/lib/modules/{KERNEL}/kernel/{name}.ko" for name in spec.initramfs]
    files = [f"etc/modprobe.d/{path.name}" for path in sorted((root / "etc/modprobe.d").glob("*.conf"))]
    _write(root, f"boot/initrd.img-{KERNEL}", "".join(f"{name}\n" for name in [*modules, *files]))


def _words(root: Path, directory: str, start: str) -> list[str]:
    """What follows ``start`` on the lines of a directory's ``.conf`` files, comments left out."""
    lines = [line for path in sorted((root / directory).glob("*.conf")) for line in path.read_text().splitlines()]
    return [line.removeprefix(start).strip() for line in lines if line.startswith(start) and line and not line.startswith("#")]


def mend_firmware(root: Path) -> None:
    """Turn VT-d on in the firmware. Like the real thing, it takes effect with the next boot."""
    spec = _recall(root)
    spec.firmware = "dmar"
    _remember(root, spec)


def start_vgpu_manager(root: Path) -> None:
    """What NVIDIA's vGPU manager does to the host: its driver takes the GPUs, makes their virtual functions and offers types on them."""
    spec = _recall(root)
    for gpu in spec.gpus:
        if not gpu.vfs:
            gpu.driver, gpu.vfs = "nvidia", gpu.vfs_total
    spec.modules = sorted({*spec.modules, "mdev", "nvidia", "nvidia_vgpu_vfio"})
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))


def bind(root: Path, driver: str | None, companions: Collection[str] = (), at_boot: bool = False) -> None:
    """Put every GPU on a driver, or take it from its driver; with them the audio functions at the addresses ``companions``.

    ``at_boot``: with each boot, too.
    """
    spec = _recall(root)
    for gpu in spec.gpus:
        gpu.driver = driver
        gpu.boot_driver = driver if at_boot else gpu.boot_driver
        if gpu.audio and _audio_address(gpu) in companions:
            gpu.audio_driver = driver
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))


def seat(root: Path, gpus: list[Gpu]) -> list[Gpu]:
    """Change which GPUs are in the host; those that were."""
    spec = _recall(root)
    before, spec.gpus = spec.gpus, gpus
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))
    return before


def grub_arguments(root: Path) -> str:
    """The arguments that ``update-grub`` would write: its files are shell, so a shell reads them, in its order."""
    files = [root / "etc/default/grub", *sorted((root / "etc/default/grub.d").glob("*.cfg"))]
    script = "".join(f'. "{path}"\n' for path in files) + 'printf "%s %s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    done = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def iommu_is_on(spec: HostSpec, cmdline: str) -> bool:
    """What this kernel makes of firmware and arguments: the last ``intel_iommu=`` wins, ``off`` of the others is never taken back."""
    given: dict[str, list[list[str]]] = {"iommu": [], "intel_iommu": [], "amd_iommu": []}
    for word in cmdline.split():
        key, _equals, value = word.partition("=")
        if key in given:
            given[key].append(value.split(","))
    if any("off" in values for values in given["iommu"]):
        return False
    if spec.firmware == "dmar":
        return bool(given["intel_iommu"]) and "off" not in given["intel_iommu"][-1]
    return spec.firmware == "ivrs" and not any("off" in values for values in given["amd_iommu"])


def default_domain(cmdline: str) -> str:
    """The ``type`` of the groups: ``identity`` with ``iommu=pt``, as was seen in a guest; without it that of a host's stock kernel."""
    return "identity" if any(word.startswith("iommu=") and "pt" in word[6:].split(",") for word in cmdline.split()) else "DMA-FQ"


def _remember(root: Path, spec: HostSpec) -> None:
    _write(root, _MEMORY, json.dumps(dataclasses.asdict(spec)))


def _recall(root: Path) -> HostSpec:
    kept = json.loads((root / _MEMORY).read_text())
    gpus = [Gpu(**{**gpu, "active": {int(number): kind for number, kind in gpu["active"].items()}}) for gpu in kept.pop("gpus")]
    return HostSpec(gpus=gpus, **kept)


def _write(root: Path, path: str, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    _below(root, path, lambda file: file.write_bytes(data))


def _link(root: Path, path: str, target: str) -> None:
    """A link at ``path`` to ``target`` (both below the root), relative like those of the kernel."""
    _below(root, path, lambda file: file.symlink_to(os.path.relpath(target, os.path.dirname(path))))


def _below(root: Path, path: str, make: Callable[[Path], object]) -> None:
    """Make a file, and the directories above it if they are not there: most often they are."""
    file = root / path
    try:
        make(file)
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        make(file)


def _disk(root: Path, spec: HostSpec) -> None:
    _write(root, "etc/os-release", f'NAME="Lab"\nID={spec.os_id}\nVERSION_ID="{spec.os_version}"\n')
    _write(
        root,
        "etc/default/grub",
        "# If you change this file, run 'update-grub' afterwards to update\n# /boot/grub/grub.cfg.\n\n"
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\n"
        f'GRUB_CMDLINE_LINUX_DEFAULT="{_escaped(spec.cmdline_default)}"\nGRUB_CMDLINE_LINUX="{_escaped(spec.cmdline)}"\n',
    )
    (root / "etc/default/grub.d").mkdir()
    _link(root, "lib", "usr/lib")
    for name in ("vmlinuz", "config"):
        _write(root, f"boot/{name}-{KERNEL}", "")
    build_initramfs(root, spec)
    for program in ("usr/sbin/update-grub", "usr/sbin/update-initramfs", "usr/bin/lsinitramfs"):
        _write(root, program, "")
    _write(
        root,
        "usr/share/misc/pci.ids",
        "8086  Intel Corporation\n\t159b  E810\n"
        "10de  NVIDIA Corporation\n\t1aef  GA102 High Definition Audio Controller\n\t2230  GA102GL [RTX A6000]\n"
        "\t2236  GA102GL [A10]\n\t\t10de 1482  A10\n",
    )
    modules = [*spec.loadable, "mdev"] if spec.mdev else spec.loadable
    _write(root, f"usr/lib/modules/{KERNEL}/modules.dep", "".join(f"kernel/{name}.ko:\n" for name in modules))
    _write(root, f"usr/lib/modules/{KERNEL}/modules.builtin", "kernel/drivers/vfio/vfio.ko\n")
    for release in spec.other_kernels:
        _write(root, f"boot/vmlinuz-{release}", "")
    if spec.headers:
        _write(root, f"usr/src/linux-headers-{KERNEL}/Makefile", "")
        _link(root, f"usr/lib/modules/{KERNEL}/build", f"usr/src/linux-headers-{KERNEL}")
    if spec.blocked:
        _write(root, "etc/modprobe.d/blocked.conf", "".join(f"blacklist {name}\n" for name in spec.blocked))
    (root / "dev").mkdir()
    if spec.host_driver:
        for path in ("usr/bin/nvidia-smi", f"var/lib/dkms/nvidia/{spec.host_driver}/source/dkms.conf"):
            _write(root, path, "")


def _escaped(text: str) -> str:
    return text.replace('"', '\\"')


def _boot(root: Path, spec: HostSpec) -> None:
    entry = f"/boot/vmlinuz-{KERNEL} root={ROOT_DEVICE} ro {grub_arguments(root)}".rstrip()
    _write(
        root,
        "boot/grub/grub.cfg",
        "#\n# DO NOT EDIT THIS FILE\n#\n### BEGIN /etc/grub.d/10_linux ###\nmenuentry 'Ubuntu' --class ubuntu --class os {\n"
        f"\tlinux\t{entry}\n\tinitrd\t/boot/initrd.img-{KERNEL}\n}}\n### END /etc/grub.d/10_linux ###\n",
    )
    for part in ("proc", "sys"):
        shutil.rmtree(root / part, ignore_errors=True)
    _write(root, "proc/cmdline", f"BOOT_IMAGE={entry}\n")
    on = iommu_is_on(spec, entry)
    _procfs(root, spec)
    _firmware(root, spec)
    _sysfs(root, spec, on)


def _procfs(root: Path, spec: HostSpec) -> None:
    _write(root, "proc/sys/kernel/osrelease", f"{KERNEL}\n")
    _write(root, "proc/sys/kernel/arch", "x86_64\n")
    _write(root, "proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    _write(root, "proc/version", f"Linux version {KERNEL} (buildd@lab) #129-Ubuntu SMP\n")
    flags = "fpu vme de vmx" + (" hypervisor" if spec.hypervisor else "")
    _write(root, "proc/cpuinfo", f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\n")
    _write(root, "proc/1/comm", "systemd\n")
    (root / "proc/1/fd").mkdir()
    _write(root, "proc/2/comm", "kthreadd\n")
    (root / "proc/2/fd").mkdir()
    for pid in spec.qemu:
        _write(root, f"proc/{pid}/comm", "qemu-system-x86\n")
        (root / f"proc/{pid}/fd").mkdir()
        (root / f"proc/{pid}/fd/12").symlink_to("/dev/vfio/28")
    _write(root, "dev/kmsg", "".join(f"6,{number},{number},-;{line}\n" for number, line in enumerate(spec.kernel_log)))


def _firmware(root: Path, spec: HostSpec) -> None:
    _write(root, "sys/firmware/acpi/tables/FACP", b"FACP")
    if spec.firmware != "none":
        _write(root, f"sys/firmware/acpi/tables/{spec.firmware.upper()}", spec.firmware.upper().encode())
    _write(root, "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", bytes([6, 0, 0, 0, int(spec.secure_boot)]))
    for name, value in (("sys_vendor", "Example Inc."), ("product_name", "Lab R750"), ("bios_version", "2.1.3")):
        _write(root, f"sys/class/dmi/id/{name}", f"{value}\n")
    _write(root, "sys/kernel/security/lockdown", "[none] integrity confidentiality\n")


def _sysfs(root: Path, spec: HostSpec, on: bool) -> None:
    for part in ("sys/bus", "sys/devices", "sys/class/iommu", "sys/class/mdev_bus", "sys/kernel/iommu_groups", "sys/module"):
        shutil.rmtree(root / part, ignore_errors=True)
    for part in ("sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/class/iommu", "sys/kernel/iommu_groups"):
        (root / part).mkdir(parents=True)
    for name in spec.modules:
        (root / f"sys/module/{name}").mkdir(parents=True)
    if spec.host_driver and "nvidia" in spec.modules:
        _write(root, "sys/module/nvidia/version", f"{spec.host_driver}\n")
    if on:
        unit = "dmar0" if spec.firmware == "dmar" else "ivhd0"
        _write(root, f"sys/devices/virtual/iommu/{unit}/uevent", "")
        _link(root, f"sys/class/iommu/{unit}", f"sys/devices/virtual/iommu/{unit}")

    groups = _Groups(root, on, default_domain((root / "proc/cmdline").read_text()))
    groups.add(_function(root, "pci0000:00/0000:00:00.0", "8086", "0998", "060000", None))
    groups.add(_function(root, "pci0000:00/0000:00:01.0/0000:01:00.0", "8086", "159b", "020000", "ice"))
    groups.add(_function(root, "pci0000:00/0000:00:02.0/0000:02:00.0", "144d", "a80a", "010802", "nvme"))
    for gpu in spec.gpus:
        _gpu(root, gpu, groups)


#: By the class of a function, the kind of function that the kernel was seen to show like it.
_LIKE = {"0600": "host bridge", "0604": "port", "0200": "network card", "0403": "audio"}


class _Groups:
    """Hands out IOMMU groups; none while the IOMMU is off."""

    def __init__(self, root: Path, on: bool, kind: str = "DMA-FQ") -> None:
        self.root, self.on, self.kind, self.next = root, on, kind, 26

    def add(self, device: str, group: int | None = None, kind: str = "") -> int | None:
        if not self.on:
            return None
        if group is None:
            group, self.next = self.next, self.next + 1
            _write(self.root, f"sys/kernel/iommu_groups/{group}/type", f"{kind or self.kind}\n")
        _link(self.root, f"sys/kernel/iommu_groups/{group}/devices/{os.path.basename(device)}", device)
        _link(self.root, f"{device}/iommu_group", f"sys/kernel/iommu_groups/{group}")
        return group


def _function(root: Path, place: str, vendor: str, device: str, code: str, driver: str | None, subsystem: str = "", like: str = "") -> str:
    """Make a PCI function, as the kernel shows one of the kind ``like`` (see ``recording.py``); its path."""
    path = f"sys/devices/{place}"
    address = os.path.basename(place)
    files = recording.varied(
        like or _LIKE.get(code[:4], "disk"), vendor, device, code, subsystem or "0000:0000", int(int(address.split(":")[1], 16) >= 0x80)
    )
    (root / path).mkdir(parents=True)
    for name, content in files.items():
        (root / path / name).write_bytes(content)
    _link(root, f"sys/bus/pci/devices/{address}", path)
    if driver:
        (root / f"sys/bus/pci/drivers/{driver}").mkdir(exist_ok=True)
        _link(root, f"sys/bus/pci/drivers/{driver}/{address}", path)
        _link(root, f"{path}/driver", f"sys/bus/pci/drivers/{driver}")
    return path


def _gpu(root: Path, gpu: Gpu, groups: _Groups) -> None:
    bus = gpu.address[:7]
    port = f"pci{gpu.address[:5]}{int(gpu.address[5:7], 16) - 1:02x}/{gpu.address[:5]}{int(gpu.address[5:7], 16) - 1:02x}:01.0"
    groups.add(_function(root, port, "8086", "347a", "060400", "pcieport"))
    like = "GPU with SR-IOV" if gpu.vfs_total else "GPU"
    path = _function(root, f"{port}/{gpu.address}", "10de", gpu.device, gpu.kind, gpu.driver, gpu.subsystem, like)
    group = groups.add(path)
    _write(root, f"{path}/power_state", f"{gpu.power_state}\n")
    _write(root, f"{path}/resource", _resource([16 << 20, gpu.bar1, 0, 32 << 20, 0, 0], (root / path / "resource").read_text()))
    if gpu.kind.startswith("0300"):
        _write(root, f"{path}/boot_vga", f"{int(gpu.boot_vga)}\n")
    if gpu.fell_off_bus:
        _write(root, f"{path}/config", b"\xff" * 64)
    if gpu.audio:
        audio = _function(root, f"{port}/{_audio_address(gpu)}", "10de", "1aef", "040300", gpu.audio_driver, gpu.subsystem)
        groups.add(audio, group)
        _device_link(root, path, audio)
    if gpu.neighbour:
        groups.add(_function(root, f"{port}/{bus}:01.0", "8086", "1533", "020000", "igb"), group)
    if gpu.vfs_total:
        _write(root, f"{path}/sriov_totalvfs", f"{gpu.vfs_total}\n")
        _write(root, f"{path}/sriov_numvfs", f"{gpu.vfs}\n")
        _write(root, f"{path}/sriov_offset", f"{FIRST_VF}\n")
        _write(root, f"{path}/sriov_stride", "1\n")
        _write(root, f"{path}/sriov_vf_device", f"{gpu.device}\n")
    for number in range(gpu.vfs):
        _virtual_function(root, gpu, number, f"{port}/{bus}:{(number >> 3):02x}.{number & 7}", path, groups)


def _audio_address(gpu: Gpu) -> str:
    return f"{gpu.address[:-1]}1"


def _device_link(root: Path, supplier: str, consumer: str) -> None:
    """The kernel lets no audio function sleep without its GPU (drivers/pci/quirks.c, quirk_gpu_hda), and shows that in both of them."""
    names = [f"pci:{os.path.basename(path)}" for path in (supplier, consumer)]
    link = f"sys/devices/virtual/devlink/{'--'.join(names)}"
    _link(root, f"{link}/supplier", supplier)
    _link(root, f"{link}/consumer", consumer)
    _link(root, f"{supplier}/consumer:{names[1]}", link)
    _link(root, f"{consumer}/supplier:{names[0]}", link)


def _virtual_function(root: Path, gpu: Gpu, number: int, place: str, physical: str, groups: _Groups) -> None:
    # NVIDIA's virtual functions carry the ids of their physical function.
    head, _dot, function = place.rpartition(".")
    slot = int(head[-2:], 16) * 8 + int(function) + FIRST_VF
    place = f"{head[:-2]}{slot >> 3:02x}.{slot & 7}"
    path = _function(root, place, "10de", gpu.device, gpu.kind, "nvidia", gpu.subsystem, "virtual function")
    address = os.path.basename(place)
    groups.add(path)
    _link(root, f"{path}/physfn", physical)
    _link(root, f"{physical}/virtfn{number}", path)
    used = sum(1 for _ in gpu.active)
    if gpu.backend == "vendor_vfio":
        sizes = set(gpu.active.values())
        free = [kind for kind, (_name, most) in A10_TYPES.items() if number not in gpu.active and sizes <= {kind} and used < most]
        lines = [f"{kind:<6}: {A10_TYPES[kind][0]}" for kind in free]
        _write(root, f"{path}/nvidia/creatable_vgpu_types", "\n".join(["ID    : vGPU Name", *lines]) + "\n")
        _write(root, f"{path}/nvidia/current_vgpu_type", f"{gpu.active.get(number, 0)}\n")
        return
    _link(root, f"sys/class/mdev_bus/{address}", path)
    for kind, (name, most) in A10_TYPES.items():
        # A virtual function takes one vGPU, and a GPU takes vGPUs of one size up to its number.
        sizes = set(gpu.active.values())
        available = int(number not in gpu.active and sizes <= {kind} and used < most)
        base = f"{path}/mdev_supported_types/nvidia-{kind}"
        size = int(re.findall(r"-(\d+)", name)[-1])
        _write(root, f"{base}/name", f"{name}\n")
        _write(root, f"{base}/available_instances", f"{available}\n")
        _write(root, f"{base}/device_api", "vfio-pci\n")
        _write(
            root,
            f"{base}/description",
            f"num_heads=4, frl_config=60, framebuffer={size * 1024}M, max_resolution=7680x4320, max_instance={most}\n",
        )
    if number in gpu.active:
        identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{address}"))
        (root / f"{path}/{identity}").mkdir()
        _link(root, f"{path}/{identity}/mdev_type", f"{path}/mdev_supported_types/nvidia-{gpu.active[number]}")
        _link(root, f"sys/bus/mdev/devices/{identity}", f"{path}/{identity}")
        groups.add(f"{path}/{identity}", kind="unknown")  # no IOMMU translates for it


def _resource(sizes: list[int], seen: str) -> str:
    """The lines of ``resource`` with BARs of these sizes, and after them those that the kernel has for other things."""
    lines, at = [], 0x10000000
    for size in sizes:
        lines.append(f"0x{at:016x} 0x{at + size - 1:016x} 0x{0x140204:016x}" if size else " ".join(["0x" + "0" * 16] * 3))
        at += size
    return "\n".join(lines + seen.splitlines()[len(sizes) :]) + "\n"


def drivers(root: Path) -> dict[str, str | None]:
    """The driver of every GPU, by address."""
    return {gpu.address: gpu.driver for gpu in _recall(root).gpus}


def has_groups(root: Path) -> bool:
    """Does the running kernel use the IOMMU?"""
    return any((root / "sys/kernel/iommu_groups").iterdir())


def make_vgpus(root: Path, wanted: list[dict[str, int]]) -> bool:
    """Make vGPUs on each GPU, by plain type, in place of those that are there; False, and as many as fit, where more are wanted."""
    kinds = {full.split()[-1]: (number, most) for number, (full, most) in A10_TYPES.items()}
    spec = _recall(root)
    whole = True
    for gpu, types in zip(spec.gpus, wanted, strict=True):
        gpu.active = {}
        for name, count in types.items():
            number, most = kinds.get(name, (0, 0))
            free = min(most, gpu.vfs) if not gpu.active else 0  # one size at a time
            gpu.active.update(dict.fromkeys(range(min(count, free)), number))
            whole = whole and count <= free
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))
    return whole


def set_vgpus(root: Path, name: str | None) -> int:
    """Make as many vGPUs of one type as fit on every GPU (None: none at all); how many there are then. Raises KeyError for an unknown type."""
    kinds = {full: (number, most) for number, (full, most) in A10_TYPES.items()}
    number, most = kinds[f"NVIDIA {name}"] if name else (0, 0)
    spec = _recall(root)
    total = 0
    for gpu in spec.gpus:
        gpu.active = dict.fromkeys(range(min(most, gpu.vfs)), number)
        total += len(gpu.active)
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))
    return total
