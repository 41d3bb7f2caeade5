# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of ``mdev_create`` on one host: what it sees, plans, does and reads back, with the entries for the next boot."""

from __future__ import annotations

import dataclasses
import typing as t

from .._change import Blocker, Change, Plan
from .._device_names import plain_type
from . import (
    _owners,
    _persist,
    _vgpu_backends,
    _vgpu_host,
    _vgpu_plan,
    _vgpu_wish,
)
from ._commands import Commands
from ._sysfs import Host
from ._vgpu import Gpu
from ._vgpu_wish import Wish
from ._vgpus_at_boot import KIND


@dataclasses.dataclass(frozen=True)
class Options:
    """``planned``: virtual functions that an earlier step would make (GPU -> how many); in check mode only."""

    backend: str
    persist: bool
    waits: bool
    checks: bool
    owner: str
    timeout: float
    planned: t.Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Seen:
    gpus: t.Mapping[str, Gpu]
    kept: _persist.Seen
    others: t.Mapping[str, Blocker]  #: who else makes a GPU's devices at boot
    refused: t.Sequence[Blocker]  #: what forbids everything


class Run:
    def __init__(self, host: Host, commands: Commands, persistence: _persist.Persistence, options: Options) -> None:
        self._host = host
        self._commands = commands
        self._persistence = persistence
        self._options = options
        self._vgpus = _vgpu_host.VgpuHost(host, commands, options.timeout, options.backend)
        self._wishes: t.List[Wish] = []
        self._acted = False  #: what is read afterwards is read at once: a VM that came meanwhile is not waited for again
        self._rules = _vgpu_plan.Rules(
            waits=options.waits and options.checks,
            asks_driver=commands.can_run,
            space=_vgpu_backends.namespace(host.quiet(_vgpu_backends.MACHINE_ID)),
        )

    def select(self, gpus: t.Sequence[t.Mapping[str, t.Any]], state: str, mixed_size: str) -> t.List[Blocker]:
        """Find the GPUs that are meant; what is wrong with that."""
        self._wishes, blockers = _vgpu_wish.select(gpus, self._vgpus.names(), state, mixed_size)
        return blockers

    def observe(self) -> Seen:
        refused = _owners.operator(self._options.owner) or _owners.device_manager(self._host)
        if self._options.waits and not self._options.checks and not self._acted and not refused:
            gpus = _vgpu_host.when_idle(self._look, self._options.timeout)
        else:
            gpus = self._gpus()
        functions = {address: gpu.parents for address, gpu in gpus.items()}
        others = _owners.at_boot(self._host, functions, {_persist.UNIT_FILE})
        return Seen(gpus, self._persistence.observe(), others, refused)

    def _gpus(self) -> t.Dict[str, Gpu]:
        # The mode is asked of the driver, which takes its time, only where it decides something.
        asked = [wish.address for wish in self._wishes if wish.mixed_size != "unmanaged" or len(wish.types) > 1]
        return self._vgpus.observe([wish.address for wish in self._wishes], asked)

    def _look(self) -> t.Tuple[t.Dict[str, Gpu], bool]:
        gpus = self._gpus()
        waiting = dataclasses.replace(self._rules, waits=True)
        return gpus, any(_vgpu_plan.plan(gpus[wish.address], wish, waiting).warnings for wish in self._wishes if wish.address in gpus)

    def plan(self, seen: Seen) -> Plan:
        if seen.refused:
            return Plan(blockers=list(seen.refused))
        plan = Plan()
        updates: t.Dict[str, t.Optional[_persist.Entry]] = {}
        for wish in self._wishes:
            part = self._one(wish, seen)
            plan.changes += part.changes
            plan.blockers += part.blockers
            plan.warnings += part.warnings
            if not part.blockers:
                updates[wish.address] = self._entry(wish, seen)
        boot = _persist.plan(seen.kept, KIND, updates, self._persistence.code, self._persistence.unit)
        plan.changes += boot.changes
        plan.blockers += boot.blockers
        return plan

    def _one(self, wish: Wish, seen: Seen) -> Plan:
        gpu = seen.gpus.get(wish.address)
        if gpu is None:
            return Plan(blockers=[Blocker(f"GPU {wish.address}", "it is gone from the bus", "See the kernel log", stops="target")])
        if wish.address in seen.others and wish.state != "absent":
            return Plan(blockers=[dataclasses.replace(seen.others[wish.address], target=gpu.target)])
        planned = self._options.planned.get(wish.address)
        if planned is not None and (gpu.backend is None or planned != len(gpu.parents)) and not gpu.vgpus:
            return _vgpu_plan.planned(wish, planned)
        return _vgpu_plan.plan(gpu, wish, self._rules)

    def _entry(self, wish: Wish, seen: Seen) -> t.Optional[_persist.Entry]:
        """What of a GPU is to be made at boot: with ``exact`` the wish, else what was kept with the wish put in or taken out."""
        if not self._options.persist:
            return None
        kept = seen.kept.entries[KIND].get(wish.address)
        before = {_plain(entry["type"]): entry for entry in (kept or {}).get("types", ())}
        wanted = {
            _plain(entry.type): {"type": entry.type, "count": entry.count, "placement_ids": list(entry.placement_ids)}
            for entry in wish.types
        }
        if wish.state == "exact":
            types = {name: entry for name, entry in wanted.items() if entry["count"]}
        elif wish.state == "present":
            types = {**before, **wanted}
        else:
            types = {name: entry for name, entry in before.items() if wish.types and name not in wanted}
        if not types:
            return None
        mixed = wish.mixed_size if wish.state != "absent" or kept is None else kept["mixed_size"]
        return {
            "types": [types[name] for name in sorted(types)],
            "backend": self._options.backend,
            "mixed_size": mixed,
            "id": seen.gpus[wish.address].vendor_device,
        }

    def apply(self, changes: t.Sequence[Change]) -> t.List[Blocker]:
        devices = [change for change in changes if change.target.startswith(("vGPU ", "GPU "))]
        self._acted = True
        blockers = self._vgpus.apply(devices)
        rest = [change for change in changes if change not in devices]
        return blockers + (self._persistence.apply(rest, self._vgpus.failed) if rest else [])

    def verify(self, seen: Seen) -> t.List[Blocker]:
        """What is not as wanted on GPUs that took every change: counted per type, read back."""
        found = []
        for wish in self._wishes:
            if wish.address in self._vgpus.failed:
                continue
            left = self._one(wish, seen)
            if left.changes and not left.blockers:
                has = _vgpu_host.counts(seen.gpus[wish.address].vgpus)
                said = ", ".join(f"{count} {name}" for name, count in sorted(has.items())) or "no vGPU"
                problem = f"all was written, and it has {said}; {left.changes[0].action} {left.changes[0].target} is left"
                found.append(Blocker(f"GPU {wish.address}", problem, "Look for another writer, and at the kernel log"))
        boot = self._persistence.observe()
        if boot.broken:
            found.append(Blocker(f"file {_persist.ENTRIES}", boot.broken, "Look for another writer of it"))
        return found

    def result(self, seen: Seen, plan: Plan) -> t.Dict[str, t.Any]:
        pending = []
        if not self._commands.can_run:
            for wish in self._wishes:
                makes = any(c.action == _vgpu_plan.CREATE and c.after["gpu"] == wish.address for c in plan.changes)
                if makes and wish.mixed_size != "unmanaged":
                    pending.append(" ".join(_vgpu_host.mode_command(wish.address, wish.mixed_size)))
        return {
            "gpus": [
                {
                    "address": gpu.address,
                    "backend": gpu.backend,
                    "counts": _vgpu_host.counts(gpu.vgpus),
                    "devices": [{"device": v.device, "parent": v.parent, "type": v.name or v.type_id} for v in gpu.vgpus],
                }
                for gpu in (seen.gpus[address] for address in sorted(seen.gpus))
            ],
            "pending": pending + _persist.pending(plan.changes, self._commands.can_run),
        }


def _plain(name: str) -> str:
    return plain_type(name) or name
