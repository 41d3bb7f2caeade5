# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _calc


def vgpu_profile_calc(*args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
    try:
        return _calc.profile_calc(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"vgpu_profile_calc: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vgpu_profile_calc": vgpu_profile_calc}
