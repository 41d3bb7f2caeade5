# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _lint


def vgpu_device_config_lint(given: t.Any, nodes: t.Any = None, profiles: t.Any = None) -> dict[str, t.Any]:
    try:
        return _lint.lint(plain(given), plain(nodes), plain(profiles))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"vgpu_device_config_lint: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vgpu_device_config_lint": vgpu_device_config_lint}
