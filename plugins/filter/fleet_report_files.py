# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _files


def fleet_report_files(*args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
    try:
        return _files.files(*plain(args), **plain(kwargs))
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"fleet_report_files: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_report_files": fleet_report_files}
