# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet_facts


def vgpu_fleet(hosts: t.Any, intents: t.Any, cluster: t.Any) -> dict[str, t.Any]:
    try:
        # A host has many variables, some of which nobody can template here: only those that are needed are read.
        read = [{key: plain(host[key]) for key in _fleet_facts.HOST_KEYS if key in host} for host in hosts]
        return _fleet_facts.read(read, plain(intents), plain(cluster))
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"vgpu_fleet: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vgpu_fleet": vgpu_fleet}
