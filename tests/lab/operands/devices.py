# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA devices of a host as its tree shows them, and what device plugins make of them.

Source: NVIDIA/kubevirt-gpu-device-plugin v1.6.0, pkg/device_plugin/device_plugin.go.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Names that the sandbox plugin makes of its own pci.ids, by device id. An id that is not there is advertised as it is.
PLUGIN_NAMES = {
    "1aef": "GA102_HIGH_DEFINITION_AUDIO_CONTROLLER",
    "1eb8": "TU104GL_TESLA_T4",
    "20f1": "GA100_A100_PCIE_40GB",
    "2230": "GA102GL_RTX_A6000",
    "2236": "GA102GL_A10",
    "25b6": "GA107GL_A2___A16",
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One physical GPU, or another physical function of NVIDIA's."""

    address: str
    device: str  #: PCI device id, four hexadecimal digits
    driver: str | None = None
    group: bool = True  #: is it in an IOMMU group?


@dataclasses.dataclass(frozen=True)
class Host:
    """What operands find on a host."""

    gpus: tuple[Gpu, ...] = ()
    parents: bool = False  #: are there mdev parents, as a running vGPU manager makes them?
    vgpus: tuple[str, ...] = ()  #: full type name of every vGPU
    others: tuple[Gpu, ...] = ()  #: NVIDIA's functions that are no GPUs: audio, USB


#: A GPU node that has no tree, to the container operands.
WITHOUT_TREE = Host(tuple(Gpu(address, "2236", "nvidia") for address in ("0000:41:00.0", "0000:a1:00.0")))


def read(root: Path) -> Host:
    """The devices below a host's root."""
    if not root.is_dir():
        return WITHOUT_TREE
    gpus, others = [], []
    for device in sorted((root / "sys/bus/pci/devices").iterdir()):
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        if vendor == "0x10de" and not (device / "physfn").exists():
            link = device / "driver"
            driver = link.readlink().name if link.is_symlink() else None
            identity = (device / "device").read_text().strip().removeprefix("0x")
            found = gpus if kind.startswith("0x03") else others
            found.append(Gpu(device.name, identity, driver, (device / "iommu_group").exists()))
    return Host(tuple(gpus), (root / "sys/class/mdev_bus").is_dir(), tuple(_vgpus(root / "sys/bus/mdev/devices")), tuple(others))


def companions(root: Path) -> list[str]:
    """The functions that vfio-manager takes with the GPUs: of each VGA device the first consumer, and of a 3D controller none.

    Source: NVIDIA/k8s-driver-manager v0.12.0, internal/nvpassthrough/nvpassthrough.go.
    """
    found = []
    for gpu in read(root).gpus:
        device = root / "sys/bus/pci/devices" / gpu.address
        consumers = sorted(device.glob("consumer:pci:*"))
        if (device / "class").read_text().strip() == "0x030000" and consumers:
            found.append(consumers[0].name.removeprefix("consumer:pci:"))
    return found


def _vgpus(directory: Path) -> Iterable[str]:
    for device in directory.iterdir() if directory.is_dir() else ():
        yield (device / "mdev_type/name").read_text().strip()


def container_resources(host: Host) -> dict[str, int]:
    """What the container device plugin finds at its start: GPUs on NVIDIA's driver."""
    return _counted("gpu" for gpu in host.gpus if gpu.driver == "nvidia")


def sandbox_resources(host: Host, names: Mapping[str, str] = PLUGIN_NAMES) -> dict[str, int]:
    """What the sandbox plugin finds at its start: NVIDIA's functions of any class on vfio-pci with an IOMMU group, by model; vGPUs, by type."""
    functions = (*host.gpus, *host.others)
    whole = (names.get(function.device, function.device) for function in functions if function.driver == "vfio-pci" and function.group)
    return _counted([*whole, *("_".join(kind.split()) for kind in host.vgpus)])


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(f"nvidia.com/{name}" for name in names))


def allocatable(now: dict[str, str], wanted: dict[str, int]) -> dict[str, str]:
    """Changes of a node's nvidia.com resources. A resource that goes stays behind with the value 0, as the kubelet leaves it."""
    own = {key: value for key, value in now.items() if key.startswith("nvidia.com/")}
    changes = {key: str(count) for key, count in wanted.items() if own.get(key) != str(count)}
    changes.update({key: "0" for key, value in own.items() if key not in wanted and value != "0"})
    return changes
