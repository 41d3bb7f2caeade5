# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operations import _host_devices


def host_device_requests(*args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
    try:
        return _host_devices.host_device_requests(*args, **kwargs)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"host_device_requests: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"host_device_requests": host_device_requests}
