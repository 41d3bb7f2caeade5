# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds a directory that looks like the root of a GPU node, boots it again, and turns its IOMMU on in the firmware.

All of it is the recording of a guest of the kernel suite (``recording.py``), but for what ``variations.py`` names with its reason.
What a real machine would do is done here by the few functions that say so: a reboot runs GRUB's own configuration files through a real
shell, and forgets virtual functions, vGPUs and driver bindings.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tests.hosts import recording, variations
from tests.hosts.specification import A10_TYPES, KERNEL, LAB_HOSTS, OTHER_TYPES, Gpu, HostSpec, a10s

__all__ = ["A10_TYPES", "KERNEL", "LAB_HOSTS", "Gpu", "HostSpec", "a10s"]  # what others take from here

#: Where a tree keeps what it was built from.
_MEMORY = "var/lib/host-tree.json"
#: How far the first virtual function of NVIDIA's GPUs is from its physical function: device 0, function 4. The others follow it.
FIRST_VF = 4


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
    modules = variations.modules_in_image(spec)
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


def _machine(spec: HostSpec, boot: variations.Boot) -> recording.Machine:
    """All of a host beside PCI functions, as it is after this boot: the guest in the same state, and what is varied."""
    with_iommu = "guest-vgpu" if boot.iommu else "guest-iommu-off"
    return variations.carry_out(recording.machine("guest-no-iommu" if spec.firmware == "none" else with_iommu), spec, boot)


#: What a boot makes anew; the rest of a machine is on its disk.
_RUNNING = re.compile(r"(proc|sys|dev)/.*|boot/grub/grub\.cfg")


def _disk(root: Path, spec: HostSpec) -> None:
    _lay_out(root, _machine(spec, variations.Boot("", "", False)), lambda path: not _RUNNING.fullmatch(path))


def _boot(root: Path, spec: HostSpec) -> None:
    for part in ("proc", "sys", "dev"):
        shutil.rmtree(root / part, ignore_errors=True)
    arguments = grub_arguments(root)
    boot = variations.Boot(arguments, str(uuid.uuid4()), iommu_is_on(spec, arguments))
    _lay_out(root, _machine(spec, boot), lambda path: bool(_RUNNING.fullmatch(f"{path}/" if "/" not in path else path)))
    _sysfs(root, spec, boot.iommu)


def _lay_out(root: Path, machine: recording.Machine, chosen: Callable[[str], bool]) -> None:
    for path in filter(chosen, machine.directories):
        (root / path).mkdir(parents=True, exist_ok=True)
    for path in filter(chosen, machine.files):
        _write(root, path, machine.files[path])
    for path in filter(chosen, machine.links):
        _below(root, path, functools.partial(_point, target=machine.links[path]))


def _point(file: Path, target: str) -> None:
    file.symlink_to(target)


def _sysfs(root: Path, spec: HostSpec, on: bool) -> None:
    """PCI functions with their drivers, groups and vGPUs, and the modules that are loaded, as they are now."""
    machine = _machine(spec, variations.Boot("", "", on))
    for part in ("sys/bus", "sys/devices", "sys/class/mdev_bus", "sys/kernel/iommu_groups", "sys/module"):
        shutil.rmtree(root / part, ignore_errors=True)
    for part in ("sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups"):
        (root / part).mkdir(parents=True)
    _lay_out(root, machine, lambda path: path.startswith(("sys/module", "sys/devices/")))

    groups = _Groups(root, on, default_domain((root / "proc/cmdline").read_text()))
    groups.add(_function(root, "pci0000:00/0000:00:00.0", "8086", "0998", "060000", None))
    groups.add(_function(root, "pci0000:00/0000:00:01.0/0000:01:00.0", "8086", "159b", "020000", "ice"))
    groups.add(_function(root, "pci0000:00/0000:00:02.0/0000:02:00.0", "144d", "a80a", "010802", "nvme"))
    for gpu in spec.gpus:
        _gpu(root, gpu, groups, "nvidia_vgpu_vfio" in spec.modules)


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
        _module(root, driver)
    return path


def _module(root: Path, driver: str) -> None:
    """Say which module a driver is of, as the guest's kernel does. NVIDIA's counts as loaded only on a host whose specification says so."""
    path = f"sys/bus/pci/drivers/{driver}/module"
    target = recording.recording().links.get(path)
    if target is None or (root / path).is_symlink():
        return
    module = root / "sys/module" / os.path.basename(target)
    if driver != "nvidia":
        module.mkdir(exist_ok=True)
    if module.is_dir():
        (root / path).symlink_to(target)


def _gpu(root: Path, gpu: Gpu, groups: _Groups, vgpu_manager: bool) -> None:
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
    elif vgpu_manager and gpu.driver == "nvidia" and gpu.device in OTHER_TYPES:  # before Ampere the GPU itself takes vGPUs
        sizes, used = set(gpu.active.values()), len(gpu.active)
        free = {kind: max(0, most - used) if sizes <= {kind} else 0 for kind, (_name, most) in types_of(gpu).items()}
        _mdev_parent(root, gpu, path, free, list(gpu.active), groups)
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
    groups.add(path)
    _link(root, f"{path}/physfn", physical)
    _link(root, f"{physical}/virtfn{number}", path)
    used = sum(1 for _ in gpu.active)
    if gpu.backend == "vendor_vfio":
        sizes = set(gpu.active.values())
        kinds = types_of(gpu)
        free = [kind for kind, (_name, most) in kinds.items() if number not in gpu.active and sizes <= {kind} and used < most]
        lines = [f"{kind:<6}: {kinds[kind][0]}" for kind in free]
        _write(root, f"{path}/nvidia/creatable_vgpu_types", "\n".join(["ID    : vGPU Name", *lines]) + "\n")
        _write(root, f"{path}/nvidia/current_vgpu_type", f"{gpu.active.get(number, 0)}\n")
        return
    # A virtual function takes one vGPU, and a GPU takes vGPUs of one size up to its number.
    sizes = set(gpu.active.values())
    room = {kind: int(number not in gpu.active and sizes <= {kind} and used < most) for kind, (_name, most) in types_of(gpu).items()}
    _mdev_parent(root, gpu, path, room, [number] if number in gpu.active else [], groups)


def types_of(gpu: Gpu) -> dict[int, tuple[str, int]]:
    """The vGPU types that the driver has for a GPU, by id: name, and how many fit."""
    return OTHER_TYPES.get(gpu.device, A10_TYPES)


def _mdev_parent(root: Path, gpu: Gpu, path: str, room: Mapping[int, int], active: Sequence[int], groups: _Groups) -> None:
    """Types, what is left of each, and vGPUs of a function: a virtual one, or a GPU that has none. ``active``: numbers of its vGPUs."""
    address = os.path.basename(path)
    _link(root, f"sys/class/mdev_bus/{address}", path)
    for kind, (name, most) in types_of(gpu).items():
        base = f"{path}/mdev_supported_types/nvidia-{kind}"
        size = int(re.findall(r"-(\d+)", name)[-1])
        _write(root, f"{base}/name", f"{name}\n")
        _write(root, f"{base}/available_instances", f"{room[kind]}\n")
        _write(root, f"{base}/device_api", "vfio-pci\n")
        _write(
            root,
            f"{base}/description",
            f"num_heads=4, frl_config=60, framebuffer={size * 1024}M, max_resolution=7680x4320, max_instance={most}\n",
        )
    for number in active:
        identity = _identity(gpu, number)
        (root / f"{path}/{identity}").mkdir()
        _link(root, f"{path}/{identity}/mdev_type", f"{path}/mdev_supported_types/nvidia-{gpu.active[number]}")
        _link(root, f"sys/bus/mdev/devices/{identity}", f"{path}/{identity}")
        groups.add(f"{path}/{identity}", kind="unknown")  # no IOMMU translates for it


def _identity(gpu: Gpu, number: int) -> str:
    """The UUID of a GPU's mediated device: of that on the virtual function with this number, or of the n-th on the GPU itself."""
    slot = number + FIRST_VF
    place = f"{gpu.address[:8]}{slot >> 3:02x}.{slot & 7}" if gpu.vfs_total else f"{gpu.address} {number}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, place))


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


def make_vgpus(root: Path, wanted: Sequence[Mapping[str, int] | None]) -> bool:
    """Make vGPUs on each GPU, by plain type, in place of those that are there (None: leave them); False if they do not fit."""
    spec = _recall(root)
    whole = True
    for gpu, types in zip(spec.gpus, wanted, strict=True):
        if types is None:
            continue
        gpu.active = {}
        kinds = {full.split()[-1]: (number, most) for number, (full, most) in types_of(gpu).items()}
        for name, count in types.items():
            number, most = kinds.get(name, (0, 0))
            free = min(most, gpu.vfs if gpu.vfs_total else most) if not gpu.active else 0  # one size at a time
            gpu.active.update(dict.fromkeys(range(min(count, free)), number))
            whole = whole and count <= free
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))
    return whole


def drop_vgpus(root: Path, devices: Collection[str]) -> None:
    """Take mediated devices away, by their UUIDs."""
    spec = _recall(root)
    for gpu in spec.gpus:
        for number in list(gpu.active):
            if _identity(gpu, number) in devices:
                del gpu.active[number]
    _remember(root, spec)
    _sysfs(root, spec, iommu_is_on(spec, (root / "proc/cmdline").read_text()))


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
