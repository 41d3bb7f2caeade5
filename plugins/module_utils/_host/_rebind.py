# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a plan of :mod:`_vfio_plan`: one function after the other, looking for holders right before each.

``driver_override`` and ``drivers_probe`` concern one function; ``new_id`` would take every device of an id, and is never used.
Sources: the kernel's Documentation/ABI/testing/sysfs-bus-pci, drivers/pci/pci-driver.c, drivers/base/bus.c.
"""

from __future__ import annotations

import contextlib
import errno
import time
import typing as t

from .._change import Blocker, Change, Plan
from . import _boot_binding, _displaced, _holders, _pci, _vfio, _vfio_plan
from ._pci import Function
from ._sysfs import Host, HostError, KernelError, KernelTimeout

_PROBE = "/sys/bus/pci/drivers_probe"
_NONE = "\n"  # what clears driver_override
_PAUSE = 2.0  # seconds between two looks for holders


class NotDone(Exception):
    """Why a function was not changed: the problem, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class Rebinding:
    """Carries out the changes of one plan.

    ``timeout``: seconds for each write. ``wait_timeout``: seconds to wait for holders before that. ``whole_group``: nobody may hold any
    device of the group, changed or not. ``load`` gives the kernel a driver (it raises HostError); ``again`` plans anew.
    """

    def __init__(
        self,
        host: Host,
        timeout: float,
        wait_timeout: float,
        whole_group: bool,
        load: t.Callable[[str], None],
        again: t.Callable[[], Plan],
    ) -> None:
        self._host = host
        self._timeout = timeout
        self._patience = wait_timeout
        self._whole_group = whole_group
        self._load_driver = load
        self._again = again

    def apply(self, changes: t.Sequence[Change]) -> t.List[Blocker]:
        """A Blocker for each target that is not as planned. A failure stops the rest of its group, and nothing else."""
        blockers = []
        stopped: t.Dict[str, str] = {}  # group -> the function that failed
        ready: t.Set[str] = set()
        for change in changes:
            unit = self._unit(change.target)
            try:
                if change.action == _vfio_plan.LOAD:
                    self._load_driver(change.target[len("driver ") :])
                elif change.action in (_vfio_plan.BIND, _vfio_plan.RELEASE):
                    if unit in stopped:
                        raise NotDone(f"not tried, because {stopped[unit]} of its group failed", "Mend that and run again")
                    if unit not in ready:
                        self._await([c.target for c in changes if self._unit(c.target) == unit])
                        ready.add(unit)
                    self._move(change)
                elif change.after is None:
                    self._host.remove(_boot_binding.RULES)
                else:
                    self._host.write_text(_boot_binding.RULES, change.after)
            except NotDone as error:
                blockers.append(Blocker(change.target, str(error), error.remedy))
                stopped.setdefault(unit, change.target)
            except HostError as error:
                blockers.append(Blocker(change.target, str(error), "Mend that and run again"))
                stopped.setdefault(unit, change.target)
        return blockers

    def _unit(self, target: str) -> str:
        link = self._host.link(f"/sys/bus/pci/devices/{target}/iommu_group")
        return f"group {link.rpartition('/')[2]}" if link else target

    def _held(self, addresses: t.Sequence[str]) -> t.Optional[t.List[_holders.Holder]]:
        """Who holds one of these functions (all of one group), or what of their group a VM can have; None if that is unknown."""
        holding = _vfio.Holding(self._host)
        found: t.Dict[int, _holders.Holder] = {}
        group = self._host.names(f"/sys/bus/pci/devices/{addresses[0]}/iommu_group/devices")
        for function in [_pci.function(self._host, address) for address in sorted({*group, *addresses})]:
            if not function.is_bridge and (function.address in addresses or function.on_vfio or self._whole_group):
                held = holding.of(function)
                if held is None:
                    return None
                found.update({holder.pid: holder for holder in held})
        return sorted(found.values())

    def _await(self, addresses: t.Sequence[str]) -> None:
        """Wait until nobody holds these functions, at most as long as we were told; then everything else must still hold, too."""
        end = time.monotonic() + self._patience
        held = self._held(addresses)
        if not held and held is not None:
            return
        while held and time.monotonic() < end:
            time.sleep(_PAUSE)
            held = self._held(addresses)
        self._refuse(held)
        late = [blocker for blocker in self._again().blockers if blocker.target in addresses]
        if late:
            raise NotDone(late[0].problem, late[0].remedy)

    def _refuse(self, held: t.Optional[t.Sequence[_holders.Holder]]) -> None:
        if held is None:
            raise NotDone("it cannot be told who holds it", "Run on the host itself as root, with its own /proc")
        if held:
            raise NotDone(f"it is held by {_names(held)}; nothing was written to it", "Stop the VM or process, then run again")

    def _move(self, change: Change) -> None:
        function = _pci.function(self._host, change.target)
        if function.driver != change.before:
            raise NotDone(f"its driver is now {function.driver or 'none'}: somebody else changes it", "Find out who, then run again")
        self._refuse(self._held([function.address]))
        try:
            if change.action == _vfio_plan.BIND:
                self._bind(function, change.after)
            else:
                self._release(function, change)
        except KernelTimeout as error:
            held = self._held([function.address])
            who = f"held by {_names(held)}" if held else "no holder can be seen"
            raise NotDone(f"{error} ({who})", "Let go of it; run again, which goes on from what the kernel has done") from error
        except KernelError as error:
            raise NotDone(*_explained(error)) from error

    def _bind(self, function: Function, driver: str) -> None:
        if driver not in self._host.names(_vfio.DRIVERS):
            raise NotDone(f"the kernel has no driver {driver}", "Load it, then run again")
        before = self._override(function)
        _displaced.remember(self._host, function)
        self._write(f"{function.path}/driver_override", driver)
        try:
            self._unbind(function)
        except KernelError:
            with contextlib.suppress(HostError):
                self._write(f"{function.path}/driver_override", before)
            raise
        self._write(_PROBE, function.address)
        now = _pci.function(self._host, function.address).driver
        if now != driver:
            with contextlib.suppress(HostError):
                self._write(f"{function.path}/driver_override", before)
                self._write(_PROBE, function.address)
            problem = f"{driver} did not take it, and {_pci.function(self._host, function.address).driver or 'no driver'} has it again"
            raise NotDone(problem, "Look into the kernel log: a BAR that something reserves, or a driver that wants other devices")

    def _release(self, function: Function, change: Change) -> None:
        # driver_override stays on VFIO until the driver is off, so that a run that ends here is taken up again.
        if function.on_vfio:
            self._unbind(function)
        known = change.after is not None and change.after in self._host.names(_vfio.DRIVERS)
        self._write(f"{function.path}/driver_override", change.after if known else _NONE)
        if change.after is not None:
            self._write(_PROBE, function.address)
        if known:
            self._write(f"{function.path}/driver_override", _NONE)
        now = _pci.function(self._host, function.address)
        if now.on_vfio or (known and now.driver != change.after):
            raise NotDone(f"its driver is {now.driver or 'none'} and not {change.after}", "Look into the kernel log, then run again")
        _displaced.forget(self._host, function.address)

    def _override(self, function: Function) -> str:
        text = (self._host.read_text(f"{function.path}/driver_override") or "").strip()
        return text if text not in ("", "(null)") else _NONE

    def _unbind(self, function: Function) -> None:
        if function.driver is not None:
            self._write(f"{_vfio.DRIVERS}/{function.driver}/unbind", function.address)

    def _write(self, path: str, text: str) -> None:
        self._host.write_kernel(path, text, self._timeout)


def _names(held: t.Iterable[_holders.Holder]) -> str:
    return ", ".join(map(str, held))


def _explained(error: KernelError) -> t.Tuple[str, str]:
    """A problem and a remedy for what the kernel answered."""
    remedies = {
        errno.ENODEV: "The device is gone, or does not answer: look into the kernel log",
        errno.EBUSY: "Something else has it: look into the kernel log for who reserves its BARs",
        errno.EACCES: "Run as root; in a container, it needs a writable /sys",
        errno.EROFS: "Run as root; in a container, it needs a writable /sys",
    }
    return str(error), remedies.get(error.errno, "Look into the kernel log, then run again")
