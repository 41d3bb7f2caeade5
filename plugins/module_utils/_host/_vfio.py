# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to bind: the wish, the functions that it concerns, and everything about them that a decision needs."""

from __future__ import annotations

import dataclasses
import typing as t

from .._device_names import NVIDIA
from . import (
    _boot_binding,
    _displaced,
    _groups,
    _holders,
    _modalias,
    _pci,
    _usage,
)
from ._pci import Function
from ._sysfs import Host

DRIVERS = "/sys/bus/pci/drivers"


@dataclasses.dataclass(frozen=True)
class Selector:
    """Which functions are meant: one by its address, or all physical ones with these ids and this class."""

    address: t.Optional[str] = None
    vendor_device: t.Optional[str] = None
    subsystem: t.Optional[str] = None
    kind: t.Optional[str] = None

    def meets(self, function: Function, subsystem: str) -> bool:
        if self.address is not None:
            return function.address == self.address.lower()
        if function.parent is not None or (self.vendor_device is None and function.vendor != NVIDIA):
            return False  # virtual functions carry the ids of their physical one
        wanted = ((self.vendor_device, f"{function.vendor}:{function.device}"), (self.subsystem, subsystem), (self.kind, function.kind))
        return all(value is None or value.lower() == real.lower() for value, real in wanted)

    def __str__(self) -> str:
        words = (("address", self.address), ("vendor_device", self.vendor_device), ("subsystem", self.subsystem), ("class", self.kind))
        return ", ".join(f"{name} {value}" for name, value in words if value is not None)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user wants: the module's options."""

    devices: t.Tuple[Selector, ...]
    state: str = "bound"
    scope: str = "group"
    driver: str = "auto"
    persist: str = "none"
    release_to: str = "host"
    boot_vga: bool = False
    foreign: t.FrozenSet[str] = frozenset()
    wait: bool = False
    owner: str = "host"


@dataclasses.dataclass(frozen=True)
class Member:
    """One function, with all that a decision about it needs."""

    function: Function
    subsystem: str = ""
    module: str = _modalias.DEFAULT  #: whose VFIO driver fits best
    override: t.Optional[str] = None
    boot_vga: bool = False
    virtual: int = 0  #: virtual functions on it
    vgpus: int = 0  #: vGPUs on it
    holders: t.Optional[t.Tuple[_holders.Holder, ...]] = ()  #: None: unknown
    uses: t.Tuple[str, ...] = ()
    elsewhere: t.Tuple[str, ...] = ()  #: where somebody else has it bound at boot
    displaced: t.Optional[_displaced.Displaced] = None
    silent: bool = False  #: the kernel does not answer about it

    @property
    def address(self) -> str:
        return self.function.address

    @property
    def foreign(self) -> bool:
        return self.function.vendor != NVIDIA


@dataclasses.dataclass(frozen=True)
class Unit:
    """What goes together: the members of one IOMMU group, or one function that is in none. ``chosen``: those that the user named."""

    group: t.Optional[str]
    members: t.Tuple[Member, ...]
    chosen: t.FrozenSet[str]


@dataclasses.dataclass(frozen=True)
class Seen:
    """One look at the host."""

    units: t.Tuple[Unit, ...]
    unmatched: t.Tuple[Selector, ...] = ()
    drivers: t.FrozenSet[str] = frozenset()
    #: drivers that this kernel does not come with: (problem, remedy)
    absent: t.Mapping[str, t.Tuple[str, str]] = dataclasses.field(default_factory=dict)
    by_hand: t.FrozenSet[str] = frozenset()  #: drivers that are not loaded and that we cannot load, as we run no program on this host
    rules: t.Optional[str] = None  #: the text of our udev rules
    unseen: str = ""  #: why it is unknown who holds what, if it is


def observe(host: Host, wish: Wish) -> Seen:
    """Look at everything that this wish concerns."""
    functions = _pci.functions(host)
    subsystems = {function.address: _subsystem(host, function) for function in functions}
    chosen: t.Set[str] = set()
    unmatched = []
    for selector in wish.devices:
        found = {function.address for function in functions if selector.meets(function, subsystems[function.address])}
        chosen |= found
        if not found:
            unmatched.append(selector)
    by_group = _groups.members(functions)
    together = {number: group for number, group in by_group.items() if any(member.address in chosen for member in group)}
    alone = [[function] for function in functions if function.group is None and function.address in chosen]
    look = _Look(host, functions, subsystems)
    units = [
        Unit(number, tuple(map(look.member, group)), frozenset(chosen & {member.address for member in group}))
        for number, group in together.items()
    ]
    units += [Unit(None, tuple(map(look.member, group)), frozenset({group[0].address})) for group in alone]
    units.sort(key=lambda unit: min(unit.chosen))
    drivers = frozenset(host.names(DRIVERS))
    unloaded = {
        driver_of(wish, member, drivers)
        for unit in units
        for member in unit.members
        if wish.state == "bound" and not member.function.is_bridge
    } - drivers
    absent = {driver: reason for driver in sorted(unloaded) for reason in [_absent(host, driver)] if reason is not None}
    return Seen(
        units=tuple(units),
        unmatched=tuple(unmatched),
        drivers=drivers,
        absent=absent,
        by_hand=frozenset() if host.is_real else frozenset(unloaded) - absent.keys(),
        rules=host.read_text(_boot_binding.RULES),
        unseen=look.holding.unknown,
    )


def driver_of(wish: Wish, member: Member, drivers: t.Collection[str]) -> str:
    """The driver that a function is to have."""
    return _modalias.driver_name(member.module if wish.driver == "auto" else wish.driver, drivers)


class Holding:
    """Who holds what, read once. ``unknown`` says why that cannot be known, else it is empty."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._opened = _holders.Opened(host)
        self._nodes = _usage.Nodes(host)
        self.unknown = self._opened.unknown or ""

    def of(self, function: Function) -> t.Optional[t.List[_holders.Holder]]:
        """Who holds a function, through any device node below it; None if that is unknown."""
        found = _holders.holders_of(self._host, function, self._opened)
        more = self._opened.of(self._nodes.below(function.path))
        if found is None or more is None:
            return None
        return sorted({holder.pid: holder for holder in [*more, *found]}.values())


def _subsystem(host: Host, function: Function) -> str:
    return ":".join(_pci.hexadecimal(host, f"{function.path}/subsystem_{part}") for part in ("vendor", "device"))


class _Look:
    """Reads members; what they have in common is read once."""

    def __init__(self, host: Host, functions: t.Sequence[Function], subsystems: t.Mapping[str, str]) -> None:
        self._host = host
        self._subsystems = subsystems
        release = host.quiet("/proc/sys/kernel/osrelease") or ""
        self._aliases = _modalias.parse(host.read_text(f"/lib/modules/{release}/modules.alias") or "")
        self._virtual = [function.parent for function in functions if function.parent is not None]
        self._usage = _usage.Usage(host)
        self._others = _boot_binding.others(host)
        self._displaced = _displaced.read(host)
        self.holding = Holding(host)

    def member(self, function: Function) -> Member:
        host, path, subsystem = self._host, function.path, self._subsystems[function.address]
        override = host.quiet(f"{path}/driver_override")
        full_class = _pci.hexadecimal(host, f"{path}/class")
        held = self.holding.of(function)
        displaced = self._displaced.get(function.address)
        numvfs = host.quiet(f"{path}/sriov_numvfs") or "0"
        return Member(
            function=function,
            subsystem=subsystem,
            module=_modalias.best(self._aliases, function.vendor, function.device, subsystem, full_class),
            override=None if override in (None, "", "(null)") else override,
            boot_vga=host.quiet(f"{path}/boot_vga") == "1",
            virtual=max(self._virtual.count(function.address), int(numvfs) if numvfs.isdigit() else 0),
            vgpus=_pci.vgpus_on(host, function),
            holders=None if held is None else tuple(held),
            uses=() if function.is_bridge else tuple(self._usage.of(function)),
            elsewhere=tuple(self._others.of(function, subsystem)),
            displaced=displaced if displaced is not None and displaced.fits(function) else None,
            silent=host.is_silent(path),
        )


def _absent(host: Host, driver: str) -> t.Optional[t.Tuple[str, str]]:
    """Problem and remedy if the running kernel does not come with this driver's module; None if it does, or if that cannot be told."""
    release = host.quiet("/proc/sys/kernel/osrelease") or "of this host"
    known = host.quiet(f"/lib/modules/{release}/modules.dep")
    module = driver.replace("-", "_")
    names = {line.partition(":")[0].rpartition("/")[2].partition(".ko")[0].replace("-", "_") for line in (known or "").splitlines()}
    if known is None or module in names:
        return None
    return f"the kernel {release} has no module {module}", f"Install {_package(host, release)}, then run this again"


def _package(host: Host, release: str) -> str:
    ident = host.os_release().get("ID", "")
    if ident == "ubuntu":
        return f"linux-modules-extra-{release}"
    return "kernel-modules" if ident in ("rhel", "rocky", "almalinux", "centos", "fedora", "ol") else "a kernel with VFIO"
