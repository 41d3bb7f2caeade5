# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes hold a device, found by device number over ``/proc/*/fd``.

A number is the same in every mount namespace, a path is not: a VM's QEMU in a container has its own ``/dev``. A device is held through
its IOMMU group (``/dev/vfio/28``), its own VFIO node (``/dev/vfio/devices/vfio0``, iommufd), a DRM or sound node, or NVIDIA's
(``/dev/nvidia0``). Where the host's processes cannot be seen, who holds a device is unknown, which callers must treat as held.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from . import _pci
from ._sysfs import Host, HostError

#: Directories of a device in which its nodes have a ``dev`` file, and how deep below.
_NODE_CLASSES = (("drm", 1), ("vfio-dev", 1), ("sound", 2))
_VFIO_DEVICE = "anon_inode:[vfio-device]"


@dataclasses.dataclass(frozen=True, order=True)
class Holder:
    """A process that has a device open; ``vm`` is the name of the guest if it is a QEMU that says one."""

    pid: int
    comm: str
    device: str
    vm: t.Optional[str] = None

    def __str__(self) -> str:
        return f"process {self.pid} ({self.comm}{', VM ' + self.vm if self.vm else ''})"


class Opened:
    """Everything that the host's processes have open, read once. ``unknown`` says why it cannot be known, else is None."""

    def __init__(self, host: Host) -> None:
        self.unknown: t.Optional[str] = None
        #: (name in the process's view, major:minor or None, holder)
        self._open: t.List[t.Tuple[str, t.Optional[str], Holder]] = []
        self.unknown = unseen(host)
        if self.unknown is None:
            self._read(host)

    def _read(self, host: Host) -> None:
        for pid in host.processes():
            try:
                devices = host.open_devices(pid)
            except HostError as error:
                if not host.exists(f"/proc/{pid}/comm"):
                    continue  # ended while we looked
                self.unknown = f"{error}; read as root"
                return
            if not devices:
                continue
            comm = host.quiet(f"/proc/{pid}/comm") or ""
            guest = guest_name(host.read_bytes(f"/proc/{pid}/cmdline") or b"") if is_qemu(comm) else None
            self._open += [(name, number, Holder(pid, comm, name, guest)) for name, number in devices]

    def of(self, nodes: t.Mapping[str, t.Optional[str]], vfio: bool = False) -> t.Optional[t.List[Holder]]:
        """Who holds one of these nodes (name to ``major:minor``, as :func:`nodes` gives them); None if that is unknown.

        ``vfio``: the nodes are those of a device on a VFIO driver. A process that has some VFIO device open, but no VFIO node that
        would say which, then counts as a holder.
        """
        if self.unknown is not None:
            return None
        numbers = {number for number in nodes.values() if number}
        found = {holder for name, number, holder in self._open if (number in numbers if number else name in nodes)}
        if vfio:
            named = {holder.pid for name, _number, holder in self._open if "/vfio/" in name and not name.endswith("/vfio/vfio")}
            found |= {holder for name, _number, holder in self._open if name == _VFIO_DEVICE and holder.pid not in named}
        first = {holder.pid: holder for holder in sorted(found, reverse=True)}
        return sorted(first.values())


def nodes(host: Host, path: str, group: t.Optional[str], address: t.Optional[str] = None) -> t.Dict[str, t.Optional[str]]:
    """The device nodes through which a device can be held: name to ``major:minor`` (None where there is no node).

    ``path`` is its directory in sysfs, ``group`` the number of its IOMMU group, ``address`` its PCI address if it is a physical GPU.
    """
    found: t.Dict[str, t.Optional[str]] = {}
    if group is not None:
        found[f"/dev/vfio/{group}"] = _number(host, f"/sys/class/vfio/{group}/dev") or host.device_number(f"/dev/vfio/{group}")
    for name, depth in _NODE_CLASSES:
        for directory in _below(host, f"{path}/{name}", depth):
            number = _number(host, f"{directory}/dev")
            if number:
                found[_node_name(host, directory)] = number
    minor = nvidia_minor(host, address) if address else None
    if minor is not None:
        found[f"/dev/nvidia{minor}"] = host.device_number(f"/dev/nvidia{minor}")
    return found


def _below(host: Host, directory: str, depth: int) -> t.List[str]:
    found = []
    for name in host.names(directory):
        if host.link(f"{directory}/{name}") is None:
            found.append(f"{directory}/{name}")
            if depth > 1:
                found += _below(host, f"{directory}/{name}", depth - 1)
    return found


def _number(host: Host, path: str) -> t.Optional[str]:
    text = host.quiet(path) or ""
    return text if re.fullmatch(r"\d+:\d+", text) else None


def _node_name(host: Host, directory: str) -> str:
    said = re.search(r"^DEVNAME=(\S+)$", host.quiet(f"{directory}/uevent") or "", re.MULTILINE)
    if said:
        return f"/dev/{said.group(1)}"
    kind, name = directory.split("/")[-2:]
    return f"/dev/vfio/devices/{name}" if kind == "vfio-dev" else f"/dev/dri/{name}" if kind == "drm" else f"/dev/{name}"


def nvidia_minor(host: Host, address: str) -> t.Optional[int]:
    """N of ``/dev/nvidiaN`` for a GPU that NVIDIA's driver runs."""
    text = host.quiet(f"/proc/driver/nvidia/gpus/{address}/information") or ""
    match = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def holders_of(host: Host, function: _pci.Function, opened: Opened) -> t.Optional[t.List[Holder]]:
    """Who holds one function, or a mediated device on it; None if that is unknown."""
    found = nodes(host, function.path, function.group, function.address if function.parent is None else None)
    for uuid in _pci.mdevs_on(host, function):
        found.update(nodes(host, f"{function.path}/{uuid}", _pci.link_name(host, f"{function.path}/{uuid}/iommu_group")))
    return opened.of(found, vfio=function.on_vfio)


def is_qemu(comm: str) -> bool:
    """Is this the name of a process that runs a VM? (Names are cut at 15 characters; the guest agent is none.)"""
    return comm.startswith("qemu-system-") or comm in ("qemu-kvm", "qemu")


def unseen(host: Host) -> str | None:
    """Why the processes of the host itself cannot be seen, or None if they can. In its first PID namespace, process 2 is kthreadd."""
    if not host.exists("/proc/1"):
        return "/proc shows no process"
    if host.quiet("/proc/2/comm") != "kthreadd":
        return "/proc shows the processes of a container, not those of the host"
    return None


def guest_name(cmdline: bytes) -> t.Optional[str]:
    """The guest's name from QEMU's arguments (``-name guest=NAME,…`` or ``-name NAME``), which is all that is taken from them."""
    words = cmdline.decode("utf-8", "replace").split("\0")
    for word, following in zip(words, words[1:]):
        if word in ("-name", "--name"):
            first = following.partition(",")[0]
            return first[len("guest=") :] if first.startswith("guest=") else first
    return None
