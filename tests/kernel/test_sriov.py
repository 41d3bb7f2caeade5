# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""sriov_vfs on the kernel's SR-IOV core."""

from __future__ import annotations

from tests.kernel.devices import GPU, NIC, SRIOV_GPU
from tests.kernel.guest import DEVICES, Guest
from tests.kernel.playbooks import refused, three_runs


def some(address: str, count: int | str) -> list[dict[str, str]]:
    return [{"address": address, "count": str(count)}]


def test_virtual_functions_come_change_their_number_and_go(on: Guest) -> None:
    three_runs(on, "sriov_vfs", devices=some(NIC, 4))
    first = on.virtual_functions(NIC)
    assert len(first) == 4 and set(on.drivers(first).values()) == {"igbvf"}
    groups = {on.iommu_group(address) for address in first}
    assert len(groups) == 4
    # The kernel itself refuses to go from one number to another.
    assert "Device or resource busy" in on.try_run(f"echo 2 > {DEVICES}/{NIC}/sriov_numvfs").stderr
    three_runs(on, "sriov_vfs", devices=some(NIC, 2))
    assert on.virtual_functions(NIC) == first[:2]
    three_runs(on, "sriov_vfs", devices=some(NIC, 0))
    assert on.virtual_functions(NIC) == []
    assert on.driver(NIC) == "igb"


def test_a_gpu_gets_all_of_them_through_the_program_of_its_driver(on: Guest) -> None:
    total = int(on.read(f"{DEVICES}/{SRIOV_GPU}/sriov_totalvfs") or 0)
    made = three_runs(on, "sriov_vfs", devices=some(SRIOV_GPU, "max"))
    assert made["changes"][0]["after"] == {"count": total, "method": "sriov_manage"}
    assert on.drivers(on.virtual_functions(SRIOV_GPU)) == dict.fromkeys(on.virtual_functions(SRIOV_GPU), "nvidia")
    assert [entry["address"] for entry in made["vfs"][0]["virtual_functions"]] == on.virtual_functions(SRIOV_GPU)
    assert len(on.virtual_functions(SRIOV_GPU)) == total > 0


def test_the_number_stays_while_a_virtual_function_is_in_use(on: Guest) -> None:
    three_runs(on, "sriov_vfs", devices=some(NIC, 2))
    used = on.virtual_functions(NIC)[1]
    on.run("modprobe vfio-pci")
    on.hand_over(used)
    pid = on.hold(used)
    for count in (0, 4):
        assert f"process {pid} (python3)" in refused(on, "sriov_vfs", devices=some(NIC, count))
    assert len(on.virtual_functions(NIC)) == 2


def test_a_function_without_sriov_is_told_from_one_that_has_it(on: Guest) -> None:
    assert "it has no SR-IOV" in refused(on, "sriov_vfs", devices=some(GPU, 2))
