# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each of the collection's own rules by three hosts: one that it is about, one that it passes, one of which it cannot tell.

The hosts are good ones whose facts are changed one by one. What the facts of whole trees come to is judged at the end.
"""

from __future__ import annotations

import copy
import functools
import re
import typing as t
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _installs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _data
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight._verdicts import preflight_verdicts
from tests.hosts import tree
from tests.hosts.tree import Gpu, HostSpec, a10s

WORKLOADS = ("container", "vm-passthrough", "vm-vgpu")
ROLE = Path(__file__).parents[3] / "roles" / "preflight"
RULES = {rule["id"]: rule for rule in _data.own_rules()}

FIRST, SECOND = "0000:41:00.0", "0000:a1:00.0"
#: The registers of an H100: the first has 64 bits, so that the memory's is the third.
HOPPER = [16 << 20, 0, 128 << 30, 0, 32 << 20, 0]
NO_MEMORY = [16 << 20, 0, 0, 32 << 20, 0, 0]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory):
    def go(spec: HostSpec) -> dict[str, t.Any]:
        root = tmp_path_factory.mktemp("hosts") / "h"
        tree.build(root, copy.deepcopy(spec))
        return _node.read(Host(str(root)))

    return go


@pytest.fixture(scope="module")
def good(read):
    return read(HostSpec(a10s(), cmdline="intel_iommu=on", blocked=["nouveau"]))


def seen(facts: dict[str, t.Any], workload: str, **more: t.Any) -> dict[str, t.Any]:
    """All that a rule can look at, of a good host in a good cluster."""
    boot_id = (facts.get("host") or {}).get("boot_id")
    return {
        "facts": copy.deepcopy(facts),
        "intent": {"host": "h", "node": "n", "owner": "operator", "reboot_ok": True, "workload": workload},
        "node": {
            "name": "n",
            "boot_id": boot_id,
            "labels": {"nvidia.com/gpu.deploy.driver": "true"},
            "workload": workload,
            "used": {},
            "operands": [],
            "at_work": [],
        },
        "cluster": {
            "cluster": {"uid": "u", "server": "https://127.0.0.1:6443"},
            "cluster_policy": {"name": "cluster-policy", "default_workload": "container"},
            "release": {"name": "gpu-operator", "chart": "gpu-operator", "version": "v26.7.0"},
            "kubevirt": {"name": "kubevirt", "version": "v1.7.0", "owner": None},
        },
        "wanted": {"gpu_count": "", "signed_driver": False, "vgpu_run_file": "", "vgpu_version": ""},
        **more,
    }


def judged(data: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return preflight_verdicts(**data, **more)


def by_rule(host: dict[str, t.Any], workload: str, changes: dict[str, t.Any], **more: t.Any) -> dict[str, dict[str, t.Any]]:
    """Verdicts of a good host with these paths replaced; a number in a path is the place in a list."""
    data = seen(host, workload)
    for path, value in changes.items():
        *way, last = path.split("/")
        place = functools.reduce(lambda at, word: at[int(word) if word.isdigit() and isinstance(at, list) else word], way, data)
        place[last] = value
    return {entry["id"]: entry for when in ("before", "after") for entry in judged(data, when=when, **more)["rules"]}


# ------------------------------------------------------------------ three hosts for every rule

NO_SYSFS = {"facts/gpus": None}
NO_NODE: dict[str, t.Any] = {"node": {}}
NO_CLUSTER: dict[str, t.Any] = {"cluster": {}}
OFF_IN_FIRMWARE = {"facts/iommu/enabled": False, "facts/firmware/dmar": False, "facts/firmware/ivrs": False}
OFF_IN_KERNEL = {"facts/iommu/enabled": False, "facts/firmware/dmar": True}
OFF_IN_KERNEL_AMD = {"facts/iommu/enabled": False, "facts/firmware/dmar": False, "facts/firmware/ivrs": True}
NO_TABLES = {"facts/iommu/enabled": False, **{f"facts/firmware/{name}": None for name in ("dmar", "ivrs", "iort", "viot")}}
DRIVER = {"facts/host_driver": {"present": True, "kind": "datacenter", "version": "580.95.05", "source": ["/usr/bin/nvidia-smi"]}}
MANAGER = {"facts/host_driver": {"present": True, "kind": "vgpu_host", "version": "580.95.05", "source": ["/usr/bin/nvidia-vgpud"]}}
UNSURE_DRIVER = {"facts/host_driver/present": None}
NO_BOOT = {"facts/boot/pending": None}
NO_LOG = {"facts/unknown/kernel_log": "there is no /dev/kmsg"}
H100 = {"facts/gpus/1/vendor_device": "10DE:2331"}
V100 = {"facts/gpus/1/vendor_device": "10DE:1DB4"}
UNLISTED = {"facts/gpus/1/vendor_device": "10DE:FFFF"}
NO_VFS = {"facts/gpus/1/sriov/total": None}
MIG = {"facts/gpus/1/mig": {"mode": "enabled", "instances": 2}}
A_VM = {"nvidia.com/GA102GL_A10": [{"namespace": "shop", "pod": "virt-launcher-x", "vmi": "web", "count": 1}]}
A_POD = {"nvidia.com/gpu": [{"namespace": "lab", "pod": "train", "vmi": None, "count": 1}]}
HOST_OWNED = {"intent/owner": "host"}
OPERANDS = ["vgpu-device-manager", "vgpu-manager"]
NEWER = "5.15.0-200-generic"
OTHER_KERNEL = {"facts/kernels/newest": NEWER}


def sign(name: str) -> dict[str, t.Any]:
    return {"facts/kernel_log": [{"signature": name, "count": 1, "line": f"the kernel said {name}"}]}


def neighbour(driver: str, foreign: bool, kind: str = "0200") -> dict[str, t.Any]:
    blocker = {"address": "0000:41:01.0", "class": kind, "driver": driver, "foreign": foreign}
    return {"facts/groups": {"28": {"members": [FIRST, "0000:41:01.0"], "viable": False, "blockers": [blocker]}}}


DEPLOY = "nvidia.com/gpu.deploy."
# Rule, workload, facts that trigger it, a word of its message, facts that it passes, facts of which it cannot tell.
CASES: list[tuple[str, str, dict[str, t.Any], str, dict[str, t.Any], dict[str, t.Any]]] = [
    ("identity", "container", {"node/boot_id": "other"}, "other", {}, {"node/boot_id": None}),
    ("identity", "vm-vgpu", {"facts/host/boot_id": "other"}, "other", {}, {"facts/host/boot_id": None}),
    ("identity", "vm-passthrough", {"node/boot_id": "other"}, "other", {}, NO_NODE),
    ("label_workload", "container", {"node/workload": "vm-passtrough"}, "vm-passtrough", {"node/workload": None}, NO_NODE),
    ("node_at_work", "vm-vgpu", {"node/at_work": ["nvidia-vgpu-device-manager"]}, "nvidia-vgpu-device-manager", {}, NO_NODE),
    ("label_paused", "vm-vgpu", {"node/labels": {DEPLOY + "sandbox-validator": "paused-for-vgpu-change"}}, "validator=paused-for-vgpu-change",
     {"node/labels": {DEPLOY + "sandbox-validator": ""}}, NO_NODE),
    # Those of another workload keep nothing from this one, and nobody sets them free.
    ("label_paused", "container", {"node/labels": {DEPLOY + "device-plugin": "true_paused-for-driver-upgrade"}}, "paused",
     {"node/labels": {DEPLOY + "sandbox-validator": "paused-for-vgpu-change", "a": "paused-for-x"}}, {"node/labels": None}),
    ("workload_in_use", "vm-vgpu", {"node/workload": "vm-passthrough", "node/used": A_VM}, "shop/web", {"node/used": A_VM}, {"node/used": None}),
    ("workload_in_use", "vm-passthrough", {"node/workload": None, "node/used": A_POD}, "lab/train", {"node/workload": None}, NO_NODE),
    ("workload_in_use", "vm-vgpu", {"node/workload": None, "node/used": A_VM}, "shop/web",
     {**HOST_OWNED, "node/workload": None, "node/used": A_VM}, {"node/used": None}),
    ("workload_in_use", "container", {"node/workload": "vm-vgpu", "node/used": A_VM}, "shop/web", {"node/workload": None, "node/used": A_POD},
     {"node/workload": None, "cluster": {}}),
    ("two_owners", "vm-vgpu", {**HOST_OWNED, "node/operands": OPERANDS}, "vgpu-manager", {"node/operands": OPERANDS},
     {**HOST_OWNED, "node/operands": None}),
    ("two_owners", "container", {**HOST_OWNED, "node/operands": OPERANDS}, "vgpu-manager", HOST_OWNED, NO_NODE),
    ("two_owners", "vm-passthrough", {**HOST_OWNED, "node/operands": OPERANDS}, "vgpu-manager", HOST_OWNED, NO_NODE),
    ("gpu_present", "container", {"facts/gpus": []}, "no NVIDIA GPU", {}, NO_SYSFS),
    ("gpu_count", "container", {"wanted/gpu_count": "3"}, "the 3 GPUs", {"wanted/gpu_count": 2}, NO_SYSFS),
    ("gpu_known", "vm-vgpu", UNLISTED, f"{SECOND} is 10DE:FFFF", H100, NO_SYSFS),
    ("fell_off_bus", "container", {"facts/gpus/1/fell_off_bus": True}, SECOND, {}, {"facts/gpus/0/fell_off_bus": None}),
    ("power_state", "vm-vgpu", {"facts/gpus/1/power_state": "D3cold"}, SECOND, {"facts/gpus/1/power_state": "D3hot"},
     {"facts/gpus/0/power_state": None}),
    ("boot_vga", "vm-passthrough", {"facts/gpus/1/boot_vga": True}, SECOND, {}, NO_SYSFS),
    ("mig_left_on", "vm-passthrough", {"node/workload": "container", **H100, **MIG}, SECOND, {"node/workload": "container"},
     {"node/workload": None, **H100}),
    ("nvswitch", "vm-passthrough", {"facts/nvswitches": [{"address": "0000:05:00.0"}]}, "0000:05:00.0", {}, {"facts/nvswitches": None}),
    ("iommu_firmware", "vm-passthrough", OFF_IN_FIRMWARE, "firmware", OFF_IN_KERNEL, NO_TABLES),
    ("iommu_firmware", "vm-vgpu", OFF_IN_FIRMWARE, "firmware", OFF_IN_KERNEL_AMD, {"facts/iommu/enabled": None}),
    ("iommu_kernel", "vm-passthrough", OFF_IN_KERNEL, "running kernel", OFF_IN_FIRMWARE, NO_TABLES),
    ("iommu_kernel", "vm-vgpu", OFF_IN_KERNEL, "running kernel", OFF_IN_KERNEL_AMD, {"facts/iommu/enabled": None}),
    ("iommu_kernel_other", "vm-passthrough", OFF_IN_KERNEL_AMD, "running kernel", OFF_IN_KERNEL, NO_TABLES),
    ("reboot_allowed", "vm-passthrough", {**OFF_IN_KERNEL, "intent/reboot_ok": False}, "reboot", OFF_IN_KERNEL, NO_TABLES),
    ("reboot_allowed", "vm-vgpu", {"facts/gpus/1/driver": "nouveau", "intent/reboot_ok": False}, "reboot", {"facts/gpus/1/driver": "nouveau"},
     NO_SYSFS),
    ("iommu_groups", "vm-passthrough", {"facts/gpus/1/iommu_group": None}, SECOND, {}, NO_SYSFS),
    ("arguments_running", "container", {"facts/boot/pending": ["iommu=pt"]}, "iommu=pt", {}, {"facts/boot/pending": None}),
    ("vfio_ids_at_boot", "vm-passthrough", {"facts/boot/pending": ["quiet", "vfio-pci.ids=8086:1533,10DE:2236"]}, "vfio-pci.ids=8086:1533,10DE:2236",
     {"facts/boot/pending": ["vfio-pci.ids=8086:1533", "xvfio-pci.ids=10de:2236", "vfio-pci.disable_vga=1"]}, NO_BOOT),
    ("vfio_ids_at_boot", "container", {"facts/boot/pending": ["vfio_pci.ids=10de:2236"]}, "vfio_pci.ids=10de:2236", {}, NO_BOOT),
    ("vfio_ids_at_boot", "vm-vgpu", {"facts/boot/pending": ['"vfio-pci.ids=(not shown)']}, "every device of these ids", {}, NO_BOOT),
    ("group_foreign", "vm-passthrough", neighbour("igb", True), "0000:41:01.0 on driver igb", neighbour("snd_hda_intel", False),
     {"facts/groups": None}),
    ("group_foreign_vgpu", "vm-vgpu", neighbour("igb", True), "0000:41:01.0 on driver igb", neighbour("snd_hda_intel", False),
     {"facts/groups": None}),
    ("group_shared", "vm-passthrough", {"facts/gpus/0/iommu_group": 7, "facts/gpus/1/iommu_group": 7}, "group 7", OFF_IN_KERNEL,
     {"facts/gpus/1/iommu_group": None}),
    ("companions", "vm-passthrough", neighbour("snd_hda_intel", False, "0403"), "0000:41:01.0 on driver snd_hda_intel",
     neighbour("nvidia", False, "0302"), {"facts/groups": None}),
    ("bar_size", "vm-passthrough", {"facts/gpus/1/bars": NO_MEMORY}, SECOND, {"facts/gpus/1/bars": HOPPER}, {"facts/gpus/1/bars": None}),
    ("bar_size", "vm-vgpu", {"facts/gpus/1/bars": [16 << 20, 0, 0, 0, 32 << 20, 0]}, SECOND, {}, NO_SYSFS),
    ("mmio_room", "vm-vgpu", sign("mmio_exhausted"), "the kernel said mmio_exhausted", {}, NO_LOG),
    ("sriov", "vm-vgpu", NO_VFS, SECOND, {**NO_VFS, **V100}, NO_SYSFS),
    ("display_mode", "vm-vgpu", {**NO_VFS, "facts/gpus/1/class": "0300"}, SECOND, {"facts/gpus/1/class": "0300"}, NO_SYSFS),
    ("virtualised", "vm-passthrough", {"facts/host/virtualised": True}, "virtual machine", {}, {"facts/host/virtualised": None}),
    ("driver_on_host", "vm-passthrough", DRIVER, "/usr/bin/nvidia-smi", {}, UNSURE_DRIVER),
    ("driver_on_host", "vm-vgpu", MANAGER, "/usr/bin/nvidia-vgpud", {**MANAGER, "intent/owner": "host"}, UNSURE_DRIVER),
    ("driver_on_host_container", "container", DRIVER, "/usr/bin/nvidia-smi", {}, UNSURE_DRIVER),
    ("driver_branch", "container", {**DRIVER, "facts/host_driver/version": "515.43.04", **H100}, SECOND, {**H100},
     {**DRIVER, "facts/host_driver/version": None}),
    ("vgpu_branch", "vm-vgpu", {"wanted/vgpu_version": "590.48.01", **V100}, SECOND, {"wanted/vgpu_version": "580.95.02", **V100}, NO_SYSFS),
    ("vgpu_dropped", "vm-vgpu", {"wanted/vgpu_version": "595.45.04", "facts/gpus/1/vendor_device": "10DE:1E78"}, SECOND,
     {"wanted/vgpu_version": "580.95.02", "facts/gpus/1/vendor_device": "10DE:1E78", **UNLISTED}, NO_SYSFS),
    ("installer_arch", "vm-vgpu", {"wanted/vgpu_run_file": "NVIDIA-Linux-aarch64-580.95.02-vgpu-kvm.run"}, "x86_64",
     {"wanted/vgpu_run_file": "NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run"}, {"facts/host/arch": None}),
    ("other_driver", "vm-vgpu", {"facts/gpus/1/driver": "nouveau"}, f"{SECOND} on nouveau", {"facts/gpus/1/driver": "nvidia"}, NO_SYSFS),
    ("other_driver", "vm-passthrough", {"facts/gpus/1/driver": "nvidiafb"}, "nvidiafb", {"facts/gpus/1/driver": "vfio-pci"}, NO_SYSFS),
    ("other_driver_container", "container", {"facts/gpus/1/driver": "NovaCore"}, "NovaCore", {}, NO_SYSFS),
    ("other_driver_at_boot", "vm-vgpu", {"facts/kernels/blocked": []}, "keeps nouveau from",
     {"facts/kernels/modules/nouveau": False, "facts/kernels/blocked": []}, {"facts/kernels/modules/nova_core": None}),
    ("other_driver_at_boot", "vm-passthrough", {"facts/kernels/modules/nova_core": True, "facts/kernels/modules/nvidiafb": True},
     "keeps nova_core, nvidiafb from", {}, {"facts/kernels/blocked": None}),
    ("vfio_module", "vm-passthrough", {"facts/modules/vfio_pci": False, "facts/kernels/modules/vfio_pci": False}, "vfio-pci",
     {"facts/modules/vfio_pci": False, "facts/kernels/modules/vfio_pci": True},
     {"facts/modules/vfio_pci": None, "facts/kernels/modules/vfio_pci": None}),
    ("mdev_module", "vm-vgpu", {"facts/kernels/modules/mdev": False}, "mdev",
     {"facts/modules/mdev": True, "facts/kernels/modules/mdev": None}, {"facts/kernels/modules/mdev": None}),
    ("vendor_vfio", "vm-vgpu", {"facts/gpus/1/vgpu/backend": "vendor_vfio"}, SECOND,
     {"facts/gpus/1/vgpu/backend": "vendor_vfio", "intent/owner": "host"}, NO_SYSFS),
    ("vendor_vfio_kubevirt", "vm-vgpu", {"facts/gpus/1/vgpu/backend": "vendor_vfio", "intent/owner": "host"}, "KubeVirt v1.7.0",
     {"facts/gpus/1/vgpu/backend": "vendor_vfio", "intent/owner": "host", "cluster/kubevirt/version": "v1.9.0"},
     {"intent/owner": "host", "cluster/kubevirt/version": None}),
    ("vgpu_profile", "vm-vgpu", {"intent/profile": "A40-4Q"}, f"{FIRST} (10DE:2236 has A10-4Q, ", {"intent/profile": "A10-4Q"}, NO_SYSFS),
    ("vgpu_profile", "vm-vgpu", {"intent/profile": "A10-4Q", "facts/gpus/1/vendor_device": "10DE:20B5"}, f"{SECOND} (10DE:20B5 has A100D-4C",
     {"intent/profile": None}, NO_SYSFS),
    ("vgpu_profile", "vm-vgpu", {"intent/profile": "A100-1-5C"}, "A10-4C", {"intent/profile": "default"}, NO_SYSFS),
    ("vgpu_profile", "vm-vgpu", {"intent/profile": "default", "facts/gpus/0/vendor_device": "10DE:25B6"}, "A16-8Q and A2-8Q",
     {"intent/profile": "no such profile"}, NO_SYSFS),
    ("vgpu_profile", "vm-vgpu", {"intent/profile": "A10-4Q", "facts/gpus/0/vendor_device": "10DE:2204"}, "no vGPU types that are known",
     {"intent/profile": "A40-4Q", "intent/owner": "host"}, NO_SYSFS),
    ("vgpu_kernel", "vm-vgpu", {"facts/host/kernel": "6.0.0-1-generic"}, "6.0.0-1-generic", {"facts/host/kernel": "5.19.99"},
     {"facts/host/kernel": None}),
    ("kernel_pending", "container", OTHER_KERNEL, NEWER, {}, {"facts/kernels/newest": None}),
    ("kernel_headers", "vm-vgpu", {**OTHER_KERNEL, "facts/kernels/headers": False}, tree.KERNEL, {"facts/kernels/headers": False},
     {"facts/kernels/headers": None}),
    ("kernel_headers", "container", {**OTHER_KERNEL, "facts/kernels/headers": False}, tree.KERNEL, OTHER_KERNEL, UNSURE_DRIVER),
    ("secure_boot", "vm-vgpu", {"facts/host/secure_boot": True}, "Secure Boot", {"facts/host/secure_boot": True, "wanted/signed_driver": True},
     {"facts/host/secure_boot": None}),
    ("secure_boot", "container", {"facts/host/secure_boot": True}, "Secure Boot", {"facts/host/secure_boot": True, **DRIVER},
     {"facts/host/secure_boot": None}),
    ("kernel_log", "container", sign("flr_failed"), "flr_failed", {}, NO_LOG),
    ("kubevirt_present", "vm-passthrough", {"cluster/kubevirt": None}, "no KubeVirt", {}, NO_CLUSTER),
    ("kubevirt_version", "vm-vgpu", {"cluster/kubevirt/version": "v0.58.1"}, "v0.58.1", {"cluster/kubevirt": None},
     {"cluster/kubevirt/version": None}),
    ("kubevirt_writer", "vm-vgpu", {"cluster/kubevirt/owner": "Argo CD"}, "Argo CD",
     {"cluster/kubevirt/owner": "HyperConverged kubevirt"}, NO_CLUSTER),
    ("operator_writer", "container", {"cluster/release": None}, "cluster-policy", {"cluster/release": None, "cluster/cluster_policy": None},
     NO_CLUSTER),
]  # fmt: skip
EACH = pytest.mark.parametrize(("name", "workload", "bad", "word", "fine", "dark"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])


@EACH
def test_a_rule_names_what_it_is_about(good, name, workload, bad, word, fine, dark):
    found = by_rule(good, workload, bad)[name]
    assert found["verdict"] == RULES[name]["severity"]
    assert word in found["problem"]
    for text in (found["problem"], found["remedy"]):
        assert text and "{" not in text and "None" not in text and "unknown" not in text


@EACH
def test_a_rule_passes_the_host_that_it_is_not_about(good, name, workload, bad, word, fine, dark):
    for changes in ({}, fine):
        assert by_rule(good, workload, changes)[name]["verdict"] == "pass"


@EACH
def test_a_rule_says_what_it_cannot_tell(good, name, workload, bad, word, fine, dark):
    found = by_rule(good, workload, dark)[name]
    expected = RULES[name].get("unknown", {"as": RULES[name]["severity"]})["as"]
    assert (found["verdict"], found["counts_as"]) == ("unknown", expected)
    assert "cannot be told" in found["problem"]


@EACH
def test_what_a_run_repairs_will_be_fixed_before_and_counts_after(good, name, workload, bad, word, fine, dark):
    repair = RULES[name].get("fixed_by")
    if repair is None:
        assert by_rule(good, workload, bad, fixers=["kernel_cmdline", "kernel_modules", "firmware"])[name]["verdict"] != "will_fix"
        return
    data = seen(good, workload)
    for path, value in bad.items():
        *way, last = path.split("/")
        functools.reduce(lambda at, word: at[int(word) if isinstance(at, list) else word], way, data)[last] = value
    before, after = (judged(data, fixers=[repair], when=when) for when in ("before", "after"))
    assert rule(before, name)["verdict"] == "will_fix"
    if RULES[name].get("when") != "before":
        assert rule(after, name)["verdict"] == RULES[name]["severity"]


def test_what_only_the_nodes_labels_mend_refuses_no_host_behind_its_reboot(good):
    """Nodes are labelled after the hosts are done, so a second judgement would lose the host for what the run is about to mend."""
    for name in (found["id"] for found in _data.own_rules() if found.get("fixed_by") == "node_labels" and found["severity"] == "fail"):
        assert name not in [entry["id"] for entry in judged(seen(good, "vm-vgpu"), when="after")["rules"]]


def rule(result: dict[str, t.Any], name: str) -> dict[str, t.Any]:
    return next(entry for entry in result["rules"] if entry["id"] == name)


def test_every_rule_has_its_three_hosts_and_a_name_of_its_own():
    assert sorted({case[0] for case in CASES}) == sorted(rule["id"] for rule in _data.own_rules())


def test_the_rules_are_what_their_schema_says():
    jsonschema.Draft202012Validator.check_schema(_data.schema())
    jsonschema.validate(_data.own_rules(), _data.schema(), cls=jsonschema.Draft202012Validator)


def test_the_repairs_that_rules_name_are_ones_that_a_run_can_make():
    repairs = {"firmware", "host_driver", "kernel_cmdline", "kernel_modules", "node_labels", "node_maintenance", "vfio_companions"}
    assert {rule["fixed_by"] for rule in RULES.values() if "fixed_by" in rule} == repairs
    readme = (ROLE / "README.md").read_text(encoding="utf-8")
    assert all(f"`{repair}`" in readme for repair in repairs)


# ------------------------------------------------------------------ rules together


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
        data = seen(good, "vm-passthrough")
        data["facts"]["iommu"]["enabled"] = False
        data["facts"]["firmware"].update({path.rpartition("/")[2]: value for path, value in changes.items() if "firmware" in path})
        assert rule(judged(data, fixers=["kernel_cmdline"]), name)["verdict"] == verdict


def test_a_gpu_that_sleeps_warns_and_does_not_refuse_the_host(good):
    found = by_rule(good, "vm-passthrough", {"facts/gpus/0/power_state": "D3cold", "facts/gpus/0/fell_off_bus": None})
    assert {entry["counts_as"] for entry in found.values()} == {"pass", "warn"}


# ------------------------------------------------------------------ facts that are partly not there

NAMES = st.sampled_from([
    "gpus", "groups", "host", "iommu", "firmware", "kernels", "modules", "host_driver", "kernel_log", "nvswitches", "unknown", "boot",
    "enabled", "dmar", "boot_id", "present", "version", "driver", "known", "class", "sriov", "bars", "mig", "blockers", "labels", "used", "name",
])  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-1, 99) | st.sampled_from(["", "0300", "10DE:2236", "nvidia", "5.15", "container", "{x}"])
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(NAMES, ANY, max_size=8), st.dictionaries(NAMES, ANY, max_size=4), ANY, st.sampled_from(WORKLOADS))
def test_any_facts_at_all_give_a_verdict_and_no_error(facts, node, cluster, workload):
    for when in ("before", "after"):
        found = preflight_verdicts(
            facts, {"host": "h", "workload": workload}, node, cluster if isinstance(cluster, dict) else {}, when=when
        )
        assert found["verdict"] in ("pass", "warn", "fail")


def leaves(value: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from leaves(entry, (*path, key))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from leaves(entry, (*path, number))
    if path:
        yield path


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), st.sampled_from(WORKLOADS))
def test_a_rule_whose_needs_are_null_never_passes(good, draw, workload):
    """Some of what is seen is made null. Each rule that needs one of these plain paths says that it cannot tell."""
    whole = seen(good, workload)
    data = copy.deepcopy(whole)
    for top in ("facts", "node", "cluster"):
        gone = draw.draw(st.lists(st.sampled_from(sorted(leaves(whole[top]), key=str)), max_size=6))
        for path in gone:
            place = functools.reduce(lambda at, key: at[key] if at and (isinstance(at, list) or key in at) else None, path[:-1], data[top])
            if place:
                place[path[-1]] = None
    for when in ("before", "after"):
        for entry in judged(data, when=when)["rules"]:
            for need in RULES[entry["id"]]["needs"]:
                if re.fullmatch(r"[\w.]+", need) and at(data, need) is None:
                    assert entry["verdict"] == "unknown", (entry["id"], need)
                mapped = re.fullmatch(r"map\(&(\w+), ([\w.]+)\)", need)
                if mapped and any(each.get(mapped[1]) is None for each in at(data, mapped[2]) or [] if each is not None):
                    assert entry["verdict"] == "unknown", (entry["id"], need)


def at(data: t.Any, path: str) -> t.Any:
    return functools.reduce(lambda here, key: here.get(key) if isinstance(here, dict) else None, path.split("."), data)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_of_an_empty_host_nothing_passes_that_needs_a_fact(workload, tmp_path: Path):
    facts = _node.read(Host(str(tmp_path)))
    for when in ("before", "after"):
        result = judged(seen(facts, workload, node={}, cluster={}), when=when)
        assert result["verdict"] == "fail"
        for entry in result["rules"]:
            assert entry["verdict"] == "unknown", entry
            assert entry["counts_as"] == RULES[entry["id"]].get("unknown", {"as": RULES[entry["id"]]["severity"]})["as"]
        assert "there is no" in rule(result, "gpu_present" if when == "before" else "identity")["problem"]


# ------------------------------------------------------------------ whole hosts

ON = "intel_iommu=on"
GOOD = {
    "container": HostSpec(a10s()),
    "vm-passthrough": HostSpec(a10s(), cmdline=ON, blocked=["nouveau"]),
    "vm-vgpu": HostSpec(a10s(driver="nvidia", vfs=16), cmdline=ON, blocked=["nouveau"]),
}
#: Rule -> a host that breaks it, and as what.
BAD: dict[str, tuple[HostSpec, str]] = {
    "gpu_present": (HostSpec([], cmdline=ON), "container"),
    "fell_off_bus": (HostSpec([Gpu(FIRST, fell_off_bus=True)]), "container"),
    "power_state": (HostSpec([Gpu(FIRST, power_state="D3cold")]), "container"),
    "iommu_firmware": (HostSpec(a10s(), firmware="none", cmdline=ON), "vm-passthrough"),
    "iommu_kernel": (HostSpec(a10s()), "vm-passthrough"),
    "iommu_kernel_other": (HostSpec(a10s(), firmware="ivrs", cmdline="amd_iommu=off"), "vm-vgpu"),
    "group_foreign": (HostSpec([Gpu(FIRST, neighbour=True)], cmdline=ON), "vm-passthrough"),
    "group_foreign_vgpu": (HostSpec([Gpu(FIRST, neighbour=True)], cmdline=ON), "vm-vgpu"),
    "companions": (HostSpec([Gpu(FIRST, audio=True)], cmdline=ON), "vm-passthrough"),
    "driver_on_host": (HostSpec(a10s(), cmdline=ON, host_driver="580.1"), "vm-passthrough"),
    "driver_on_host_container": (HostSpec(a10s(), host_driver="580.1"), "container"),
    "driver_branch": (HostSpec([Gpu(FIRST, device="1db4")], host_driver="590.48.01"), "container"),
    "other_driver": (HostSpec(a10s(driver="nouveau"), cmdline=ON), "vm-vgpu"),
    "other_driver_container": (HostSpec(a10s(driver="NovaCore")), "container"),
    "other_driver_at_boot": (HostSpec(a10s(), cmdline=ON), "vm-passthrough"),
    "vfio_module": (HostSpec(a10s(), cmdline=ON, modules=["kvm"], loadable=[]), "vm-passthrough"),
    "mdev_module": (HostSpec(a10s(), cmdline=ON, mdev=False), "vm-vgpu"),
    "boot_vga": (HostSpec([Gpu(FIRST, kind="030000", boot_vga=True)], cmdline=ON), "vm-passthrough"),
    "bar_size": (HostSpec([Gpu(FIRST, bar1=0)], cmdline=ON), "vm-passthrough"),
    "mmio_room": (HostSpec(a10s(), cmdline=ON, kernel_log=["not enough MMIO resources for SR-IOV"]), "vm-vgpu"),
    "sriov": (HostSpec([Gpu(FIRST, vfs_total=0)], cmdline=ON), "vm-vgpu"),
    "display_mode": (HostSpec([Gpu(FIRST, device="2230", kind="030000", vfs_total=0)], cmdline=ON), "vm-vgpu"),
    "vendor_vfio": (HostSpec(a10s(driver="nvidia", vfs=4, backend="vendor_vfio"), cmdline=ON), "vm-vgpu"),
    "secure_boot": (HostSpec(a10s(), secure_boot=True), "container"),
    "virtualised": (HostSpec(a10s(), cmdline=ON, hypervisor=True), "vm-passthrough"),
    "kernel_pending": (HostSpec(a10s(), other_kernels=[NEWER]), "container"),
    "kernel_headers": (HostSpec(a10s(), other_kernels=[NEWER], headers=False), "container"),
    "kernel_log": (HostSpec(a10s(), kernel_log=["NVRM: GPU has fallen off the bus"]), "container"),
}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_good_host_passes_every_rule_before_and_after(read, workload: str) -> None:
    for when in ("before", "after"):
        result = judged(seen(read(GOOD[workload]), workload), when=when)
        assert {entry["id"]: entry["problem"] for entry in result["rules"] if entry["verdict"] != "pass"} == {}
        assert (result["verdict"], result["why"]) == ("pass", "")


@pytest.mark.parametrize("name", BAD)
def test_a_tree_that_breaks_a_rule_is_found(read, name: str) -> None:
    spec, workload = BAD[name]
    assert rule(judged(seen(read(spec), workload)), name)["verdict"] == RULES[name]["severity"]


def test_ids_for_vfio_that_only_the_boot_loader_knows_yet_are_found(tmp_path: Path) -> None:
    tree.build(tmp_path / "h", copy.deepcopy(GOOD["vm-passthrough"]))
    (tmp_path / "h/etc/default/grub.d").mkdir(parents=True, exist_ok=True)
    (tmp_path / "h/etc/default/grub.d/x.cfg").write_text('GRUB_CMDLINE_LINUX="vfio_pci.ids=10de:2236"\n')
    found = rule(judged(seen(_node.read(Host(str(tmp_path / "h"))), "vm-passthrough")), "vfio_ids_at_boot")
    assert (found["verdict"], found["offenders"]) == ("warn", ["vfio_pci.ids=10de:2236"])


@pytest.mark.parametrize(
    ("host", "workload", "verdict", "left"),
    [
        ("gpu-container-0", "container", "pass", {}),
        ("gpu-passthrough-0", "vm-passthrough", "will_fix", {"iommu_kernel": "will_fix", "other_driver_at_boot": "warn"}),
        ("gpu-passthrough-1", "vm-passthrough", "warn", {"companions": "warn", "other_driver_at_boot": "warn"}),
        ("gpu-vgpu-0", "vm-vgpu", "warn", {"other_driver_at_boot": "warn"}),
        ("gpu-refused-0", "vm-passthrough", "fail", {"iommu_firmware": "fail", "other_driver_at_boot": "warn"}),
    ],
)
def test_of_the_hosts_of_the_lab_one_is_refused_and_for_one_reason(read, host, workload, verdict, left) -> None:
    result = judged(seen(read(tree.LAB_HOSTS[host]), workload), fixers=["kernel_cmdline"])
    assert result["verdict"] == verdict
    assert {entry["id"]: entry["verdict"] for entry in result["rules"] if entry["verdict"] != "pass"} == left


def read_cluster(workload: str | None, boot_id: str) -> dict[str, t.Any]:
    """What ``gpu_fleet_info`` makes of API objects: of a cluster before the first run, or of one that runs this workload."""
    labels = {"nvidia.com/gpu.workload.config": workload, "nvidia.com/gpu.deploy.driver": "", "nvidia.com/gpu.deploy.vgpu-manager": "true"}
    node = {
        "metadata": {"name": "n", "labels": labels if workload else {}},
        "status": {"nodeInfo": {"bootID": boot_id}, "allocatable": {"nvidia.com/gpu": "2"}},
    }
    user = {
        "metadata": {"name": "train", "namespace": "lab"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        "status": {"phase": "Running"},
    }
    kubevirt = {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "status": {"observedKubeVirtVersion": "v1.7.0"}}
    policy = {"metadata": {"name": "cluster-policy"}, "spec": {"sandboxWorkloads": {"enabled": True}}}
    return _fleet.summary(
        _fleet.Observed(
            server="https://127.0.0.1:6443",
            uid="u",
            version="v1.37.0",
            nodes=[node],
            pods=[user] if workload else [],
            vmis=[],
            kubevirts=[kubevirt],
            policies=[policy] if workload else None,
            releases=[],
            installs=_installs.Installs([]),
        )
    )


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_cluster_as_it_is_read_lets_good_hosts_pass(read, workload: str, labelled: bool) -> None:
    facts = read(GOOD[workload])
    cluster = read_cluster(workload if labelled else None, facts["host"]["boot_id"])
    result = judged(seen(facts, workload, cluster=cluster, node=cluster["nodes"][0]))
    # There is no Helm release beside this ClusterPolicy.
    assert {entry["id"] for entry in result["rules"] if entry["verdict"] != "pass"} == ({"operator_writer"} if labelled else set())
    assert result["verdict"] == ("warn" if labelled else "pass")


def test_who_would_lose_its_devices_is_named_from_a_cluster_as_it_is_read(read) -> None:
    facts = read(GOOD["vm-passthrough"])
    cluster = read_cluster("container", facts["host"]["boot_id"])
    result = judged(seen(facts, "vm-passthrough", cluster=cluster, node=cluster["nodes"][0]))
    assert "lab/train" in rule(result, "workload_in_use")["problem"]
    assert result["verdict"] == "fail"


def test_the_example_of_the_readme_adds_and_silences(read) -> None:
    """The block of YAML in the role's README, as it stands there."""
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "gpufleet_preflight_rules:" in block)
    rules = yaml.safe_load(block)["gpufleet_preflight_rules"]
    facts = read(HostSpec(a10s(), secure_boot=True))
    result = judged(seen(facts, "container"), site_rules=rules)
    assert rule(result, "secure_boot")["verdict"] == "silenced"
    assert (rule(result, "site_bios")["verdict"], rule(result, "site_bios")["problem"]) == ("warn", "The BIOS is 2.1.3")
    assert result["verdict"] == "warn"
    facts["firmware"]["bios_version"] = "2.19.1"
    assert judged(seen(facts, "container"), site_rules=rules)["verdict"] == "pass"


def test_the_readme_names_every_rule_field_and_function() -> None:
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    fields = _data.schema()["$defs"]["rule"]["properties"]
    names = [*RULES, *fields, "version_lt", "version_in", "matches", "hex", "repeated", "driver_misfits"]
    assert [name for name in names if not re.search(rf"`{name}\b", text)] == []
