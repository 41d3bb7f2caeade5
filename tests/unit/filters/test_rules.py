# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight._verdicts import compiled_rules, preflight_verdicts
from tests.hosts import tree
from tests.hosts.tree import Gpu, HostSpec, a10s

RULES = yaml.safe_load((Path(__file__).parents[3] / "roles" / "preflight" / "vars" / "main.yml").read_text())["__preflight_rules"]
WORKLOADS = ("container", "vm-passthrough", "vm-vgpu")
NODE = {"name": "n"}


def judged(facts: dict[str, t.Any], workload: str, node: dict[str, t.Any] | None = None, **more: t.Any) -> dict[str, t.Any]:
    intent = {"host": "h", "node": "n", "workload": workload, "reboot_ok": True}
    own = {**NODE, "boot_id": (facts.get("host") or {}).get("boot_id")} if node is None else node
    return preflight_verdicts(facts, RULES, intent, own, **more)


def rule(result: dict[str, t.Any], name: str) -> dict[str, t.Any]:
    return next(entry for entry in result["rules"] if entry["id"] == name)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory):
    def go(spec: HostSpec) -> dict[str, t.Any]:
        root = tmp_path_factory.mktemp("hosts") / "h"
        tree.build(root, copy.deepcopy(spec))
        return _node.read(Host(str(root)))

    return go


GOOD = {
    "container": HostSpec(a10s()),
    "vm-passthrough": HostSpec(a10s(), cmdline="intel_iommu=on"),
    "vm-vgpu": tree.LAB_HOSTS["gpu-vgpu-0"],
}
ON = "intel_iommu=on"
#: Rule -> a host that breaks it, as what, and the verdict.
BAD: dict[str, tuple[HostSpec, str, str]] = {
    "gpu_present": (HostSpec([], cmdline=ON), "container", "fail"),
    "fell_off_bus": (HostSpec([Gpu("0000:41:00.0", fell_off_bus=True)]), "container", "fail"),
    "power_state": (HostSpec([Gpu("0000:41:00.0", power_state="D3cold")]), "container", "warn"),
    "iommu_firmware": (HostSpec(a10s(), firmware="none", cmdline=ON), "vm-passthrough", "fail"),
    "iommu_kernel": (HostSpec(a10s()), "vm-passthrough", "fail"),
    "iommu_kernel_other": (HostSpec(a10s(), firmware="ivrs", cmdline="amd_iommu=off"), "vm-vgpu", "fail"),
    "group_foreign": (HostSpec([Gpu("0000:41:00.0", neighbour=True)], cmdline=ON), "vm-passthrough", "fail"),
    "driver_on_host": (HostSpec(a10s(), cmdline=ON, host_driver="580.1"), "vm-passthrough", "fail"),
    "driver_on_host_container": (HostSpec(a10s(), host_driver="580.1"), "container", "warn"),
    "other_driver": (HostSpec(a10s(driver="nouveau"), cmdline=ON), "vm-vgpu", "fail"),
    "other_driver_container": (HostSpec(a10s(driver="NovaCore")), "container", "warn"),
    "boot_vga": (HostSpec([Gpu("0000:41:00.0", kind="030000", boot_vga=True)], cmdline=ON), "vm-passthrough", "fail"),
    "bar_size": (HostSpec([Gpu("0000:41:00.0", bar1=0)], cmdline=ON), "vm-passthrough", "fail"),
    "sriov": (HostSpec([Gpu("0000:41:00.0", vfs_total=0)], cmdline=ON), "vm-vgpu", "warn"),
    "vendor_vfio": (HostSpec(a10s(driver="nvidia", vfs=4, backend="vendor_vfio"), cmdline=ON), "vm-vgpu", "fail"),
    "secure_boot": (HostSpec(a10s(), secure_boot=True), "container", "fail"),
    "virtualised": (HostSpec(a10s(), cmdline=ON, hypervisor=True), "vm-passthrough", "warn"),
    "kernel_log": (HostSpec(a10s(), kernel_log=["NVRM: GPU has fallen off the bus"]), "container", "warn"),
}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_good_host_passes_every_rule(read, workload: str) -> None:
    result = judged(read(GOOD[workload]), workload)
    assert {entry["id"]: entry["verdict"] for entry in result["rules"] if entry["verdict"] != "pass"} == {}
    assert (result["verdict"], result["why"]) == ("pass", "")


@pytest.mark.parametrize("name", BAD)
def test_each_rule_finds_its_offender_and_says_what_to_do(read, name: str) -> None:
    spec, workload, verdict = BAD[name]
    found = rule(judged(read(spec), workload), name)
    assert found["verdict"] == verdict
    assert found["problem"] and found["remedy"] and "{" not in found["problem"] + found["remedy"] and "None" not in found["problem"]


def test_rules_that_no_tree_can_break(read) -> None:
    facts = read(GOOD["vm-vgpu"])
    newer = {**facts, "host": {**facts["host"], "kernel": "6.8.0-40-generic"}}
    assert rule(judged(newer, "vm-vgpu"), "vgpu_kernel")["verdict"] == "fail"
    switched = {**read(GOOD["vm-passthrough"]), "nvswitches": [{"address": "0000:05:00.0"}]}
    assert "0000:05:00.0" in rule(judged(switched, "vm-passthrough"), "nvswitch")["problem"]
    other = judged(facts, "vm-vgpu", {"name": "n", "boot_id": "another"})
    assert rule(other, "identity")["verdict"] == "fail" and facts["host"]["boot_id"] in other["why"]
    off = read(BAD["iommu_kernel"][0])
    silent = preflight_verdicts(
        off, RULES, {"host": "h", "workload": "vm-passthrough", "reboot_ok": False}, {"boot_id": off["host"]["boot_id"]}
    )
    assert rule(silent, "reboot_allowed")["verdict"] == "warn"


def test_every_rule_has_a_host_that_breaks_it() -> None:
    assert {rule["id"] for rule in RULES} == {*BAD, "vgpu_kernel", "nvswitch", "identity", "reboot_allowed"}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_is_not_known_is_never_good(workload: str, tmp_path: Path) -> None:
    facts = _node.read(Host(str(tmp_path)))
    result = judged(facts, workload, {})
    by_name = {entry["id"]: entry for entry in result["rules"]}
    assert result["verdict"] == "fail"
    for definition in RULES:
        if workload in definition["workloads"] and definition.get("needs"):
            found = by_name[definition["id"]]
            assert found["verdict"] == "unknown"
            assert found["counts_as"] == definition.get("unknown", definition["severity"])
    assert "there is no" in by_name["gpu_present"]["problem"]


def test_what_this_run_repairs_will_be_fixed_and_counts_afterwards(read) -> None:
    facts = read(BAD["iommu_kernel"][0])
    before = judged(facts, "vm-passthrough", fixers=["kernel_cmdline"])
    assert (before["verdict"], rule(before, "iommu_kernel")["verdict"]) == ("will_fix", "will_fix")
    assert judged(facts, "vm-passthrough", fixers=[])["verdict"] == "fail"


SITE = {
    "id": "site_bios", "title": "BIOS", "workloads": ["container"], "severity": "fail", "query": "facts.firmware.bios_version != '9'",
    "problem": "BIOS is {facts.firmware.bios_version}", "remedy": "Update it",
}  # fmt: skip


def test_a_site_adds_replaces_and_silences_rules(read) -> None:
    facts = read(GOOD["container"])
    added = judged(facts, "container", site_rules=[SITE])
    assert (added["verdict"], added["why"]) == ("fail", "BIOS is 2.1.3")
    assert judged(facts, "container", site_rules=[SITE, {"id": "site_bios", "silence": "known"}])["verdict"] == "pass"
    replaced = judged(facts, "container", site_rules=[{**SITE, "id": "gpu_present"}])
    assert "BIOS is 2.1.3" in replaced["why"]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ([{**SITE, "query": "facts.["}], "no JMESPath"),
        ([{**SITE, "needs": ["a..b"]}], "no JMESPath"),
        ([{**SITE, "severity": "maybe"}], "severity is fail or warn"),
        ([{**SITE, "check": "x"}], "check is no field"),
        ([{"id": "x"}], "title is missing"),
        ([{"id": "nothing", "silence": "x"}], "there is none"),
        ([{"id": "gpu_present", "silence": " "}], "without a reason"),
        ([{**SITE, "query": "length(facts.host.nothing)"}], "fails on this host"),
    ],
)
def test_a_bad_rule_is_named(read, site: list[dict[str, t.Any]], words: str) -> None:
    with pytest.raises(ValueError, match="preflight rule") as caught:
        judged(read(GOOD["container"]), "container", site_rules=site)
    assert words in str(caught.value)


def test_the_verdict_can_be_shown_and_stored(read) -> None:
    result = judged(read(BAD["iommu_firmware"][0]), "vm-passthrough")
    assert json.loads(json.dumps(result)) == result
    assert "firmware" in result["why"]
    assert result["text"].startswith("Judging h as vm-passthrough: refused for 1 reason.")
    assert "Nothing was changed on this host" in result["text"]
    assert compiled_rules(RULES)[0]["id"] == "identity"
