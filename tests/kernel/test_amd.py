# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An AMD machine: the IOMMU is on by default, and one word turns it off for good."""

from __future__ import annotations

from tests.kernel import playbooks
from tests.kernel.devices import GPU
from tests.kernel.guest import Guest

MAIN = "/etc/default/grub"


def test_an_amd_iommu_needs_no_argument_and_its_off_is_removed_where_it_stands(amd: Guest) -> None:
    assert "IVRS" in amd.names("/sys/firmware/acpi/tables") and amd.iommu_groups() > 0
    facts = playbooks.module(amd, "gpu_node_info")
    assert facts["firmware"]["ivrs"] is True and facts["firmware"]["dmar"] is False
    assert (facts["iommu"]["enabled"], facts["iommu"]["kind"], facts["iommu"]["groups"]) == (True, "amd", amd.iommu_groups())
    assert next(gpu for gpu in facts["gpus"] if gpu["address"] == GPU)["iommu_group"] == amd.iommu_group(GPU)

    amd.run(f"sed -i 's/intel_iommu=off/amd_iommu=off/' {MAIN}; update-grub 2>&1", timeout=300)
    amd.reboot()
    assert amd.iommu_groups() == 0
    facts = playbooks.module(amd, "gpu_node_info")
    assert facts["firmware"]["ivrs"] is True and facts["iommu"]["enabled"] is False
    message = playbooks.refused(amd, "kernel_cmdline", present=["iommu=pt"])
    line = amd.run(f"grep -n amd_iommu=off {MAIN}").partition(":")[0]
    assert f"amd_iommu=off stands in {MAIN} line {line}" in message

    playbooks.three_runs(amd, "kernel_cmdline", present=["iommu=pt"], absent=["amd_iommu=off"])
    amd.reboot()
    assert amd.iommu_groups() > 0
    facts = playbooks.module(amd, "gpu_node_info")
    assert facts["iommu"]["kind"] == "amd" and facts["iommu"]["default_domain"] == "identity"
