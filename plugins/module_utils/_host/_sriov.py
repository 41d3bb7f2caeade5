# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions: how many a physical function should have, and what forbids it. Values and the pure plan.

Rules: the kernel's Documentation/PCI/pci-iov-howto.rst (``sriov_numvfs`` goes from one number to another only over 0), and NVIDIA's
vGPU user guide (``sriov-manage`` makes all virtual functions of a GPU, or none).
"""

from __future__ import annotations

import dataclasses
import typing as t

from .. import _device_names
from .._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from ._holders import Holder

SRIOV_MANAGE = "/usr/lib/nvidia/sriov-manage"
MAX = "max"
SET = "set"


@dataclasses.dataclass(frozen=True)
class Wish:
    """So many virtual functions (None: as many as there can be) on a physical function, made by ``method``."""

    address: str
    count: t.Optional[int]
    method: str


@dataclasses.dataclass(frozen=True)
class Virtual:
    """A virtual function; ``vgpu`` says which vGPU is on it."""

    address: str
    driver: t.Optional[str]
    vgpu: t.Optional[str]
    holders: t.Optional[t.Tuple[Holder, ...]]


@dataclasses.dataclass(frozen=True)
class Physical:
    """A function as it is. ``total`` None: no SR-IOV. ``first`` and ``stride``: where virtual functions will be, if the kernel says."""

    address: str
    vendor: str
    device: str
    is_gpu: bool
    driver: t.Optional[str]
    total: t.Optional[int]
    enabled: int
    virtual: t.Tuple[Virtual, ...]
    holders: t.Optional[t.Tuple[Holder, ...]]
    vgpu: t.Optional[str]
    parent: t.Optional[str]  #: it is a virtual function itself, of this one
    first: t.Optional[int]
    stride: t.Optional[int]

    @property
    def target(self) -> str:
        return f"function {self.address}"

    @property
    def vendor_device(self) -> str:
        return f"{self.vendor}:{self.device}".upper()


def wishes(devices: t.Sequence[t.Mapping[str, t.Any]], method: str) -> t.Tuple[t.List[Wish], t.List[Blocker]]:
    """The arguments as values, or what is wrong with them."""
    found: t.List[Wish] = []
    blockers = []
    for number, entry in enumerate(devices, 1):
        target, text = f"entry {number} of devices", str(entry["count"])
        try:
            address = _device_names.check_pci_address(entry["address"]).lower()
        except ValueError as error:
            blockers.append(Blocker(target, str(error), "Write it that way"))
            continue
        if text != MAX and not (text.isascii() and text.isdigit()):
            blockers.append(Blocker(target, f"the count {text!r} is no number", f"Write {MAX}, 0 or how many"))
        elif any(wish.address == address for wish in found):
            blockers.append(Blocker(target, f"{address} is listed more than once", "Keep one entry for it"))
        else:
            found.append(Wish(address, None if text == MAX else int(text), method))
    return found, blockers


def method_of(physical: Physical, wish: Wish) -> str:
    """``auto`` is NVIDIA's own program for its GPUs, and sysfs for everything else."""
    if wish.method != "auto":
        return wish.method
    return "sriov_manage" if physical.vendor == _device_names.NVIDIA and physical.is_gpu else "sysfs"


def wanted(physical: Physical, wish: Wish) -> int:
    return (physical.total or 0) if wish.count is None else wish.count


def plan(physical: t.Optional[Physical], wish: Wish, has_program: bool) -> Plan:
    """The change of one function; ``has_program``: NVIDIA's program is on the host."""
    if physical is None:
        problem = "the host has no PCI function at this address"
        return Plan(blockers=[Blocker(f"function {wish.address}", problem, "Compare with gpu_node_info or lspci -D", stops="target")])
    if wish.count == 0 and physical.total is None and physical.parent is None:
        return Plan()
    for problem, remedy in _unfit(physical, wish):
        return Plan(blockers=[_stop(physical, problem, remedy)])
    count = wanted(physical, wish)
    if physical.enabled == count:
        return Plan()
    for problem, remedy in _unable(physical, wish, count, has_program):
        return Plan(blockers=[_stop(physical, problem, remedy)])
    blockers = in_use(physical)
    if blockers:
        return Plan(blockers=blockers)
    method = method_of(physical, wish)
    reason = f"{'all' if wish.count is None else count} virtual functions are wanted, made by {method}"
    return Plan(changes=[Change(physical.target, SET, {"count": physical.enabled}, {"count": count, "method": method}, reason)])


def _stop(physical: Physical, problem: str, remedy: str) -> Blocker:
    return Blocker(physical.target, problem, remedy, stops="target")


def _unfit(physical: Physical, wish: Wish) -> t.Iterator[t.Tuple[str, str]]:
    if physical.parent is not None:
        yield f"it is a virtual function of {physical.parent} itself", f"Name {physical.parent}"
    elif physical.total is None:
        yield (
            "it has no SR-IOV: off in the firmware, or a function without it",
            "Turn SR-IOV on in the firmware, or leave it out (pre-Ampere GPUs)",
        )
    elif wanted(physical, wish) > physical.total:
        yield f"{wish.count} virtual functions are wanted, and it can have {physical.total}", f"Write at most {physical.total}, or {MAX}"


def _unable(physical: Physical, wish: Wish, count: int, has_program: bool) -> t.Iterator[t.Tuple[str, str]]:
    program = method_of(physical, wish) == "sriov_manage"
    if physical.driver is None:
        yield "it has no driver, and only a driver makes virtual functions", "Load its driver (for vGPU the vGPU manager) first"
    elif "vfio" in physical.driver:
        yield (
            f"it is on {physical.driver}, which hands it to a VM as a whole",
            "Give it back to its driver first (vfio_bind, state: released)",
        )
    elif program and physical.driver != "nvidia":
        yield f"its driver is {physical.driver}, and sriov-manage works with nvidia only", "Use method: sysfs, or load the vGPU manager"
    elif program and count not in (0, physical.total):
        yield f"{count} are wanted, and sriov-manage makes all {physical.total} or none", f"Write {MAX} or 0, or use method: sysfs"
    elif program and not has_program:
        yield f"the host has no {SRIOV_MANAGE}", "Install NVIDIA's vGPU manager on the host, or use method: sysfs"


def in_use(physical: Physical) -> t.List[Blocker]:
    """Changing the number takes every virtual function away first, so none may be in use, nor the physical one."""
    found = []
    for name, holders in [("it", physical.holders), *((f"its {v.address}", v.holders) for v in physical.virtual)]:
        if holders is None:
            found.append(_stop(physical, f"who holds {name} cannot be told", "Become root on the host itself"))
            break
        if holders:
            by = ", ".join(str(holder) for holder in holders)
            found.append(_stop(physical, f"{name} is in use by {by}", "Stop that first"))
    for name, vgpu in [("it", physical.vgpu), *((f"its {v.address}", v.vgpu) for v in physical.virtual)]:
        if vgpu:
            found.append(_stop(physical, f"{name} has the vGPU {vgpu}", "Remove it first (mdev_create, state: absent)"))
    return found


def unfinished(physical: t.Optional[Physical], before: Physical, count: int) -> t.List[str]:
    """What is not as it must be after the number was set: everything, read back. ``before`` has the driver that the function must still have."""
    if physical is None:
        return ["it is gone from the bus"]
    found = []
    if physical.driver != before.driver:
        found.append(f"its driver is {physical.driver or 'none'}, and was {before.driver}")
    if physical.enabled != count:
        found.append(f"it has {physical.enabled} virtual functions, not {count}")
    if len(physical.virtual) != physical.enabled:
        found.append(f"{len(physical.virtual)} of its {physical.enabled} virtual functions are on the bus")
    if before.driver == "nvidia":
        bare = [virtual.address for virtual in physical.virtual if virtual.driver is None]
        if bare:
            found.append(f"{len(bare)} virtual functions have no driver ({bare[0]} first)")
    return found


def after(physical: Physical, count: t.Optional[int]) -> t.Dict[str, t.Any]:
    """The virtual functions that a function has (``count`` None), or will have once so many are made."""
    if count is None or count == physical.enabled:
        return {"address": physical.address, "count": physical.enabled, "virtual_functions": [v.address for v in physical.virtual]}
    places = [place(physical, number) or KNOWN_AFTER_APPLY for number in range(count)]
    return {"address": physical.address, "count": count, "virtual_functions": places}


def place(physical: Physical, number: int) -> t.Optional[str]:
    """The address that the ``number``-th virtual function will have (SR-IOV specification 1.1, 2.1.2), or None if the kernel does not say."""
    if physical.first is None or physical.stride is None:
        return None
    domain, bus, rest = physical.address.split(":")
    device, function = rest.split(".")
    routing = (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function) + physical.first + physical.stride * number
    return f"{domain}:{routing >> 8 & 0xFF:02x}:{routing >> 3 & 0x1F:02x}.{routing & 7}"
