# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tags of the vGPU manager's image a fleet needs."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_os_tags import vgpu_os_tags


def facts(os_id: t.Any, os_version: t.Any) -> dict[str, t.Any]:
    return {"host": {"os_id": os_id, "os_version": os_version}}


def test_each_system_of_a_fleet_has_its_tags_once() -> None:
    fleet = [facts("ubuntu", "22.04"), facts("rhel", "9.6"), facts("ubuntu", "22.04"), facts("rocky", "9.4"), facts("rhel", "9.4")]
    assert vgpu_os_tags(fleet) == ["rhel9", "rhel9.4", "rhel9.6", "rocky9", "ubuntu22.04"]
    assert vgpu_os_tags([]) == []


@pytest.mark.parametrize("host", [facts(None, None), facts("debian", None), {"msg": "unreachable"}, None])
def test_a_host_whose_system_is_not_known_is_no_guess(host: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="gpufleet_vgpu_os_tags") as caught:
        vgpu_os_tags([host])
    assert caught.value.__cause__ is None  # Ansible would say it a second time
