# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Three views of a device in one: who permits it, which nodes advertise it, who asks for it; and where the three disagree."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _wait
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import FIELDS, Entry, Object, User, read

#: The container device plugin's resources are for pods and have no place in KubeVirt's list.
_FOR_CONTAINERS = ("nvidia.com/gpu", "nvidia.com/gpu.shared")


def advertised(nodes: t.Iterable[Object], silent: bool = False) -> t.Dict[str, t.Dict[str, int]]:
    """Resource -> node -> how many, of every extended resource. Plugins that are gone leave a 0 behind: that is none.

    ``silent``: but of a node that is not ready it counts, as 0, since its plugins may be on their way up.
    """
    found: t.Dict[str, t.Dict[str, int]] = {}
    for node in nodes:
        down = silent and not _wait.ready(node)
        for name, quantity in ((node.get("status") or {}).get("allocatable") or {}).items():
            if "/" in name and (down or _operands.count(quantity)):
                found.setdefault(name, {})[node["metadata"]["name"]] = _operands.count(quantity)
    return found


def entries_of(permitted: t.Optional[Object]) -> t.Dict[str, t.List[Entry]]:
    """Resource -> the entries that permit it; those for USB have no selector here."""
    found: t.Dict[str, t.List[Entry]] = {}
    for kind, (field, _selector) in FIELDS.items():
        for raw in (permitted or {}).get(field) or []:
            entry = read(kind, raw)
            found.setdefault(entry.resource_name, []).append(entry)
    for raw in (permitted or {}).get("usb") or []:
        name = raw.get("resourceName") or ""
        found.setdefault(name, []).append(Entry("usb", "", name, bool(raw.get("externalResourceProvider"))))
    return found


def view(permitted: t.Optional[Object], nodes: t.Iterable[Object], users: t.Iterable[User], prefix: str) -> Object:
    """``{devices, orphans, misses, unpermitted}``. Of what is only advertised, names below ``prefix`` count."""
    entries, offers = entries_of(permitted), advertised(nodes)
    asked: t.Dict[str, t.List[str]] = {}
    for user in users:
        for name in user.resources:
            asked.setdefault(name, []).append(user.who)
    extra = [name for name in offers if name.startswith(prefix) and not _for_others(name)]
    names = sorted({*entries, *asked, *extra})
    known = {*entries, *offers}
    return {
        "devices": [
            {
                "resource_name": name,
                "permitted": permitted is None or name in entries,
                "entries": [{"kind": e.kind, "selector": e.selector or None, "external": e.external} for e in entries.get(name, [])],
                "advertised": {node: offers[name][node] for node in sorted(offers.get(name, {}))},
                "requested_by": sorted(asked.get(name, [])),
            }
            for name in names
        ],
        "orphans": sorted(name for name in entries if name not in offers),
        "misses": [miss for name in sorted(asked) for miss in _misses(name, permitted, entries, offers, asked[name], known)],
        "unpermitted": sorted(name for name in extra if permitted is not None and name not in entries),
    }


def _for_others(name: str) -> bool:
    return name in _FOR_CONTAINERS or name.startswith("nvidia.com/mig-") or _operands.companion(name)


def _misses(
    name: str,
    permitted: t.Optional[Object],
    entries: t.Container[str],
    offers: t.Container[str],
    who: t.Iterable[str],
    known: t.Iterable[str],
) -> t.Iterator[Object]:
    like = [other for other in sorted(known) if other != name and _loose(other) == _loose(name)]
    hint = f"Only the spelling differs from {', '.join(like)}" if like else None
    if permitted is not None and name not in entries:
        problem = "KubeVirt does not permit it, so these cannot start"
        yield {"resource_name": name, "problem": problem, "remedy": hint or "Permit it with kubevirt_permit", "requested_by": sorted(who)}
    if name not in offers:
        problem = "no node advertises it, so these wait"
        yield {"resource_name": name, "problem": problem, "remedy": hint or "See that its device plugin runs", "requested_by": sorted(who)}


def _loose(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
