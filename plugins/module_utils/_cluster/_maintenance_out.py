# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Taking a node out of service: the requests, in an order that can be gone on from after a crash between any two.

The slot comes before the cordon, and what to restore is written before a VM is stopped.
"""

from __future__ import annotations

import time

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _cordon,
    _evacuation,
    _fleet,
    _maintenance,
    _slots,
    _slots_io,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError, Client
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._evacuation import Item
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._maintenance import Seen, Wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._maintenance_io import observe, uncordon, vm_path

_NAMESPACES = "/api/v1/namespaces"
_KUBEVIRT = "/apis/kubevirt.io/v1"
_NOTE = "gpufleet.kubevirt/maintenance-of"
#: While something is waited for, the slot shows at least this often, in seconds, that its run is alive.
_TOUCH_SECONDS = 60
#: Until an eviction that a disruption budget refused is asked for again, in seconds.
_EVICT_AGAIN_SECONDS = 10.0
#: A VM whose migration has failed this often is not tried again.
_MIGRATIONS = 3


class OutOfService:
    """One node being taken out. ``slot_timeout``, ``timeout``, ``poll``: seconds to wait for a slot, until it is clear, and between two looks."""

    def __init__(self, client: Client, wish: Wish, slot_timeout: float, timeout: float, poll: float) -> None:
        self.client, self.wish = client, wish
        self.slot_timeout, self.timeout, self.poll = slot_timeout, timeout, poll
        self.problems: dict[str, str] = {}
        self.again: dict[str, float] = {}

    def apply(self) -> list[Blocker]:
        """All that the plan says, from what is there now. Returns what stands in the way."""
        try:
            fresh, blockers = self._take()
            if not blockers:
                blockers = self._cordon() or self._clear()
            if blockers and fresh:
                blockers += self._undo()
        except ApiError as error:
            return [_slots_io.failure(self.wish.target, self.wish.slot, error)]
        except (_slots.Lost, ValueError) as error:
            return [Blocker(self.wish.target, str(error), "Look who else works on this node")]
        return blockers

    def _take(self) -> tuple[bool, list[Blocker]]:
        """True if the slot was not there before."""
        began, conflicts = time.monotonic(), 0
        while True:
            seen = observe(self.client, self.wish)
            answer = _maintenance.take(self.wish, seen)
            if answer.blocker is None:
                conflict = _slots_io.write_slots(self.client, seen.configmap, answer.slots or seen.slots)
                if conflict is None:
                    return self.wish.node not in seen.slots.nodes, []
                conflicts += 1
                if conflicts >= _slots_io.CONFLICTS:
                    raise conflict
                _slots_io.pause()
                continue
            waited = time.monotonic() - began
            if not answer.waiting_helps or waited >= self.slot_timeout:
                after = f"after {waited:.0f} s, " if answer.waiting_helps else ""
                return False, [Blocker(answer.blocker.target, after + answer.blocker.problem, answer.blocker.remedy)]
            time.sleep(self.poll)

    def _cordon(self) -> list[Blocker]:
        path = f"/api/v1/nodes/{self.wish.node}"
        plan = _cordon.make_plan(self.wish.node, "cordoned", self.wish.reason, self.client.find(path))
        for change in plan.changes:
            self.client.patch(path, _cordon.patch(change))
        return plan.blockers

    def _clear(self) -> list[Blocker]:
        began = time.monotonic()
        while True:
            seen = observe(self.client, self.wish)
            refused = _maintenance.refusals(seen.items)
            if refused:
                return refused
            present = [item for item in seen.items if item.present]
            if not present:
                return []
            late = time.monotonic() - began >= self.timeout
            if late:
                return [self._late(item, time.monotonic() - began) for item in present]
            hopeless = self._act(seen, [item for item in present if item.act in _evacuation.ACTS])
            if hopeless:
                return hopeless
            time.sleep(self.poll)

    def _late(self, item: Item, waited: float) -> Blocker:
        problem = self.problems.get(item.target, item.why)
        return Blocker(
            item.target,
            f"it is still there after {waited:.0f} s: {problem}",
            "Mend that and run again; the node stays cordoned with its slot. With state: in_service it comes back and its VMs are started",
        )

    def _act(self, seen: Seen, items: list[Item]) -> list[Blocker]:
        """Ask for everything that is due. What fails is remembered and asked for again; what cannot get better is returned."""
        slot = seen.slots.nodes.get(self.wish.node)
        restore = [dict(item.restore) for item in items if item.restore is not None]
        known = {entry["uid"] for entry in slot.restore} if slot is not None else set()
        fresh = slot is None or (bool(items) and not slot.cleared) or any(entry["uid"] not in known for entry in restore)
        if fresh or slot is None or seen.now - slot.touched >= _TOUCH_SECONDS:
            _slots_io.change_slots(self.client, lambda slots, now: _slots.note(slots, self.wish.node, self.wish.run, now, restore))
        hopeless = []
        for item in items:
            if self.again.get(item.target, 0.0) > time.monotonic():
                continue
            try:
                problem = getattr(self, f"_{item.act}")(item, seen)
                if problem is not None:
                    hopeless.append(problem)
            except ApiError as error:
                self.problems[item.target] = "; ".join([str(error), *error.causes])
                if error.status in (404, 409):  # it has gone or changed since it was read: the next look says which
                    continue
                if error.status == 403:
                    return [Blocker(item.target, str(error), f"Allow that to this identity ({item.act})")]
                self.again[item.target] = time.monotonic() + _EVICT_AGAIN_SECONDS
        return hopeless

    def _stop(self, item: Item, seen: Seen) -> None:
        if item.restore is None:
            return
        name = f"{item.restore['namespace']}/{item.restore['name']}"
        field, version = item.restore["field"], seen.vms[name]["metadata"].get("resourceVersion")
        body = {"metadata": {"resourceVersion": version}, "spec": {field: _evacuation.halted(field)}}
        self.client.patch(vm_path(*name.split("/")), body)

    def _delete(self, item: Item, _seen: Seen) -> None:
        path = f"{_KUBEVIRT}/namespaces/{item.namespace}/virtualmachineinstances/{item.name}"
        self.client.delete(path, {"preconditions": {"uid": item.uid}})

    def _evict(self, item: Item, _seen: Seen) -> None:
        metadata = {"name": item.name, "namespace": item.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": {"preconditions": {"uid": item.uid}}}
        self.client.evict(f"{_NAMESPACES}/{item.namespace}/pods/{item.name}/eviction", body)

    def _migrate(self, item: Item, _seen: Seen) -> Blocker | None:
        path = f"{_KUBEVIRT}/namespaces/{item.namespace}/virtualmachineinstancemigrations"
        own = [m for m in _fleet.list_if_served(self.client, path) or [] if (m.get("spec") or {}).get("vmiName") == item.name]
        if any((m.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for m in own):
            return None
        failed = [m for m in own if (m["metadata"].get("annotations") or {}).get(_NOTE) == f"{self.wish.node} {self.wish.run}"]
        failed = [m for m in failed if (m.get("status") or {}).get("phase") == "Failed"]
        if len(failed) >= _MIGRATIONS:
            return Blocker(
                item.target, f"its migration has failed {len(failed)} times", "Look at its VirtualMachineInstanceMigrations, or stop it"
            )
        notes = {_NOTE: f"{self.wish.node} {self.wish.run}"}
        kind = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration"}
        self.client.create(path, {**kind, "metadata": {"generateName": "gpufleet-", "annotations": notes}, "spec": {"vmiName": item.name}})
        return None

    def _undo(self) -> list[Blocker]:
        """Where nothing on the node was touched, it is as before: it goes back into service, and the slot to others."""
        try:
            slot = _slots.read(self.client.find(_slots_io.PATH)).nodes.get(self.wish.node)
            if slot is not None and slot.run == self.wish.run and not slot.cleared:
                uncordon(self.client, self.wish)
                _slots_io.change_slots(self.client, lambda slots, _now: _slots.give_back(slots, self.wish.node, self.wish.run))
        except ApiError as error:
            return [_slots_io.failure(self.wish.target, self.wish.slot, error)]
        return []
