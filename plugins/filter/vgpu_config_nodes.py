# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operations import _awaited


def vgpu_config_nodes(*args: t.Any, **kwargs: t.Any) -> list[dict[str, t.Any]]:
    try:
        return _awaited.vgpu_config_nodes(*args, **kwargs)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"vgpu_config_nodes: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vgpu_config_nodes": vgpu_config_nodes}
