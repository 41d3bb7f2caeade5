# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The merge of KubeVirt's list of permitted devices with what is asked for: by key, in place, and with all that is not ours left as it is.

An entry's key is its selector, as KubeVirt compares it, with its resource name. Several names for one selector, and several selectors for one
name, are legal for PCI devices; what would make two device plugins fight is a blocker.

Sources: kubevirt/kubevirt, pkg/virt-handler/device-manager/{device_controller,mediated_device,pci_device}.go and pkg/util/util.go.
"""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import FIELDS, Entry, Object, read

#: An entry of HyperConverged's object that it does not hand on.
DISABLED = "disabled"
_IS_DISABLED = "it is disabled there"


def merged(
    permitted: t.Optional[Object], request: Request, one_per_selector: bool = False
) -> t.Tuple[t.Optional[Object], t.List[Change], t.List[Blocker]]:
    """The list as it should be, what changes, and what cannot be. Entries that were not asked about keep their place and spelling.

    ``one_per_selector``: the object takes only one entry per selector, as HyperConverged's does.
    """
    if permitted is None and (not request.entries or request.state == "absent"):
        return None, [], []
    lists = _Lists(permitted or {})
    changes: t.List[Change] = []
    blockers: t.List[Blocker] = []
    keys = {entry.key for entry in request.entries}
    if request.state == "absent":
        return lists.permitted, lists.remove(lambda entry: entry.key in keys), []
    if request.state == "exact":
        devices = {entry.same_device for entry in request.entries if entry.planned}
        prefix = request.prefix or ""
        changes += lists.remove(lambda e: e.resource_name.startswith(prefix) and e.key not in keys and e.same_device not in devices)
    for entry in dict.fromkeys(request.entries):
        blocker = lists.conflict(entry, one_per_selector)
        if blocker:
            blockers.append(blocker)
        else:
            changes += lists.ensure(entry)
    return lists.permitted, changes, blockers


class _Lists:
    """The lists with each entry read once and found by key, name and device: 500 entries beside 500 are 500 looks, not 250 000."""

    def __init__(self, permitted: Object) -> None:
        self.permitted = copy.deepcopy(permitted)
        self._by_key: t.Dict[t.Tuple[str, str, str], t.List[Object]] = {}
        self._by_name: t.Dict[str, t.List[Entry]] = {}
        self._by_device: t.Dict[t.Tuple[str, str], t.List[Entry]] = {}
        self._index()

    def _index(self) -> None:
        for found in (self._by_key, self._by_name, self._by_device):
            found.clear()
        for kind, (field, _selector) in FIELDS.items():
            for raw in self.permitted.get(field) or []:
                self._note(read(kind, raw), raw)

    def _note(self, entry: Entry, raw: Object) -> None:
        self._by_key.setdefault(entry.key, []).append(raw)
        self._by_name.setdefault(entry.resource_name, []).append(entry)
        self._by_device.setdefault(entry.same_device, []).append(entry)

    def remove(self, gone: t.Callable[[Entry], bool]) -> t.List[Change]:
        """Take out every entry that ``gone`` says so of. One that is disabled forbids already, and stays."""
        changes = []
        for kind, (field, _selector) in FIELDS.items():
            out: t.Dict[Entry, None] = {}
            left = []
            for raw in self.permitted.get(field) or []:
                entry = read(kind, raw)
                if gone(entry) and not raw.get(DISABLED):
                    out[entry] = None
                else:
                    left.append(raw)
            if out:
                self.permitted[field] = left
            changes += [Change(entry.target, "forbid", entry.shown(), None, "no longer wanted") for entry in out]
        self._index()
        return changes

    def conflict(self, entry: Entry, one_per_selector: bool) -> Blocker | None:
        """Why the entry cannot stand beside those that are there."""
        for other in self._by_name.get(entry.resource_name, []):
            if other.key != entry.key and "mdev" in (other.kind, entry.kind):
                problem = f"{entry.resource_name} already stands for {other.kind} {other.selector}, and a mediated type cannot share a name"
                return Blocker(entry.target, problem, "Choose another resource name, or remove that entry")
        for other in self._by_device.get(entry.same_device, []):
            if other.key == entry.key or entry.planned:
                continue
            if one_per_selector:
                problem = f"HyperConverged takes one entry per selector, and has it as {other.resource_name}"
                return Blocker(entry.target, problem, "Remove that entry first, or let nodes advertise the device under one name")
            if not other.external and not entry.external:
                problem = f"KubeVirt's own plugin already offers it as {other.resource_name}, and it would take only one of the two"
                return Blocker(entry.target, problem, "Remove that entry, or say external: true if another plugin advertises it")
        return None

    def ensure(self, entry: Entry) -> t.List[Change]:
        """The entry is there once, as asked."""
        field, selector = FIELDS[entry.kind]
        if entry.planned:
            keys = dict.fromkeys(other.key for other in self._by_device.get(entry.same_device, []))
            there = [raw for key in keys for raw in self._by_key[key]]
            if any(not raw.get(DISABLED) for raw in there):
                return []
            if there:
                before = [{**read(entry.kind, raw).shown(), DISABLED: True} for raw in there]
                return [Change(entry.target, "correct", before, [entry.shown()], _IS_DISABLED)]
            return [Change(entry.target, "permit", None, entry.shown(), "its resource name is known once a node advertises it")]
        same = self._by_key.get(entry.key, [])
        if not same:
            raw = entry.raw()
            self.permitted[field] = [*(self.permitted.get(field) or []), raw]
            self._note(entry, raw)
            return [Change(entry.target, "permit", None, entry.shown(), "not permitted so far")]
        reason = _wrong(entry, same)
        if not reason:
            return []
        kept = {**same[0], "externalResourceProvider": entry.external}
        kept.pop(DISABLED, None)
        rewritten, first = [], True
        for raw in self.permitted[field]:
            if all(raw is not other for other in same):
                rewritten.append(raw)
            elif first:
                rewritten.append(kept)
                first = False
        before = [{**read(entry.kind, raw).shown(), **({DISABLED: True} if raw.get(DISABLED) else {})} for raw in same]
        self.permitted[field] = rewritten
        return [Change(entry.target, "correct", before, [{**entry.shown(), selector: kept[selector]}], reason)]


def _wrong(entry: Entry, same: t.List[Object]) -> str:
    """What has to be put right about the entries that are already there under a key; empty if nothing."""
    if len(same) > 1:
        return "listed more than once"
    if same[0].get(DISABLED):
        return _IS_DISABLED
    if read(entry.kind, same[0]).external != entry.external:
        return f"external must be {str(entry.external).lower()}"
    return ""
