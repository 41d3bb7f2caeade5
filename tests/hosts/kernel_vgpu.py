# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel and a vGPU manager answer to ``sriov_numvfs``, ``create``, ``remove``, ``current_vgpu_type`` and ``placement_id``.

Accounting as on a real board: one size at a time per GPU (unless its mixed-size mode is on), a limit of framebuffer, and one vGPU per
virtual function. After one is made, its own function offers nothing more, and its siblings no other size. The answers are those that were
measured with the kernel's mdev core: N to M is EBUSY, a UUID that exists EEXIST, one that is malformed EINVAL, no room ENOSPC.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import typing as t
import uuid as uuids
import weakref
from pathlib import Path

from tests.hosts import tree
from tests.hosts.kernel import ReactingHost, reaction

SIZES = {number: int(re.findall(r"-(\d+)[ABCQ]", name)[0]) for number, (name, _most) in tree.A10_TYPES.items()}
REGION = 24  # GB of an A10


def refuse(number: int) -> t.NoReturn:
    raise OSError(number, os.strerror(number))


@dataclasses.dataclass
class Board:
    """One GPU as its driver sees it: the vGPUs by device (UUID or virtual function), each with its parent and type."""

    path: str  #: of the GPU, below the root
    vgpus: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    mixed: bool = False
    shown: dict[str, str] = dataclasses.field(default_factory=dict)  #: what the driver's files say now

    def room(self, parent: str, kind: int, alone: bool) -> int:
        """How many more of a type this parent could take; ``alone``: a parent takes one."""
        if alone and any(where == parent for where, _kind in self.vgpus.values()):
            return 0
        sizes = {SIZES[number] for _parent, number in self.vgpus.values()}
        if sizes and not self.mixed and sizes != {SIZES[kind]}:
            return 0
        left = (REGION - sum(SIZES[number] for _parent, number in self.vgpus.values())) // SIZES[kind]
        return min(left, 1) if alone else left


_BOARDS: weakref.WeakKeyDictionary[ReactingHost, dict[str, Board]] = weakref.WeakKeyDictionary()


def board(host: ReactingHost, path: str) -> Board:
    """The board of a GPU or of one of its virtual functions, by the path below the root."""
    physical = host.resolve(f"{path}/physfn") if host.link(f"{path}/physfn") else path
    boards = _BOARDS.setdefault(host, {})
    if physical not in boards:
        boards[physical] = Board(physical, _existing(host, physical))
    return boards[physical]


def _existing(host: ReactingHost, physical: str) -> dict[str, tuple[str, int]]:
    found = {}
    for parent in [physical, *functions(host, physical)]:
        address = os.path.basename(parent)
        for name in host.names(parent):
            kind = host.link(f"{parent}/{name}/mdev_type")
            if kind:
                found[name] = (address, int(kind.rpartition("nvidia-")[2]))
        current = host.read_text(f"{parent}/nvidia/current_vgpu_type")
        if current and int(current):
            found[address] = (address, int(current))
    return found


def functions(host: ReactingHost, physical: str) -> list[str]:
    """The paths of the virtual functions, in order."""
    names = [name for name in host.names(physical) if re.fullmatch(r"virtfn\d+", name)]
    return [host.resolve(f"{physical}/{name}") for name in sorted(names, key=lambda name: int(name[6:]))]


def parents(host: ReactingHost, physical: str) -> list[tuple[str, bool]]:
    """What vGPUs are made on, and whether each takes only one."""
    virtual = functions(host, physical)
    return [(path, True) for path in virtual] or [(physical, False)]


def tell(host: ReactingHost, seen: Board) -> None:
    """Bring what the driver's files say up to date; only what differs is written, as there are thousands of them."""
    for path, alone in parents(host, seen.path):
        address = os.path.basename(path)
        room = {kind: seen.room(address, kind, alone) for kind in tree.A10_TYPES}
        if host.exists(f"{path}/nvidia/creatable_vgpu_types"):
            lines = [f"{kind:<6}: {name}" for kind, (name, _most) in tree.A10_TYPES.items() if room[kind]]
            _say(host, seen, f"{path}/nvidia/creatable_vgpu_types", "\n".join(["ID    : vGPU Name", *lines]) + "\n")
            _say(host, seen, f"{path}/nvidia/current_vgpu_type", f"{seen.vgpus.get(address, ('', 0))[1]}\n")
        else:
            for kind, number in room.items():
                _say(host, seen, f"{path}/mdev_supported_types/nvidia-{kind}/available_instances", f"{number}\n")


def _say(host: ReactingHost, seen: Board, path: str, text: str) -> None:
    if seen.shown.get(path) != text:
        host.put(path, text)
        seen.shown[path] = text


@reaction(r"(?P<parent>/sys/devices/.*)/mdev_supported_types/nvidia-(?P<kind>\d+)/create")
def _create(host: ReactingHost, match: re.Match[str], text: str) -> None:
    parent, kind = match["parent"], int(match["kind"])
    seen = board(host, parent)
    try:
        device = str(uuids.UUID(text.strip()))
    except ValueError:
        refuse(errno.EINVAL)
    if host.link(f"/sys/bus/mdev/devices/{device}") is not None:
        refuse(errno.EEXIST)
    alone = host.link(f"{parent}/physfn") is not None
    if kind not in tree.A10_TYPES or seen.room(os.path.basename(parent), kind, alone) < 1:
        refuse(errno.ENOSPC)
    root = Path(host.root)
    (root / f"{parent[1:]}/{device}").mkdir()
    tree._link(root, f"{parent[1:]}/{device}/mdev_type", f"{parent[1:]}/mdev_supported_types/nvidia-{kind}")
    group = _next_group(root)
    # No IOMMU translates for it.
    tree._write(root, f"sys/kernel/iommu_groups/{group}/type", "unknown\n")
    tree._link(root, f"sys/kernel/iommu_groups/{group}/devices/{device}", f"{parent[1:]}/{device}")
    tree._link(root, f"{parent[1:]}/{device}/iommu_group", f"sys/kernel/iommu_groups/{group}")
    tree._link(root, f"sys/bus/mdev/devices/{device}", f"{parent[1:]}/{device}")
    seen.vgpus[device] = (os.path.basename(parent), kind)
    tell(host, seen)


def _next_group(root: Path) -> int:
    return max((int(path.name) for path in (root / "sys/kernel/iommu_groups").iterdir()), default=0) + 1


@reaction(r"(?P<parent>/sys/devices/.*)/(?P<device>[0-9a-f-]{36})/remove")
def _remove(host: ReactingHost, match: re.Match[str], text: str) -> None:
    if text.strip() != "1":
        refuse(errno.EINVAL)
    seen = board(host, match["parent"])
    path = Path(host.root + match["parent"]) / match["device"]
    if match["device"] not in seen.vgpus:
        refuse(errno.ENODEV)
    group = os.path.basename(os.readlink(path / "iommu_group")) if (path / "iommu_group").is_symlink() else None
    if group:
        shutil.rmtree(Path(host.root) / "sys/kernel/iommu_groups" / group)
    (Path(host.root) / "sys/bus/mdev/devices" / match["device"]).unlink()
    shutil.rmtree(path)
    del seen.vgpus[match["device"]]
    tell(host, seen)


@reaction(r"(?P<function>/sys/devices/.*)/nvidia/current_vgpu_type")
def _current_type(host: ReactingHost, match: re.Match[str], text: str) -> None:
    seen, address = board(host, match["function"]), os.path.basename(match["function"])
    if not text.strip().isdigit():
        refuse(errno.EINVAL)
    kind = int(text)
    if kind == 0:
        seen.vgpus.pop(address, None)
        tell(host, seen)
        return
    if address in seen.vgpus:
        refuse(errno.EBUSY)
    if kind not in tree.A10_TYPES:
        refuse(errno.EINVAL)
    if seen.room(address, kind, alone=True) < 1:
        refuse(errno.ENOSPC)
    seen.vgpus[address] = (address, kind)
    tell(host, seen)


@reaction(r"(?P<function>/sys/devices/.*)/nvidia/placement_id")
def _placement(host: ReactingHost, match: re.Match[str], text: str) -> None:
    if os.path.basename(match["function"]) in board(host, match["function"]).vgpus:
        refuse(errno.EBUSY)
    host.put(match[0], f"{int(text)}\n")


@reaction(r"(?P<physical>/sys/devices/.*)/sriov_numvfs")
def _numvfs(host: ReactingHost, match: re.Match[str], text: str) -> None:
    physical, count = match["physical"], int(text)
    seen = board(host, physical)
    now = len(functions(host, physical))
    if host.link(f"{physical}/driver") is None:
        refuse(errno.ENOENT)
    if count == now:
        return
    if count > int(host.read_text(f"{physical}/sriov_totalvfs") or 0):
        refuse(errno.ERANGE)
    if now and count:
        log(host, f"pci {os.path.basename(physical)}: {now} VFs already enabled. Disable before enabling {count} VFs")
        refuse(errno.EBUSY)
    if seen.vgpus:
        refuse(errno.EBUSY)
    set_functions(host, physical, count)


def set_functions(host: ReactingHost, physical: str, count: int) -> None:
    """Make so many virtual functions where there are none, or take all away."""
    root, address = Path(host.root), os.path.basename(physical)
    for number, path in enumerate(functions(host, physical)):
        _forget(host, os.path.basename(path))
        (root / f"{physical[1:]}/virtfn{number}").unlink()
        shutil.rmtree(root / path[1:])
    host.put(f"{physical}/sriov_numvfs", f"{count}\n")
    if count:
        gpu = next(gpu for gpu in tree._recall(root).gpus if gpu.address == address)
        groups = tree._Groups(root, on=True)
        groups.next = _next_group(root)
        place = os.path.dirname(physical).removeprefix("/sys/devices/")
        for number in range(count):
            new = dataclasses.replace(gpu, active={})
            tree._virtual_function(root, new, number, f"{place}/{address[:7]}:{number >> 3:02x}.{number & 7}", physical[1:], groups)
    _BOARDS.get(host, {}).pop(physical, None)


def _forget(host: ReactingHost, address: str) -> None:
    root = Path(host.root)
    group = host.link(f"/sys/bus/pci/devices/{address}/iommu_group")
    driver = host.link(f"/sys/bus/pci/devices/{address}/driver")
    if group:
        shutil.rmtree(root / "sys/kernel/iommu_groups" / os.path.basename(group))
    if driver:
        (root / "sys/bus/pci/drivers" / os.path.basename(driver) / address).unlink()
    for path in (f"sys/bus/pci/devices/{address}", f"sys/class/mdev_bus/{address}"):
        if (root / path).is_symlink():
            (root / path).unlink()


def log(host: ReactingHost, line: str) -> None:
    """The kernel says something."""
    with open(Path(host.root) / "dev/kmsg", "a", encoding="utf-8") as messages:
        messages.write(f"4,9,9,-;{line}\n")


def hold(host: ReactingHost, address: str, pid: int = 4711, vm: str = "build-7", device: str | None = None) -> None:
    """A VM takes a function, or the mediated ``device`` on it."""
    path = f"/sys/bus/pci/devices/{address}" + (f"/{device}" if device else "")
    group = os.path.basename(host.link(f"{path}/iommu_group") or "")
    root = Path(host.root)
    tree._write(root, f"proc/{pid}/comm", "qemu-kvm\n")
    tree._write(root, f"proc/{pid}/cmdline", f"qemu-kvm\0-name\0guest={vm},debug-threads=on\0".encode())
    (root / f"proc/{pid}/fd").mkdir(exist_ok=True)
    (root / f"proc/{pid}/fd/{len(os.listdir(root / f'proc/{pid}/fd')) + 5}").symlink_to(f"/dev/vfio/{group}")


def let_go(host: ReactingHost, pid: int = 4711) -> None:
    shutil.rmtree(Path(host.root) / f"proc/{pid}")


def make_parent_of(root: Path, address: str) -> None:
    """A GPU before Ampere: the GPU itself takes several mediated devices."""
    path = (root / "sys/bus/pci/devices" / address).resolve().relative_to(root)
    tree._link(root, f"sys/class/mdev_bus/{address}", str(path))
    for kind, (name, most) in tree.A10_TYPES.items():
        base = f"{path}/mdev_supported_types/nvidia-{kind}"
        tree._write(root, f"{base}/name", f"{name}\n")
        tree._write(root, f"{base}/available_instances", f"{most}\n")
        tree._write(root, f"{base}/description", f"framebuffer={SIZES[kind] * 1024}M, max_instance={most}\n")
