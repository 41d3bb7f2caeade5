# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel arguments through GRUB, a reboot, and what the kernel makes of them."""

from __future__ import annotations

import pytest

from tests.kernel import playbooks
from tests.kernel.guest import Guest, differences

PRESENT = ["intel_iommu=on", "iommu=pt"]
MAIN = "/etc/default/grub"


def shell(script: str) -> dict[str, object]:
    return {"ansible.builtin.command": ["sh", "-c", script]} | {"changed_when": False}


@pytest.mark.smoke
def test_an_iommu_that_the_kernel_leaves_off_comes_with_one_reboot(off: Guest) -> None:
    assert off.iommu_groups() == 0 and off.names("/sys/class/iommu") == []
    facts = playbooks.module(off, "gpu_node_info")
    assert facts["firmware"]["dmar"] is True
    assert (facts["iommu"]["enabled"], facts["iommu"]["groups"]) == (False, 0)

    before = off.state()
    predicted = playbooks.module(off, "kernel_cmdline", check=True, present=PRESENT)
    assert differences(before, off.state()) == {}
    assert predicted["changed"] and not predicted["failed"]

    boot = before["boot"]
    run = playbooks.tasks(
        off,
        playbooks.task("kernel_cmdline", present=PRESENT),
        playbooks.task("kernel_cmdline", present=PRESENT),
        {"ansible.builtin.reboot": {"reboot_timeout": 600}},
        playbooks.task("kernel_cmdline", present=PRESENT),
        playbooks.task("gpu_node_info"),
    )
    assert run.outcomes == ["ok"] * 5, run.output
    written, waiting, _reboot, after, facts = run.results
    assert written["changes"] == predicted["changes"] and written["reboot_required"]
    assert not waiting["changed"] and waiting["reboot_required"]
    assert not after["changed"] and not after["reboot_required"]
    assert set(PRESENT) <= set(after["running"])
    assert facts["host"]["boot_id"] == off.state()["boot"] != boot
    assert off.iommu_groups() == facts["iommu"]["groups"] > 0
    assert facts["iommu"] | {"groups": 0} == {"enabled": True, "kind": "intel", "groups": 0, "default_domain": "identity"}
    # The word that stood there still does: it was made ineffective, not removed.
    assert "intel_iommu=off" in (off.read("/proc/cmdline") or "")


def test_a_firmware_without_an_iommu_is_told_from_a_kernel_without_one(nofw: Guest) -> None:
    assert not {"DMAR", "IVRS"} & set(nofw.names("/sys/firmware/acpi/tables"))
    facts = playbooks.module(nofw, "gpu_node_info")
    assert not any(facts["firmware"][table] for table in ("dmar", "ivrs", "iort", "viot"))
    assert (facts["iommu"]["enabled"], facts["iommu"]["kind"], facts["iommu"]["groups"]) == (False, "none", 0)
    assert all(gpu["iommu_group"] is None for gpu in facts["gpus"]) and len(facts["gpus"]) == 5


def test_a_word_that_nothing_appended_takes_back_is_refused_until_it_is_named(off: Guest) -> None:
    off.run(f"sed -i 's/intel_iommu=off/iommu=off/' {MAIN}; update-grub 2>&1")
    line = off.run(f"grep -n iommu=off {MAIN}").partition(":")[0]
    before = off.state()
    refused = playbooks.module(off, "kernel_cmdline", present=PRESENT)
    assert refused["failed"] and not refused["changed"]
    assert f"iommu=off stands in {MAIN} line {line}" in refused["msg"]
    assert differences(before, off.state()) == {}

    run = playbooks.tasks(
        off,
        playbooks.task("kernel_cmdline", present=PRESENT, absent=["iommu=off"]),
        {"ansible.builtin.reboot": {"reboot_timeout": 600}},
        playbooks.task("kernel_cmdline", present=PRESENT, absent=["iommu=off"]),
    )
    assert run.outcomes == ["ok"] * 3, run.output
    assert run.results[0]["changed"] and not run.results[2]["changed"]
    assert off.iommu_groups() > 0
