# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt's own device plugins, which virt-handler runs on every node: what they advertise of a host's tree, and when they look.

Source: kubevirt/kubevirt v1.9, pkg/virt-handler/device-manager (device_controller.go, pci_device.go, mediated_device.go, nvidia.go). Pure,
but for reading trees.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from tests.lab.operands.labels import Json

#: From this version on a virtual function of NVIDIA's that has a vGPU counts as a device (pull request 16890).
_WITH_FUNCTIONS = (1, 9)
#: With the gate, or (from 1.8 on) the field, KubeVirt leaves mediated devices alone; where the field stands, it wins (virt-config.go).
_GATE = "DisableMDEVConfiguration"


@dataclasses.dataclass(frozen=True)
class Permits:
    """What the KubeVirt object says about devices, as one virt-handler has understood it."""

    pci: tuple[tuple[str, str], ...] = ()  #: (vendor:device in lower case, resource) of those that no other plugin advertises
    mediated: tuple[tuple[str, str], ...] = ()  #: (type with underscores, resource), likewise
    kept: frozenset[str] = frozenset()  #: types that another plugin advertises, or that KubeVirt is told to make
    handling: bool = True  #: does KubeVirt make and delete mediated devices?
    functions: bool = False  #: is it of a version that knows virtual functions with vGPUs?


def permits(kubevirt: Json) -> Permits:
    """Read them."""
    configuration = (kubevirt.get("spec") or {}).get("configuration") or {}
    allowed = configuration.get("permittedHostDevices") or {}
    mediated = allowed.get("mediatedDevices") or []
    own = configuration.get("mediatedDevicesConfiguration") or {}
    gates = (configuration.get("developerConfiguration") or {}).get("featureGates") or []
    version = re.match(r"v?(\d+)\.(\d+)", str((kubevirt.get("status") or {}).get("observedKubeVirtVersion") or ""))
    wanted = [kind for entry in (own, *(own.get("nodeMediatedDeviceTypes") or [])) for kind in entry.get("mediatedDeviceTypes") or []]
    return Permits(
        tuple((e["pciVendorSelector"].lower(), e["resourceName"]) for e in allowed.get("pciHostDevices") or [] if not _external(e)),
        tuple((_underscored(e["mdevNameSelector"]), e["resourceName"]) for e in mediated if not _external(e)),
        frozenset([*wanted, *(_underscored(e["mdevNameSelector"]) for e in mediated if _external(e))]),
        own.get("enabled", _GATE not in gates),
        version is not None and tuple(map(int, version.groups())) >= _WITH_FUNCTIONS,
    )


def _external(entry: Json) -> bool:
    return bool(entry.get("externalResourceProvider"))


def _underscored(name: str) -> str:
    return name.replace(" ", "_").strip()


class Crash(Exception):
    """virt-handler panics."""


def discover(root: Path, allowed: Permits) -> dict[str, int]:
    """Resource -> number of devices of a host that are permitted and there. Raises Crash."""
    return {name: len(devices) for name, devices in {**_functions(root, dict(allowed.pci), allowed), **_mediated(root, allowed)}.items()}


def _functions(root: Path, resources: Mapping[str, str], allowed: Permits) -> dict[str, set[str]]:
    """Devices are keyed by their IOMMU group: of two in one group, one counts. Of two entries for one id, the later counts."""
    found: dict[str, set[str]] = {}
    bus = root / "sys/bus/pci/devices"
    for device in sorted(bus.iterdir()) if bus.is_dir() and resources else ():
        vendor, kind = ((device / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device"))
        resource = resources.get(f"{vendor}:{kind}")
        if resource and (device / "iommu_group").is_symlink() and _usable(device, allowed.functions):
            found.setdefault(resource, set()).add((device / "iommu_group").readlink().name)
    return found


def _usable(device: Path, functions: bool) -> bool:
    driver = (device / "driver").readlink().name if (device / "driver").is_symlink() else None
    current = device / "nvidia/current_vgpu_type"
    return driver == "vfio-pci" or (
        functions
        and driver == "nvidia"
        and (device / "physfn").is_symlink()
        and current.is_file()
        and current.read_text().strip() not in ("", "0")
    )


def _mediated(root: Path, allowed: Permits) -> dict[str, set[str]]:
    """A name without a slash ends virt-handler once a device of the type is there. Of two types of one name, the later counts."""
    found: dict[str, set[str]] = {}
    there = mediated_types(root)
    for kind, resource in allowed.mediated:
        devices = {device for device, name in there.items() if name == kind}
        if devices and "/" not in resource:
            raise Crash(f"index out of range: {resource!r} has no slash")
        if devices:
            found[resource] = devices
    return found


def mediated_types(root: Path) -> dict[str, str]:
    """The type of each mediated device, by its UUID; without a name, the type's id."""
    bus, found = root / "sys/bus/mdev/devices", {}
    for device in sorted(bus.iterdir()) if bus.is_dir() else ():
        name = device / "mdev_type/name"
        found[device.name] = _underscored(name.read_text().rstrip("\n")) if name.is_file() else (device / "mdev_type").readlink().name
    return found


@dataclasses.dataclass(frozen=True)
class Handler:
    """One virt-handler's pod: the plugins that it runs, each with the number of devices that it had at its start."""

    read: Permits
    plugins: Mapping[str, int]
    looked: float  #: when, in seconds
    crashed: str = ""


@dataclasses.dataclass(frozen=True)
class Around:
    """What a step goes by. ``deaf``: changes of the KubeVirt object do not reach it, only its start does."""

    permits: Permits
    now: float
    heartbeat: float  #: seconds
    deaf: bool = False


def step(handler: Handler | None, around: Around, found: Callable[[], dict[str, int]]) -> Handler:
    """The handler a moment later; None: its pod has just started. ``found`` looks at the host.

    It looks at its start, when the permits have changed, and, while it handles mediated devices, with each heartbeat. A plugin that runs is not
    touched by that: it keeps the devices of its start, whatever has come. One whose devices are all gone, or not permitted now, ends.
    """
    due = handler is None or (
        not around.deaf
        and (handler.read != around.permits or (around.permits.handling and around.now - handler.looked >= around.heartbeat))
    )
    if handler is not None and (handler.crashed or not due):
        return handler
    try:
        devices = found()
    except Crash as why:
        return Handler(around.permits, {}, around.now, str(why))
    running: Mapping[str, int] = handler.plugins if handler else {}
    return Handler(around.permits, {name: running.get(name, count) for name, count in devices.items()}, around.now)


def unwanted(root: Path, allowed: Permits) -> list[str]:
    """Mediated devices that a virt-handler that handles them deletes whenever it looks: of types that nobody has told it of."""
    return [device for device, kind in mediated_types(root).items() if allowed.handling and kind not in allowed.kept]


def changes(now: Mapping[str, str], plugins: Mapping[str, int], ended: Collection[str] = ()) -> dict[str, str]:
    """Changes of a node's allocatable: what runs, and 0 for what has ended."""
    wanted = {**dict.fromkeys(ended, 0), **plugins}
    return {name: str(count) for name, count in wanted.items() if now.get(name) != str(count)}


def running(pods: Iterable[Json]) -> dict[str, Json]:
    """The virt-handler of each node, by the node's name."""
    alive = [p for p in pods if p["status"].get("phase") == "Running" and not p["metadata"].get("deletionTimestamp")]
    return {str(pod["spec"].get("nodeName")): pod for pod in alive}
