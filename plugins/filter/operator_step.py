# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator import _step


def operator_step(*args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
    try:
        return _step.operator_step(*args, **kwargs)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"operator_step: {type(error).__name__}: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"operator_step": operator_step}
