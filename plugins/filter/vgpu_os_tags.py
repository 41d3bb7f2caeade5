# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _tags


def vgpu_os_tags(facts: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """Tags of the operating systems of hosts, sorted, each once. ``facts`` are results of gpu_node_info. Raises AnsibleFilterError."""
    try:
        hosts = [entry["host"] for entry in facts]
        return sorted({tag for host in hosts for tag in _tags.os_tags(str(host["os_id"] or ""), str(host["os_version"] or ""))})
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"vgpu_os_tags: {error}. Name the systems in gpufleet_vgpu_os_tags instead") from None


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vgpu_os_tags": vgpu_os_tags}
