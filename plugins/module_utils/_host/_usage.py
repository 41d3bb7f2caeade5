# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host itself uses a PCI function for: a disk that is mounted, a network that carries it, its console.

Whoever takes such a function away takes the host down, so what cannot be told counts as used. Everything is read from sysfs and procfs.
Sources: proc(5), proc_pid_mountinfo(5), the kernel's Documentation/ABI/stable/sysfs-block and testing/sysfs-class-net.
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from ._pci import Function
from ._sysfs import Host, HostError

_UP = 0x1  # IFF_UP, include/uapi/linux/if.h


class Usage:
    """What the host's devices are used for, read once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._blocks = {name: host.resolve(f"/sys/class/block/{name}") for name in host.names("/sys/class/block")}
        self._interfaces = {name: host.resolve(f"/sys/class/net/{name}") for name in host.names("/sys/class/net")}
        self._mounted: t.Dict[str, str] = {}  #: device number, or name of a block device -> where it is mounted
        self._mounts_known = host.exists("/proc/1/mountinfo")
        for text in self._mount_tables():
            self._read_mounts(text)
        swaps = host.quiet("/proc/swaps")
        self._swaps_known = swaps is not None
        self._swaps = {self._block_name(line.split()[0]) for line in (swaps or "").splitlines()[1:] if line.split()}
        self._raid = host.quiet("/proc/mdstat") or ""
        self._btrfs = {name for uuid in host.names("/sys/fs/btrfs") for name in host.names(f"/sys/fs/btrfs/{uuid}/devices")}
        self._pools = [name for name in host.names("/proc/spl/kstat/zfs") if host.exists(f"/proc/spl/kstat/zfs/{name}/state")]

    def of(self, function: Function) -> t.List[str]:
        """What the host uses this function for, each as the end of a sentence that begins with its address; nothing if it is free."""
        path = self._host.resolve(function.path)
        return [*self._disks(path), *self._networks(path, function), *self._consoles(path, function)]

    def _mount_tables(self) -> t.Iterator[str]:
        """The mounts of each mount namespace once: a pod can have mounted what the host has not."""
        seen: t.Set[t.Optional[str]] = set()
        for pid in self._host.processes():
            try:
                space = self._host.link(f"/proc/{pid}/ns/mnt")
            except HostError:
                # A process that has just ended has no mounts; of one that is there, we do not know them.
                self._mounts_known = self._mounts_known and not self._host.exists(f"/proc/{pid}/comm")
                continue
            if space in seen or (space is None and pid != 1):
                continue
            if space is not None:
                seen.add(space)
            text = self._host.quiet(f"/proc/{pid}/mountinfo")
            if text:
                yield text

    def _read_mounts(self, text: str) -> None:
        for line in text.splitlines():
            mount, dash, source = line.partition(" - ")
            words, origin = mount.split(), source.split()
            if not dash or len(words) < 5:
                continue
            self._mounted.setdefault(words[2], words[4])
            # btrfs and others have a number of their own, and name their device.
            if len(origin) > 1 and origin[1].startswith("/dev/"):
                self._mounted.setdefault(self._block_name(origin[1]), words[4])

    def _block_name(self, path: str) -> str:
        """The name of a block device, from a path that may be a link (``/dev/mapper/…``, ``/dev/disk/by-uuid/…``)."""
        return posixpath.basename(self._host.resolve(path))

    def _disks(self, path: str) -> t.List[str]:
        own = [name for name, place in self._blocks.items() if self._is_below(place, path)]
        found = []
        todo, seen = list(own), set()
        while todo:
            name = todo.pop(0)
            if name in seen:
                continue
            seen.add(name)
            number = self._host.quiet(f"/sys/class/block/{name}/dev")
            where = self._mounted.get(number or "") or self._mounted.get(name)
            if where:
                found.append(f"has {name}, which is mounted on {where}")
            if name in self._swaps:
                found.append(f"has {name}, which is swap")
            if name in self._btrfs:
                found.append(f"has {name}, which is part of a btrfs that is mounted")
            if re.search(rf"\b{re.escape(name)}\[\d+\]", self._raid):
                found.append(f"has {name}, which is part of an md array")
            for holder in self._host.names(f"/sys/class/block/{name}/holders"):
                found.append(f"has {name}, which is part of {self._label(holder)}")
                todo.append(holder)
        if own and self._pools:
            found.append(f"has {own[0]}, and it cannot be told whether that belongs to a ZFS pool ({', '.join(self._pools)})")
        if own and not (self._mounts_known and self._swaps_known):
            found.append(f"has {own[0]}, and what is mounted or swap on this host cannot be read")
        return found

    def _is_below(self, place: str, path: str) -> bool:
        if place.startswith(f"{path}/"):
            return True
        # With several paths to it, an NVMe disk hangs below its subsystem, which links its controllers.
        head, found, rest = place.partition("/nvme-subsystem/")
        if not found:
            return False
        subsystem = f"{head}{found}{rest.partition('/')[0]}"
        links = [name for name in self._host.names(subsystem) if self._host.link(f"{subsystem}/{name}") is not None]
        return any(self._host.resolve(f"{subsystem}/{name}").startswith(f"{path}/") for name in links)

    def _label(self, name: str) -> str:
        said = self._host.quiet(f"/sys/class/block/{name}/dm/name")
        return f"{name} ({said})" if said else name

    def _networks(self, path: str, function: Function) -> t.List[str]:
        own = [name for name, place in self._interfaces.items() if place.startswith(f"{path}/")]
        if not own and function.kind.startswith("02") and function.driver is not None and not function.on_vfio:
            return ["is a network card of which no interface can be seen: a container may have it"]
        found = []
        for name in own:
            above = [upper[len("upper_") :] for upper in self._host.names(f"/sys/class/net/{name}") if upper.startswith("upper_")]
            reasons = [f"is part of {', '.join(above)}"] if above else []
            if int(self._host.quiet(f"/sys/class/net/{name}/flags") or "0x1", 16) & _UP:
                reasons.append("is up, and may carry this very connection")
            reasons += [f"has {what}" for what, names in self._addressed().items() if name in names]
            if reasons:
                found.append(f"has the interface {name}, which {' and '.join(reasons)}")
        return found

    def _addressed(self) -> t.Dict[str, t.Set[str]]:
        """The interfaces with an IPv6 address, and with a route. (An IPv4 address on an interface that is up comes with a route.)"""

        def column(path: str, number: int) -> t.Set[str]:
            return {line.split()[number] for line in (self._host.quiet(path) or "").splitlines() if line.split()}

        return {
            "an address": column("/proc/net/if_inet6", -1),
            "a route": column("/proc/net/route", 0) | column("/proc/net/ipv6_route", -1),
        }

    def _consoles(self, path: str, function: Function) -> t.List[str]:
        active = (self._host.quiet("/sys/class/tty/console/active") or "").split()
        found = [f"has the console {name}" for name in active if self._host.resolve(f"/sys/class/tty/{name}").startswith(f"{path}/")]
        if function.kind.startswith("03") and not function.is_gpu:
            frames = [
                name
                for name in self._host.names("/sys/class/graphics")
                if self._host.resolve(f"/sys/class/graphics/{name}").startswith(f"{path}/")
            ]
            if frames or self._host.quiet(f"{function.path}/boot_vga") == "1":
                found.append("is the display that shows the host's console")
        return found


class Nodes:
    """The block and character devices of the host, whatever they are, by the device that they belong to."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._places: t.List[t.Tuple[str, str]] = []  #: (place in sysfs, major:minor)
        for kind in ("block", "char"):
            for number in host.names(f"/sys/dev/{kind}"):
                link = host.link(f"/sys/dev/{kind}/{number}") or ""
                self._places.append((posixpath.normpath(posixpath.join(f"/sys/dev/{kind}", link)), number))

    def below(self, path: str) -> t.Dict[str, t.Optional[str]]:
        """Those below a device of sysfs: name to ``major:minor``."""
        real = self._host.resolve(path)
        return {f"/dev/{posixpath.basename(place)}": number for place, number in self._places if place.startswith(f"{real}/")}
