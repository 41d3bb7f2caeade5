# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Reading what is on a node, taking it back into service, and giving up its slot.

Every order of requests here can be gone on from after a crash between any two: what was stopped is started before the slot is given back.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _cordon,
    _evacuation,
    _fleet,
    _maintenance,
    _slots,
    _slots_io,
    _unanswered,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError, Client
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._evacuation import Item
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._maintenance import Restore, Seen, Wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object

_KUBEVIRT = "/apis/kubevirt.io/v1"
_CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"


def observe(client: Client, wish: Wish) -> Seen:
    """One pass of reading. Raises ApiError; ValueError for a slot that is none."""
    configmap = client.find(_slots_io.PATH)
    slots = _slots.read(configmap)
    slot = slots.nodes.get(wish.node)
    vms: dict[str, Object] = {}
    items: list[Item] = []
    running: frozenset[str] = frozenset()
    nodes = client.list("/api/v1/nodes")
    if wish.state == "out_of_service":
        pods = client.list("/api/v1/pods", {"fieldSelector": f"spec.nodeName={wish.node}"})
        here = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == wish.node]
        vmis = _fleet.list_if_served(client, _fleet.VMIS) or []
        on_node = _evacuation.vmis_on(wish.node, vmis)
        vms = _read_vms(client, {name for name in map(_evacuation.vm_of, on_node) if name})
        claims = _fleet.list_if_served(client, _CLAIMS) or []
        items = _evacuation.classify(_evacuation.OnNode(wish.node, here, vmis, vms, claims), wish.rules)
    elif wish.state == "in_service" and slot is not None and slot.restore:
        vms = _read_vms(client, {f"{entry['namespace']}/{entry['name']}" for entry in slot.restore})
        vmis = _fleet.list_if_served(client, _fleet.VMIS) or []
        running = frozenset(f"{vmi['metadata'].get('namespace')}/{vmi['metadata']['name']}" for vmi in vmis)
    return Seen(nodes, configmap, items, vms, running, _slots_io.now(client))


def _read_vms(client: Client, names: t.Iterable[str]) -> dict[str, Object]:
    found = {name: client.find(vm_path(*name.split("/"))) for name in sorted(names)}
    return {name: vm for name, vm in found.items() if vm is not None}


def vm_path(namespace: str, name: str) -> str:
    return f"{_KUBEVIRT}/namespaces/{namespace}/virtualmachines/{name}"


def uncordon(client: Client, wish: Wish) -> None:
    """Take our own cordon away."""
    node = client.find(f"/api/v1/nodes/{wish.node}")
    for change in _cordon.make_plan(wish.node, "uncordoned", wish.reason, node).changes:
        client.patch(f"/api/v1/nodes/{wish.node}", _cordon.patch(change))


class InService:
    """One node coming back. ``timeout``: seconds for the gate."""

    def __init__(self, client: Client, wish: Wish, timeout: float, poll: float) -> None:
        self.client, self.wish, self.timeout, self.poll = client, wish, timeout, poll

    def apply(self) -> list[Blocker]:
        """Gate, restore, uncordon, give back. Returns what stands in the way."""
        try:
            if self.wish.problems:
                self._mark(self.wish.problems[0])
                return []
            return self._adopt() or self._gate() or self._restore() or self._finish()
        except ApiError as error:
            return [_slots_io.failure(self.wish.target, self.wish.slot, error)]
        except (_slots.Lost, ValueError) as error:
            return [Blocker(self.wish.target, str(error), "Look who else works on this node")]

    def _adopt(self) -> list[Blocker]:
        """Make another run's slot ours, if it may be, so that the other one notices."""
        wish = self.wish
        attempt = 0
        while True:
            seen = observe(self.client, wish)
            answer = _slots.own(seen.slots, wish.node, wish.run, wish.resume, wish.stale_after, seen.now)
            if answer.blocker is not None:
                return [answer.blocker]
            if answer.slots is None or answer.slots == seen.slots:
                return []
            conflict = _slots_io.write_slots(self.client, seen.configmap, answer.slots)
            if conflict is None:
                return []
            attempt += 1
            if attempt >= _slots_io.CONFLICTS:
                raise conflict
            _slots_io.pause()

    def _gate(self) -> list[Blocker]:
        began = time.monotonic()
        while True:
            problems = _maintenance.gate(self.wish, self.client.find(f"/api/v1/nodes/{self.wish.node}"))
            if not problems:
                return []
            waited = time.monotonic() - began
            if waited >= self.timeout:
                self._mark(problems[0])
                return [Blocker(self.wish.target, f"after {waited:.0f} s, {problem}", _maintenance.STAYS_OUT) for problem in problems]
            time.sleep(self.poll)

    def _mark(self, why: str) -> None:
        _slots_io.change_slots(self.client, lambda slots, _now: _slots.mark_failed(slots, self.wish.node, self.wish.run, why))

    def _restore(self) -> list[Blocker]:
        blockers: dict[str, Blocker] = {}
        for _attempt in range(5):
            seen = observe(self.client, self.wish)
            todo, _notes = _maintenance.restores(seen.slots.nodes.get(self.wish.node), seen)
            blockers = {}
            for each in todo:
                try:
                    self._start(each)
                except ApiError as error:
                    remedy = "Start it yourself, or mend that and run again; the node keeps its slot until then"
                    blockers[each.target] = _unanswered.blocker(each.target, error, remedy)
            if not any(blocker.unknown or " 409 " in blocker.problem for blocker in blockers.values()):
                break
        return list(blockers.values())

    def _start(self, each: Restore) -> None:
        path = vm_path(each.namespace, each.name)
        if each.patched:
            self.client.patch(path, {"metadata": {"resourceVersion": each.version}, "spec": {each.field: each.value}})
        if each.started:
            start = f"/apis/subresources.kubevirt.io/v1/namespaces/{each.namespace}/virtualmachines/{each.name}/start"
            try:
                self.client.put(start, {})
            except ApiError as error:
                if error.status != 409:  # it runs, or has been told to start
                    raise

    def _finish(self) -> list[Blocker]:
        uncordon(self.client, self.wish)
        _slots_io.change_slots(self.client, lambda slots, _now: _slots.give_back(slots, self.wish.node, self.wish.run))
        return []


def release(client: Client, wish: Wish) -> list[Blocker]:
    """Give up the node's slot, whoever holds it."""
    try:
        _slots_io.change_slots(client, lambda slots, _now: _slots.release(slots, wish.node))
    except ApiError as error:
        return [_slots_io.failure(wish.target, wish.slot, error)]
    except _slots.Lost as error:
        return [Blocker(wish.target, str(error), _slots_io.AGAIN)]
    return []
