# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual functions of a host: read, made through NVIDIA's program or sysfs, and read back."""

from __future__ import annotations

import errno
import time
import typing as t

from .._change import Blocker, Change
from . import _holders, _kernel_log, _pci, _sriov
from ._commands import Commands
from ._sriov import Physical, Virtual
from ._sysfs import Host, HostError, KernelError, KernelTimeout

#: sriov-manage races with the driver's start and may end with 0 although it failed, so that sysfs decides, and it gets so many attempts.
_ATTEMPTS = 3
#: Seconds between two looks at what the kernel still does, and the longest such wait (drivers bind after the number is set).
_PAUSE, _SETTLE = 0.2, 10.0
_SHOWN = 400  # characters of what the program said


class SriovHost:
    """``failed`` are the functions on which something did not work."""

    def __init__(self, host: Host, commands: Commands, timeout: float) -> None:
        self._host = host
        self._commands = commands
        self._timeout = timeout
        self.failed: t.Set[str] = set()
        self.has_program = host.exists(_sriov.SRIOV_MANAGE)

    def observe(self, addresses: t.Collection[str]) -> t.Dict[str, Physical]:
        """These functions with their virtual functions, what is on them and who holds them; one that does not exist is missing."""
        functions = _pci.functions(self._host)
        opened = _holders.Opened(self._host)
        mdevs: t.Dict[str, str] = {}
        for uuid, parent, _kind in _pci.mdevs(self._host):
            mdevs.setdefault(parent, uuid)
        return {f.address: self._physical(f, functions, mdevs, opened) for f in functions if f.address in addresses}

    def _physical(
        self, function: _pci.Function, functions: t.Sequence[_pci.Function], mdevs: t.Mapping[str, str], opened: _holders.Opened
    ) -> Physical:
        virtual = {other.address: other for other in functions if other.parent == function.address}
        return Physical(
            address=function.address,
            vendor=function.vendor,
            device=function.device,
            is_gpu=function.is_gpu,
            driver=function.driver,
            total=self._number(f"{function.path}/sriov_totalvfs"),
            enabled=self._number(f"{function.path}/sriov_numvfs") or 0,
            virtual=tuple(
                Virtual(
                    address,
                    virtual[address].driver,
                    mdevs.get(address) or self._vendor_vgpu(virtual[address].path),
                    self._held(virtual[address], opened),
                )
                for address in _pci.in_order(self._host, function, list(virtual.values()))
            ),
            holders=self._held(function, opened),
            vgpu=mdevs.get(function.address),
            parent=function.parent,
            first=self._number(f"{function.path}/sriov_offset"),
            stride=self._number(f"{function.path}/sriov_stride"),
        )

    def _number(self, path: str) -> t.Optional[int]:
        text = self._host.quiet(path) or ""
        return int(text) if text.isdigit() else None

    def _vendor_vgpu(self, path: str) -> t.Optional[str]:
        number = self._host.quiet(f"{path}/nvidia/current_vgpu_type")
        return None if number in (None, "", "0") else f"of type {number}"

    def _held(self, function: _pci.Function, opened: _holders.Opened) -> t.Optional[t.Tuple[_holders.Holder, ...]]:
        held = _holders.holders_of(self._host, function, opened)
        return None if held is None else tuple(held)

    # Acting

    def apply(self, changes: t.Sequence[Change]) -> t.List[Blocker]:
        """Set the numbers, each function for itself."""
        blockers = []
        for change in changes:
            blocker = self._one(change, change.target[len("function ") :])
            if blocker:
                blockers.append(blocker)
                self.failed.add(change.target[len("function ") :])
        return blockers

    def _one(self, change: Change, address: str) -> t.Optional[Blocker]:
        before = self.observe([address]).get(address)
        if before is None:
            return Blocker(change.target, "it is gone from the bus", "See the kernel log")
        in_use = _sriov.in_use(before)  # looked for again, right before the write
        if in_use:
            return in_use[0]
        noted = self._exhausted()
        count = change.after["count"]
        try:
            said = (self._run_program if change.after["method"] == "sriov_manage" else self._write)(before, count)
        except KernelTimeout as error:
            return Blocker(change.target, str(error), "Wait until the kernel is done, or raise timeout, and run again")
        except HostError as error:
            number = error.errno if isinstance(error, KernelError) else None
            return Blocker(change.target, *self._refused(error, number, noted))
        missing = self._settled(before, count)
        if missing:
            problem = "; ".join(missing) + (f" ({said})" if said else "")
            exhausted = self._exhausted()
            if exhausted > noted:
                return Blocker(change.target, f"{problem}; the kernel log says that MMIO space is exhausted", _MORE_MMIO)
            return Blocker(change.target, problem, "See the kernel log and the driver's, and run again")
        return None

    def _refused(self, error: HostError, number: t.Optional[int], noted: int) -> t.Tuple[str, str]:
        if self._exhausted() > noted or number == errno.ENOMEM:
            return f"the kernel has no MMIO space for its virtual functions (mmio_exhausted): {error}", _MORE_MMIO
        known = {
            errno.EBUSY: "See what uses its virtual functions, or who else changed their number",
            errno.ENOENT: "Its driver makes no virtual functions (for vGPU it must be the vGPU manager's)",
        }
        return f"the kernel refused: {error}", known.get(number or 0, "See the kernel log, and run again")

    def _exhausted(self) -> int:
        """How often the kernel log says that there is no room for virtual functions."""
        try:
            records = _kernel_log.read(self._host) or ""
        except HostError:
            return 0
        return sum(entry["count"] for entry in _kernel_log.signatures(records) if entry["signature"] == "mmio_exhausted")

    def _write(self, before: Physical, count: int) -> str:
        path = f"/sys/bus/pci/devices/{before.address}/sriov_numvfs"
        for number in ([0] if before.enabled else []) + ([count] if count else []):
            self._host.write_kernel(path, str(number), self._timeout)
        return ""

    def _run_program(self, before: Physical, count: int) -> str:
        said = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 5)
                self._give_driver_back(before)
            seconds = int(max(self._timeout, _SETTLE))
            ended = self._commands.run(command(before.address, count), seconds)
            said = ended.problem(_sriov.SRIOV_MANAGE, seconds) or f"sriov-manage ended with 0: {ended.output.strip()[-_SHOWN:]}"
            if ended.code is None or not self._settled(before, count):
                break
        return said

    def _give_driver_back(self, before: Physical) -> None:
        now = self.observe([before.address]).get(before.address)
        if now is not None and now.driver is None and before.driver:
            self._host.write_kernel(f"/sys/bus/pci/drivers/{before.driver}/bind", before.address, self._timeout)

    def _settled(self, before: Physical, count: int) -> t.List[str]:
        """What is still not as it must be after the kernel had its time."""
        end = time.monotonic() + min(_SETTLE, self._timeout)
        while True:
            missing = _sriov.unfinished(self.observe([before.address]).get(before.address), before, count)
            if not missing or time.monotonic() >= end:
                return missing
            time.sleep(_PAUSE)


_MORE_MMIO = "Enable Above-4G decoding and enlarge the MMIO space in the firmware (redfish_bios: above_4g)"


def command(address: str, count: int) -> t.List[str]:
    return [_sriov.SRIOV_MANAGE, "-e" if count else "-d", address]
