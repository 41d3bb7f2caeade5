# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is asked of KubeVirt's lists, gates and handling of mediated devices, and what is wrong with that by itself."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import GATE_OFF, PERMITTED, Entry


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; the module's options."""

    entries: t.Tuple[Entry, ...] = ()
    state: str = "present"
    prefix: t.Optional[str] = None
    mdev_handling: str = "unmanaged"
    gates_present: t.Tuple[str, ...] = ()
    gates_absent: t.Tuple[str, ...] = ()
    gates_disabled: t.Tuple[str, ...] = ()
    in_use: str = "refuse"
    adopt_in_use: bool = False

    @property
    def permits(self) -> bool:
        """Are devices permitted by it?"""
        return bool(self.entries) and self.state != "absent"


def request_problems(request: Request, check_mode: bool) -> t.List[Blocker]:
    """What is wrong with the request by itself, before anything is read."""
    found = []
    for entry in request.entries:
        try:
            (_device_names.check_pci_id if entry.kind == "pci" else _names.check_mdev_name)(entry.selector)
            if not (check_mode and entry.planned):
                _names.check_resource_name(entry.resource_name)
        except ValueError as error:
            found.append(Blocker(entry.target, str(error), "Correct it"))
            continue
        if request.state == "exact" and not entry.planned and not entry.resource_name.startswith(request.prefix or ""):
            found.append(
                Blocker(
                    entry.target, f"{entry.resource_name} is outside the prefix {request.prefix}", "Widen resource_prefix or leave it out"
                )
            )
    if request.state == "exact" and not request.prefix:
        found.append(
            Blocker("resource_prefix", "exact would remove everybody's entries", "Say which resource names are yours, such as nvidia.com/")
        )
    names: t.Dict[str, Entry] = {}
    for entry in request.entries:
        other = names.setdefault(entry.resource_name, entry)
        if not entry.planned and other.same_device != entry.same_device and "mdev" in (entry.kind, other.kind):
            found.append(
                Blocker(entry.target, f"{entry.resource_name} is also asked for as {other.target}", "One mediated type per resource name")
            )
    kinds = {entry.key: entry for entry in request.entries}
    for entry in dict.fromkeys(request.entries):
        if kinds[entry.key].external != entry.external:
            found.append(Blocker(entry.target, f"{entry.resource_name} is asked for both as external and not", "Choose one"))
    if request.mdev_handling != "unmanaged" and GATE_OFF in (*request.gates_present, *request.gates_absent, *request.gates_disabled):
        found.append(Blocker(f"feature gate {GATE_OFF}", "mdev_handling decides about it", "Leave it out of feature_gates"))
    for gate in sorted(set(request.gates_present) & {*request.gates_absent, *request.gates_disabled}):
        found.append(Blocker(f"feature gate {gate}", "it is asked for and forbidden", "Choose one"))
    return found


def needs_users(request: Request, configuration: t.Mapping[str, t.Any]) -> bool:
    """Does the decision depend on who uses devices?"""
    if configuration.get(PERMITTED) is None:
        return request.permits
    return request.state != "present"
