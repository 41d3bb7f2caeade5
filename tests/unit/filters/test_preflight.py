# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How rules are judged, and each rule of the role by three hosts: one that it is about, one that it passes, one of which it cannot tell.

Whole hosts, built as trees, are judged in test_rules.py. Here single facts of a good one are changed, to those that no tree has.
"""

from __future__ import annotations

import copy
import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.preflight_verdicts import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _verdicts
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight._verdicts import compiled_rules, preflight_verdicts
from tests.hosts import tree

INTENT = {"host": "gpu01", "node": "gpu01", "workload": "vm-vgpu"}
WORST = ("pass", "warn", "will_fix", "fail")


def rule(**more):
    return {
        "id": "hot",
        "title": "No GPU is hot",
        "workloads": ["vm-vgpu"],
        "severity": "fail",
        "query": "facts.gpus[?hot].address",
        "problem": "GPU {offenders} is hot",
        "remedy": "Cool {facts.host.name}",
        **more,
    }


def facts(*hot, **more):
    return {"gpus": [{"address": f"gpu{number}", "hot": value} for number, value in enumerate(hot)], "host": {"name": "gpu01"}, **more}


def judge(data, *rules, intent=INTENT, **more):
    return preflight_verdicts(data, rules, intent=intent, **more)


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("data", "more", "fixers", "verdict", "counts_as"),
    [
        (facts(False), {}, (), "pass", "pass"),
        (facts(True), {}, (), "fail", "fail"),
        (facts(True), {"severity": "warn"}, (), "warn", "warn"),
        (facts(True), {"fixed_by": "fan"}, ["fan"], "will_fix", "will_fix"),
        (facts(True), {"fixed_by": "fan"}, ["pump"], "fail", "fail"),
        (facts(True), {}, ["fan"], "fail", "fail"),
        (facts(False), {"fixed_by": "fan"}, ["fan"], "pass", "pass"),
        ({}, {"needs": ["facts.gpus"]}, (), "unknown", "fail"),
        ({}, {"needs": ["facts.gpus"], "severity": "warn"}, (), "unknown", "warn"),
        ({}, {"needs": ["facts.gpus"], "unknown": "warn"}, (), "unknown", "warn"),
        ({}, {"needs": ["facts.gpus"], "unknown": "pass"}, (), "unknown", "pass"),
        # What is not known is not repaired either.
        ({}, {"needs": ["facts.gpus"], "fixed_by": "fan"}, ["fan"], "unknown", "fail"),
        (facts(False, None), {"needs": ["map(&hot, facts.gpus)"]}, (), "unknown", "fail"),
        ({}, {"needs": ["map(&hot, facts.gpus)"]}, (), "unknown", "fail"),
        (facts(False), {"needs": ["map(&hot, facts.gpus)"]}, (), "pass", "pass"),
        (facts(), {"needs": ["map(&hot, facts.gpus)"]}, (), "pass", "pass"),
        (facts(), {"query": "facts.host.name == 'gpu01'"}, (), "fail", "fail"),
        (facts(), {"query": "facts.host.name == intent.node && node.name == 'n'"}, (), "fail", "fail"),
    ],
)
def test_the_verdict_of_a_rule_is_that_of_the_host(data, more, fixers, verdict, counts_as):
    found = judge(data, rule(**more), node={"name": "n"}, fixers=fixers)
    assert (found["rules"][0]["verdict"], found["rules"][0]["counts_as"], found["verdict"]) == (verdict, counts_as, counts_as)


def test_a_finding_names_offenders_and_what_to_do():
    found = judge(facts(True, False, True), rule())
    assert (found["rules"][0]["problem"], found["rules"][0]["remedy"]) == ("GPU gpu0, gpu2 is hot", "Cool gpu01")
    assert found["rules"][0]["offenders"] == ["gpu0", "gpu2"]


def test_a_placeholder_without_a_value_reads_unknown():
    found = judge(facts(True), rule(problem="{facts.host.vendor} {facts.gpus[*].address} {facts.host.name}"))
    assert found["why"] == "unknown gpu0 gpu01"


def test_rules_of_other_workloads_are_not_asked():
    found = judge(facts(True), rule(workloads=["container"]))
    assert (found["verdict"], found["rules"]) == ("pass", [])


@pytest.mark.parametrize("intent", [None, {}, {"workload": None}, {"workload": "vm-magic"}])
def test_a_host_without_a_workload_is_an_error_and_no_pass(intent):
    with pytest.raises(ValueError, match="workload"):
        judge(facts(True), rule(), intent=intent)


@pytest.mark.parametrize(
    ("path", "reasons", "said"),
    [
        ("facts.gpus", {"gpus": "no sysfs"}, "facts.gpus (no sysfs)"),
        ("map(&hot, facts.gpus)", {"gpus.0000:41:00.0.hot": "asleep", "gpus.0000:41:00.0.mig": "other"}, "map(&hot, facts.gpus) (asleep)"),
        ("facts.host_driver.present", {"host.present": "of the host"}, "known: facts.host_driver.present"),
        ("facts.gone", {}, "facts.gone"),
    ],
)
def test_an_unknown_rule_says_why_its_facts_are_not_known(path, reasons, said):
    found = judge({"gpus": None, "unknown": reasons}, rule(needs=[path]))
    assert found["rules"][0]["problem"].endswith(said)


SEVERITIES = st.lists(st.tuples(st.sampled_from(["fail", "warn"]), st.booleans(), st.booleans()), max_size=6)


@given(SEVERITIES)
def test_the_worst_rule_decides_and_repairs_never_excuse_a_failure(kinds):
    rules = [
        rule(id=f"r{number}", severity=severity, query=f"`{str(bad).lower()}`", fixed_by="fan" if fixed else None)
        for number, (severity, bad, fixed) in enumerate(kinds)
    ]
    before, after = judge(facts(), *rules, fixers=["fan"]), judge(facts(), *rules)
    expected = ["will_fix" if fixed else severity for severity, bad, fixed in kinds if bad]
    assert before["verdict"] == max(expected, key=WORST.index, default="pass")
    assert after["verdict"] == max((severity for severity, bad, _ in kinds if bad), key=WORST.index, default="pass")
    for found in (before, after):
        assert bool(found["why"]) == (found["verdict"] == "fail") == ("refused" in found["text"])
        assert [entry["id"] for entry in found["rules"]] == [entry["id"] for entry in rules]


# ------------------------------------------------------------------ the text


def test_the_text_shows_what_matters_and_nothing_else():
    found = judge(facts(True), rule(), rule(id="fine", query="`false`"), rule(id="meh", severity="warn", problem="Dusty"))
    assert found["text"].splitlines() == [
        "Judging gpu01 as vm-vgpu: refused for 1 reason.",
        "- fail      hot  GPU gpu0 is hot. Cool gpu01",
        "- warn      meh  Dusty. Cool gpu01",
        "Nothing was changed on this host. The other hosts go on.",
    ]
    assert found["why"] == "GPU gpu0 is hot"


def test_a_good_host_gets_one_line():
    assert judge(facts(False), rule())["text"] == "Judging gpu01 as vm-vgpu: nothing stands in the way."


# ------------------------------------------------------------------ rules of the site


def test_a_site_adds_replaces_and_silences():
    own = [rule(id="new", severity="warn"), rule(severity="warn"), {"id": "loud", "silence": "we know"}]
    found = judge(facts(True), rule(), rule(id="loud"), site_rules=own)
    assert {entry["id"]: entry["verdict"] for entry in found["rules"]} == {"hot": "warn", "loud": "silenced", "new": "warn"}
    assert found["verdict"] == "warn"
    assert "we know" in next(entry for entry in found["rules"] if entry["id"] == "loud")["problem"]


def test_a_rule_that_cannot_be_told_can_be_silenced():
    found = judge({}, rule(needs=["facts.gpus"]), site_rules=[{"id": "hot", "silence": "no sensors"}])
    assert found["verdict"] == "pass"


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"id": "gone", "silence": "x"}, ["'gone'", "there is none"]),
        ({"id": "hot", "silence": " "}, ["'hot'", "without a reason"]),
        ({"id": "hot", "silence": None}, ["'hot'", "without a reason"]),
        ({"id": "hot", "silence": "x", "severity": "warn"}, ["'hot'", "no other field"]),
        (rule(id="mine", query="facts.gpus[?"), ["'mine'", "JMESPath"]),
        (rule(id="mine", needs=["facts..gpus"]), ["'mine'", "JMESPath"]),
        (rule(id="mine", severity="maybe"), ["'mine'", "severity"]),
        (rule(id="mine", needs=["facts.gpus"], unknown="maybe"), ["'mine'", "unknown"]),
        (rule(id="mine", remedy=""), ["'mine'", "remedy is missing"]),
        (rule(id="mine", when="facts.gpus"), ["'mine'", "when is no field"]),
        (rule(id="mine", workloads="vm-vgpu"), ["'mine'", "workloads", "vm-vgpu"]),
        (rule(id="mine", workloads=["vm_vgpu"]), ["'mine'", "workloads", "vm_vgpu"]),
        (rule(id="mine", needs="facts.gpus"), ["'mine'", "needs is a list"]),
        ({"title": "nameless"}, ["(without id)", "id is missing"]),
        ("silence: everything", ["mapping", "silence: everything"]),
        (rule(id="mine", query="length(facts.host.age)"), ["'mine'", "fails on this host"]),
    ],
)
def test_a_wrong_rule_is_named_and_judges_nobody(site, words):
    with pytest.raises(ValueError) as caught:
        judge(facts(False), rule(), site_rules=[site])
    for word in words:
        assert word in str(caught.value)


def test_a_rule_of_another_workload_is_checked_all_the_same():
    with pytest.raises(ValueError, match="'mine'"):
        compiled_rules([rule(id="mine", workloads=["container"], query="[")])


# ------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("left", "right", "older"),
    [
        ("5.15.0-119-generic", "6.0", True),
        ("5.9", "5.15", True),
        ("6.0.0-1", "6.0", False),
        ("6", "6.0", False),
        ("6.0", "6.0.1", True),
        ("5.14.0-427.el9_4.x86_64", "5.14", False),
        ("10.1", "9.9", False),
    ],
)
def test_versions_are_compared_as_numbers(left, right, older):
    assert judge(facts(), rule(query=f"version_lt('{left}', '{right}')"))["verdict"] == ("fail" if older else "pass")


NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=4).map(lambda numbers: ".".join(map(str, numbers)))


@given(NUMBERS, NUMBERS)
def test_of_two_versions_at_most_one_is_older(left, right):
    assert not (_verdicts._older(left, right) and _verdicts._older(right, left))
    assert not _verdicts._older(left, left)


# ------------------------------------------------------------------ as a filter


def test_the_filter_fails_with_a_sentence():
    run = FilterModule().filters()["preflight_verdicts"]
    with pytest.raises(AnsibleFilterError, match="preflight_verdicts: preflight rule 'hot': query is missing"):
        run(facts(), [rule(query="")], intent=INTENT)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(_verdicts, "MISSING", "No module named 'jmespath'")
    with pytest.raises(ValueError, match="Python package jmespath is missing"):
        judge(facts(), rule())


def test_values_as_ansible_reads_them_from_files_are_judged(tmp_path):
    file = tmp_path / "facts.yml"
    file.write_text("gpus: [{address: gpu0, bars: [16, 8]}]\nhost: {name: gpu01}\nworkload: vm-vgpu\n", encoding="utf-8")
    read = DataLoader().load_from_file(str(file))
    assert type(read["workload"]) is not str, "the loader gives plain strings; this test proves nothing"
    found = judge(read, rule(query="facts.gpus[?max(bars) < `17`].join('', [address])"), intent={**INTENT, "workload": read["workload"]})
    assert found["why"] == "GPU gpu0 is hot"
    assert type(found["why"]) is str


# ------------------------------------------------------------------ the role's own rules

RULES = yaml.safe_load((pathlib.Path(__file__).parents[3] / "roles/preflight/vars/main.yml").read_text(encoding="utf-8"))[
    "__preflight_rules"
]
SECOND = "0000:a1:00.0"
#: The registers of an H100: the first has 64 bits, so that the memory's is the third.
HOPPER = [16 << 20, 0, 128 << 30, 0, 32 << 20, 0]
NO_MEMORY = [16 << 20, 0, 0, 32 << 20, 0, 0]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("host")
    tree.build(root, tree.HostSpec(tree.a10s(), cmdline="intel_iommu=on"))
    return _node.read(Host(str(root)))


def by_rule(host, workload, changes, fixers=()):
    """Verdicts of a good host with these paths replaced; a number in a path is the place in a list."""
    data = {
        "facts": copy.deepcopy(host),
        "intent": {"host": "gpu01", "node": "gpu01", "reboot_ok": True, "workload": workload},
        "node": {"name": "gpu01", "boot_id": host["host"]["boot_id"]},
    }
    for path, value in changes.items():
        *way, last = path.split("/")
        place = data
        for word in way:
            place = place[int(word) if word.isdigit() else word]
        place[last] = value
    found = preflight_verdicts(data["facts"], RULES, intent=data["intent"], node=data["node"], fixers=fixers)
    return {entry["id"]: entry for entry in found["rules"]}


NO_SYSFS = {"facts/gpus": None}
OFF_IN_FIRMWARE = {"facts/iommu/enabled": False, "facts/firmware/dmar": False, "facts/firmware/ivrs": False}
OFF_IN_KERNEL = {"facts/iommu/enabled": False, "facts/firmware/dmar": True}
OFF_IN_KERNEL_AMD = {"facts/iommu/enabled": False, "facts/firmware/dmar": False, "facts/firmware/ivrs": True}
NO_TABLES = {"facts/iommu/enabled": False, **{f"facts/firmware/{name}": None for name in ("dmar", "ivrs", "iort", "viot")}}
DRIVER = {"facts/host_driver": {"present": True, "kind": "datacenter", "version": None, "source": ["/usr/bin/nvidia-smi"]}}
UNSURE_DRIVER = {"facts/host_driver/present": None}
SIGN = {"facts/kernel_log": [{"signature": "flr_failed", "count": 1, "line": "x"}]}


def neighbour(driver, foreign):
    blocker = {"address": "0000:41:01.0", "class": "0200", "driver": driver, "foreign": foreign}
    return {"facts/groups": {"28": {"members": ["0000:41:00.0", "0000:41:01.0"], "viable": False, "blockers": [blocker]}}}


# Rule, workload, facts that trigger it, a word of its message, facts that it passes, facts of which it cannot tell, what that counts as.
CASES = [
    ("identity", "container", {"node/boot_id": "other"}, "other", {}, {"node/boot_id": None}, "fail"),
    ("identity", "vm-vgpu", {"facts/host/boot_id": "other"}, "other", {}, {"facts/host/boot_id": None}, "fail"),
    ("gpu_present", "container", {"facts/gpus": []}, "no NVIDIA GPU", {}, NO_SYSFS, "fail"),
    ("fell_off_bus", "container", {"facts/gpus/1/fell_off_bus": True}, SECOND, {}, {"facts/gpus/0/fell_off_bus": None}, "warn"),
    ("power_state", "vm-vgpu", {"facts/gpus/1/power_state": "D3cold"}, SECOND, {"facts/gpus/1/power_state": "D3hot"},
     {"facts/gpus/0/power_state": None}, "pass"),
    ("iommu_firmware", "vm-passthrough", OFF_IN_FIRMWARE, "firmware", OFF_IN_KERNEL, NO_TABLES, "fail"),
    ("iommu_firmware", "vm-vgpu", OFF_IN_FIRMWARE, "firmware", OFF_IN_KERNEL_AMD, {"facts/iommu/enabled": None}, "fail"),
    ("iommu_kernel", "vm-passthrough", OFF_IN_KERNEL, "running kernel", OFF_IN_FIRMWARE, NO_TABLES, "fail"),
    ("iommu_kernel", "vm-vgpu", OFF_IN_KERNEL, "running kernel", OFF_IN_KERNEL_AMD, {"facts/iommu/enabled": None}, "fail"),
    ("iommu_kernel_other", "vm-passthrough", OFF_IN_KERNEL_AMD, "running kernel", OFF_IN_KERNEL, NO_TABLES, "fail"),
    ("reboot_allowed", "vm-passthrough", {**OFF_IN_KERNEL, "intent/reboot_ok": False}, "reboot", OFF_IN_KERNEL, NO_TABLES, "warn"),
    ("group_foreign", "vm-passthrough", neighbour("igb", True), "0000:41:01.0 on driver igb", neighbour("snd_hda_intel", False),
     {"facts/groups": None}, "fail"),
    ("driver_on_host", "vm-passthrough", DRIVER, "/usr/bin/nvidia-smi", {}, UNSURE_DRIVER, "fail"),
    ("driver_on_host", "vm-vgpu", DRIVER, "/usr/bin/nvidia-smi", {}, UNSURE_DRIVER, "fail"),
    ("driver_on_host_container", "container", DRIVER, "/usr/bin/nvidia-smi", {}, UNSURE_DRIVER, "warn"),
    ("other_driver", "vm-vgpu", {"facts/gpus/1/driver": "nouveau"}, f"{SECOND} on nouveau", {"facts/gpus/1/driver": "nvidia"}, NO_SYSFS,
     "fail"),
    ("other_driver", "vm-passthrough", {"facts/gpus/1/driver": "nvidiafb"}, "nvidiafb", {"facts/gpus/1/driver": "vfio-pci"}, NO_SYSFS,
     "fail"),
    ("other_driver_container", "container", {"facts/gpus/1/driver": "nvidiafb"}, "nvidiafb", {}, NO_SYSFS, "warn"),
    ("boot_vga", "vm-passthrough", {"facts/gpus/1/boot_vga": True}, SECOND, {}, NO_SYSFS, "fail"),
    ("bar_size", "vm-passthrough", {"facts/gpus/1/bars": NO_MEMORY}, SECOND, {"facts/gpus/1/bars": HOPPER}, {"facts/gpus/1/bars": None},
     "fail"),
    ("bar_size", "vm-vgpu", {"facts/gpus/1/bars": [16 << 20, 0, 0, 0, 32 << 20, 0]}, SECOND, {}, NO_SYSFS, "fail"),
    ("sriov", "vm-vgpu", {"facts/gpus/1/sriov/total": None}, SECOND, {"facts/gpus/1/sriov/total": 0}, NO_SYSFS, "warn"),
    ("vendor_vfio", "vm-vgpu", {"facts/gpus/1/vgpu/backend": "vendor_vfio"}, SECOND, {"facts/gpus/1/vgpu/backend": "mdev"}, NO_SYSFS, "fail"),
    ("vgpu_kernel", "vm-vgpu", {"facts/host/kernel": "6.0.0-1-generic"}, "6.0.0-1-generic", {"facts/host/kernel": "5.19.99"},
     {"facts/host/kernel": None}, "fail"),
    ("secure_boot", "vm-vgpu", {"facts/host/secure_boot": True}, "Secure Boot", {}, {"facts/host/secure_boot": None}, "warn"),
    ("secure_boot", "container", {"facts/host/secure_boot": True}, "Secure Boot", {"facts/host/secure_boot": True, **DRIVER},
     {"facts/host/secure_boot": None}, "warn"),
    ("nvswitch", "vm-passthrough", {"facts/nvswitches": [{"address": "0000:05:00.0"}]}, "0000:05:00.0", {}, {"facts/nvswitches": None}, "warn"),
    ("virtualised", "vm-passthrough", {"facts/host/virtualised": True}, "virtual machine", {}, {"facts/host/virtualised": None}, "pass"),
    ("kernel_log", "container", SIGN, "flr_failed", {}, {"facts/unknown/kernel_log": "there is no /dev/kmsg"}, "warn"),
]  # fmt: skip
EACH = pytest.mark.parametrize(("name", "workload", "bad", "word", "fine", "dark", "counts"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])


@EACH
def test_a_rule_names_what_it_is_about(good, name, workload, bad, word, fine, dark, counts):
    found = by_rule(good, workload, bad)[name]
    assert found["verdict"] == next(entry["severity"] for entry in RULES if entry["id"] == name)
    assert word in found["problem"]
    for text in (found["problem"], found["remedy"]):
        assert text and "{" not in text and "None" not in text


@EACH
def test_a_rule_passes_the_host_that_it_is_not_about(good, name, workload, bad, word, fine, dark, counts):
    for changes in ({}, fine):
        assert by_rule(good, workload, changes)[name]["verdict"] == "pass"


@EACH
def test_a_rule_says_what_it_cannot_tell(good, name, workload, bad, word, fine, dark, counts):
    found = by_rule(good, workload, dark)[name]
    assert (found["verdict"], found["counts_as"]) == ("unknown", counts)
    assert "cannot be told" in found["problem"]


def test_every_rule_has_its_three_hosts_and_a_name_of_its_own():
    assert sorted({case[0] for case in CASES}) == sorted(entry["id"] for entry in RULES)


def test_a_container_host_needs_no_iommu(good):
    assert {entry["verdict"] for entry in by_rule(good, "container", OFF_IN_FIRMWARE).values()} == {"pass"}


def test_an_iommu_that_works_needs_no_acpi_table_to_prove_it(good):
    assert {entry["verdict"] for entry in by_rule(good, "vm-passthrough", {**NO_TABLES, "facts/iommu/enabled": True}).values()} == {"pass"}


def test_only_what_a_kernel_argument_can_mend_will_be_fixed(good):
    for changes, name, verdict in (
        (OFF_IN_KERNEL, "iommu_kernel", "will_fix"),
        (OFF_IN_KERNEL_AMD, "iommu_kernel_other", "fail"),
        (OFF_IN_FIRMWARE, "iommu_firmware", "fail"),
    ):
        assert by_rule(good, "vm-passthrough", changes, ["kernel_cmdline"])[name]["verdict"] == verdict


def test_a_gpu_that_sleeps_warns_and_does_not_refuse_the_host(good):
    found = by_rule(good, "vm-passthrough", {"facts/gpus/0/power_state": "D3cold", "facts/gpus/0/fell_off_bus": None})
    assert {entry["counts_as"] for entry in found.values()} == {"pass", "warn"}
