# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What gpu_node_info says, against what the guest's kernel shows."""

from __future__ import annotations

import pytest

from tests.kernel import devices, playbooks
from tests.kernel.guest import DEVICES, Guest, differences


@pytest.mark.smoke
def test_facts_are_what_the_kernel_says_and_reading_changes_nothing(on: Guest) -> None:
    before = on.state()
    facts = playbooks.module(on, "gpu_node_info")
    assert differences(before, on.state()) == {}

    assert facts["iommu"] == {"enabled": True, "kind": "intel", "groups": on.iommu_groups(), "default_domain": "identity"}
    assert facts["host"]["boot_id"] == before["boot"]
    gpus = {gpu["address"]: gpu for gpu in facts["gpus"]}
    assert set(gpus) == {devices.GPU, devices.SRIOV_GPU, devices.OLD_GPU, devices.SECOND_GPU, devices.BRIDGED_GPU}
    assert {address: gpu["driver"] for address, gpu in gpus.items()} == on.drivers(gpus) == dict.fromkeys(gpus, "nvidia")
    assert {address: gpu["iommu_group"] for address, gpu in gpus.items()} == {address: on.iommu_group(address) for address in gpus}
    assert gpus[devices.GPU]["companions"] == [devices.AUDIO]
    assert gpus[devices.SRIOV_GPU]["sriov"] == {"total": int(on.read(f"{DEVICES}/{devices.SRIOV_GPU}/sriov_totalvfs") or 0), "enabled": 0}
    assert gpus[devices.OLD_GPU]["vgpu"]["backend"] == "mdev" and gpus[devices.SRIOV_GPU]["vgpu"]["backend"] == "none"
    assert facts["groups"][str(on.iommu_group(devices.BRIDGED_GPU))]["members"] == ["0000:06:00.0", devices.BRIDGED_GPU, devices.NEIGHBOUR]


@pytest.mark.smoke
def test_a_group_is_viable_when_the_kernel_says_so(on: Guest) -> None:
    """The verdict of gpu_node_info against VFIO_GROUP_GET_STATUS, before and after each function of a group is handed over."""
    on.run("modprobe vfio-pci")

    def verdicts(address: str) -> tuple[bool, bool]:
        facts = playbooks.module(on, "gpu_node_info")
        return facts["groups"][str(on.iommu_group(address))]["viable"], on.viable(address)

    on.hand_over(devices.GPU)
    assert verdicts(devices.GPU) == (False, False)
    on.hand_over(devices.AUDIO)
    assert verdicts(devices.GPU) == (True, True)
    # The neighbour behind the bridge has no driver, and the bridge does not count.
    on.hand_over(devices.BRIDGED_GPU)
    assert verdicts(devices.BRIDGED_GPU) == (True, True)


@pytest.mark.smoke
def test_who_holds_a_gpu_is_named(on: Guest) -> None:
    on.run("modprobe vfio-pci")
    on.hand_over(devices.SECOND_GPU)
    pid = on.hold(devices.SECOND_GPU)
    facts = playbooks.module(on, "gpu_node_info")
    users = {gpu["address"]: gpu["users"] for gpu in facts["gpus"]}
    assert [user["pid"] for user in users.pop(devices.SECOND_GPU)] == [pid]
    assert all(not others for others in users.values())
