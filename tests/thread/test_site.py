# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``site.yml`` on the lab's five hosts, as a story: predict, limited, first run, second run, mend, foreign permits.

Each chapter is a session fixture that runs once, in this order; the tests of a chapter look at what it left.
"""

from __future__ import annotations

import base64
import json
import time
import typing as t
from pathlib import Path

import pytest

from .conftest import CHECKOUT, SUMMED_UP, Lab, Run

REFUSED = "gpu-refused-0"
STRANGER = "gpu-stranger-0"
GOOD = ["gpu-container-0", "gpu-passthrough-0", "gpu-passthrough-1", "gpu-vgpu-0"]
REPORT = CHECKOUT / "gpufleet-report" / "fleet.json"
MUTATING = {"create", "update", "patch", "delete", "deletecollection"}
#: Requests that are writes by their verb only: asking what one may do, and who one is.
REVIEWS = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews", "selfsubjectreviews"}
FOREIGN = {"pciVendorSelector": "8086:1572", "resourceName": "example.com/nic", "externalResourceProvider": True}


def writes(events: t.Iterable[dict[str, t.Any]]) -> list[str]:
    """Requests that change something, as ``verb uri``."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in events
        if event["verb"] in MUTATING
        and "dryRun=All" not in event["requestURI"]
        and (event.get("objectRef") or {}).get("resource") not in REVIEWS
    ]


def allocatable(lab: Lab, node: str) -> dict[str, int]:
    found = lab.kubectl("get", "node", node)["status"]["allocatable"]
    return {key: int(value) for key, value in found.items() if key.startswith("nvidia.com/") and value != "0"}


def labels(lab: Lab) -> dict[str, dict[str, str]]:
    return {node["metadata"]["name"]: node["metadata"]["labels"] for node in lab.kubectl("get", "nodes")["items"]}


def permits(lab: Lab) -> dict[str, t.Any]:
    spec = lab.kubectl("get", "kubevirt", "kubevirt", "-n", "kubevirt")["spec"]
    return (spec.get("configuration") or {}).get("permittedHostDevices") or {}


def operand_nodes(lab: Lab) -> set[str]:
    """Nodes for which an operand pod exists."""
    pods = lab.kubectl("get", "pods", "-n", "gpu-operator")["items"]
    return {
        pod["spec"].get("nodeName", "")
        for pod in pods
        if any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", []))
    }


# ------------------------------------------------------------------ chapter 1: --check --diff on a fresh lab


class Checked(t.NamedTuple):
    run: Run
    trees: tuple[dict[str, str], dict[str, str]]
    writes: list[str]


@pytest.fixture(scope="session")
def checked(lab: Lab) -> Checked:
    lab(
        "kubectl", "patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p",
        json.dumps({"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [FOREIGN]}}}}),
    )  # fmt: skip
    before, position = lab.tree_digest(), lab.audit_size()
    run = lab.play("site.yml", "--check", "--diff")
    return Checked(run, (before, lab.tree_digest()), writes(lab.audit(position)))


def test_check_mode_refuses_the_same_host(checked: Checked) -> None:
    assert checked.run.rc == 2, checked.run.output
    assert set(checked.run.failures()) == {REFUSED}, checked.run.output


def test_check_mode_writes_nothing_to_the_cluster(checked: Checked) -> None:
    assert checked.writes == []


def test_check_mode_leaves_host_trees_byte_identical(checked: Checked) -> None:
    assert checked.trees[0] == checked.trees[1]


# ------------------------------------------------------------------ chapter 2: --limit on a fresh lab


@pytest.fixture(scope="session")
def limited_fresh(lab: Lab, checked: Checked) -> Run:
    REPORT.unlink(missing_ok=True)
    return lab.play("site.yml", "--limit", "gpu-container-0", env=SUMMED_UP)


def test_a_limited_run_on_a_fresh_lab_ends_before_helm_and_names_the_undecided(lab: Lab, limited_fresh: Run) -> None:
    assert limited_fresh.rc == 2, limited_fresh.output
    message = " ".join(limited_fresh.failures().values())
    for node in ("gpu-passthrough-0", "gpu-passthrough-1", "gpu-vgpu-0", REFUSED, STRANGER):
        assert node in message
    assert "gpu-container-0" not in message
    assert lab.kubectl("get", "secrets", "-A", "-l", "owner=helm")["items"] == []


def test_a_run_whose_cluster_play_failed_writes_its_report_all_the_same(limited_fresh: Run) -> None:
    assert limited_fresh.rc == 2
    states = {node["name"]: node["state"] for node in json.loads(REPORT.read_text(encoding="utf-8"))["nodes"]}
    assert states["gpu-container-0"] == "drift"
    assert states[STRANGER] == "undecided"
    assert "FAILURE SUMMARY: 1 problem on 1 of 1 host" in limited_fresh.output


def test_a_limited_run_on_a_fresh_lab_labels_only_its_host(lab: Lab, limited_fresh: Run) -> None:
    labelled = {name for name, found in labels(lab).items() if any(key.startswith("nvidia.com/") for key in found)}
    assert labelled == {"gpu-container-0"}


# ------------------------------------------------------------------ chapter 3: the first run


@pytest.fixture(scope="session")
def first(lab: Lab, limited_fresh: Run) -> Run:
    # Back to where check mode started: the same fresh lab with somebody else's permit in it.
    lab("reset")
    lab(
        "kubectl", "patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p",
        json.dumps({"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [FOREIGN]}}}}),
    )  # fmt: skip
    return lab.play("site.yml", "--diff")


def test_the_first_run_exits_2_for_the_refused_host_alone(first: Run) -> None:
    assert first.rc == 2, first.output
    assert set(first.failures()) == {REFUSED}, first.output
    assert {host for host, counts in first.recap.items() if counts["failed"] or counts["unreachable"]} == {REFUSED}
    assert all(counts["ignored"] == 0 and counts["rescued"] == 0 for counts in first.recap.values())


def test_the_refused_host_is_told_why(first: Run) -> None:
    assert "firmware" in first.failures()[REFUSED]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("gpu-container-0", {"nvidia.com/gpu": 2}),
        ("gpu-passthrough-0", {"nvidia.com/GA102GL_A10": 2}),
        ("gpu-passthrough-1", {"nvidia.com/GA102GL_RTX_A6000": 2, "nvidia.com/GA102_HIGH_DEFINITION_AUDIO_CONTROLLER": 2}),
        ("gpu-vgpu-0", {"nvidia.com/NVIDIA_A10-4Q": 12}),
        (REFUSED, {}),
        (STRANGER, {}),
    ],
)
def test_nodes_advertise_what_was_planned(lab: Lab, first: Run, node: str, expected: dict[str, int]) -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    reported = {entry["name"]: entry["allocatable"] for entry in report["nodes"]}
    assert reported[node] == expected
    if node != REFUSED:  # mended in a later chapter
        assert allocatable(lab, node) == expected


def no_operand_ever_ran_where_it_was_refused(lab: Lab) -> None:
    """Neither on the refused host nor on the stranger, since the lab was fresh; and no VM was lost."""
    events = [json.loads(line) for line in (lab.dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    ran = {event.get("node") for event in events if event.get("event") == "operand_started"}
    assert ran == set(GOOD)
    assert not [event for event in events if event.get("event") == "vm_lost"]
    assert operand_nodes(lab) == set(GOOD)


def test_no_operand_ever_ran_where_it_was_refused(lab: Lab, first: Run) -> None:
    no_operand_ever_ran_where_it_was_refused(lab)


def test_the_kernel_arguments_were_set_and_the_host_rebooted_once(lab: Lab, first: Run) -> None:
    cmdline = (lab.dir / "hosts" / "gpu-passthrough-0" / "proc" / "cmdline").read_text(encoding="utf-8")
    assert cmdline.split().count("intel_iommu=on") == 1
    reboots = [result for result in first.results if "Reboot with the given command" in result["task"] and result["changed"]]
    assert [result["host"] for result in reboots] == ["gpu-passthrough-0"]
    node = lab.kubectl("get", "node", "gpu-passthrough-0")
    assert not node["spec"].get("unschedulable")


def test_the_release_has_the_values_of_the_mission(lab: Lab, first: Run) -> None:
    values = json.loads(lab("helm", "get", "values", "gpu-operator", "-n", "gpu-operator", "-o", "json").stdout)
    assert values["sandboxWorkloads"] == {"enabled": True, "defaultWorkload": "container"}
    assert values["vgpuManager"]["enabled"] is True
    assert values["vgpuManager"]["imagePullSecrets"] == ["vgpu-manager-pull"]
    assert values["daemonsets"]["updateStrategy"] == "OnDelete"
    assert values["ccManager"]["enabled"] is False


def test_vms_were_proven_and_one_was_refused_with_an_explanation(lab: Lab, first: Run) -> None:
    probe = next(result for result in first.results if "Prove the devices with throwaway VMs" in result["task"])
    assert probe["outcome"] == "ok"
    said = next(result for result in first.results if "Say what was proven" in result["task"])["msg"]
    for word in ("nvidia.com/GA102GL_A10", "nvidia.com/GA102GL_RTX_A6000", "nvidia.com/NVIDIA_A10-4Q", "NOT_PERMITTED", "not permitted"):
        assert word in said
    assert lab.kubectl("get", "vmi", "-A")["items"] == []


def test_mdev_handling_is_off_and_foreign_permits_survive(lab: Lab, first: Run) -> None:
    spec = lab.kubectl("get", "kubevirt", "kubevirt", "-n", "kubevirt")["spec"]
    assert spec["configuration"]["developerConfiguration"]["featureGates"].count("DisableMDEVConfiguration") == 1
    found = permits(lab)
    assert found["pciHostDevices"][0] == FOREIGN
    ours = {"10DE:2230": "nvidia.com/GA102GL_RTX_A6000", "10DE:2236": "nvidia.com/GA102GL_A10"}
    assert sorted(found["pciHostDevices"][1:], key=lambda entry: entry["pciVendorSelector"]) == [
        {"pciVendorSelector": selector, "resourceName": name, "externalResourceProvider": True} for selector, name in ours.items()
    ]
    assert found["mediatedDevices"] == [
        {"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": "nvidia.com/NVIDIA_A10-4Q", "externalResourceProvider": True}
    ]


def test_no_secret_is_shown(lab: Lab, checked: Checked, first: Run) -> None:
    secret = lab.kubectl("get", "secret", "vgpu-manager-pull", "-n", "gpu-operator")["data"][".dockerconfigjson"]
    [login] = json.loads(base64.b64decode(secret))["auths"].values()
    assert base64.b64decode(login["auth"]) == b"lab:lab"
    for output in (checked.run.output, first.output, json.dumps(first.results)):
        for word in (secret, login["auth"], "dockerconfigjson", '"auth"'):
            assert word not in output


def test_check_mode_had_listed_what_the_first_run_changed(checked: Checked, first: Run) -> None:
    unknowable = checked.run.known_after_apply()
    targets = {(host, target) for host, target, _ in unknowable}
    real = {change for change in first.changes() if (change[0], change[1]) not in targets}
    assert real, "the first run changed nothing"
    assert checked.run.changes() - unknowable == real


# ------------------------------------------------------------------ chapter 4: the second run


@pytest.fixture(scope="session")
def second(lab: Lab, first: Run) -> Run:
    return lab.play("site.yml", "--diff")


def test_the_second_run_changes_nothing(second: Run) -> None:
    assert second.rc == 2, second.output
    assert set(second.recap) == {*GOOD, REFUSED}
    assert {host: counts["changed"] for host, counts in second.recap.items()} == dict.fromkeys(second.recap, 0), second.changes()


def test_the_second_run_writes_nothing_to_the_cluster(lab: Lab, second: Run) -> None:
    position = lab.audit_size()
    run = lab.play("site.yml")
    assert run.rc == 2, run.output
    assert writes(lab.audit(position)) == []


def test_a_converged_host_takes_at_most_four_remote_tasks(second: Run) -> None:
    for host in GOOD:
        tasks = second.remote_tasks(host)
        assert 1 <= len(tasks) <= 4, tasks


def test_a_converged_run_takes_at_most_40_seconds(second: Run) -> None:
    assert second.seconds <= 40


def test_a_second_release_under_another_name_is_refused_before_anything_is_read_from_a_host(lab: Lab, second: Run) -> None:
    run = lab.play("site.yml", "-e", "gpufleet_operator_release=mine")
    assert run.rc == 2, run.output
    [message] = run.failures().values()
    assert "release gpu-operator in namespace gpu-operator" in message
    assert "gpufleet_operator_release" in message
    assert [run.remote_tasks(host) for host in GOOD] == [[]] * len(GOOD)


def test_a_run_that_refuses_all_its_hosts_writes_its_report_all_the_same(lab: Lab, second: Run) -> None:
    REPORT.unlink(missing_ok=True)
    run = lab.play("playbooks/validate.yml", "--limit", REFUSED)
    assert run.rc == 2, run.output
    [node] = [node for node in json.loads(REPORT.read_text(encoding="utf-8"))["nodes"] if node["name"] == REFUSED]
    assert node["state"] == "refused"
    assert "IOMMU" in node["problems"][0]


def test_the_wait_looks_into_the_namespace_of_the_operator(lab: Lab, second: Run, tmp_path: Path) -> None:
    play = {
        "name": "Wait elsewhere",
        "hosts": "gpu-container-0",
        "gather_facts": False,
        "module_defaults": {"group/gpufleet.kubevirt.k8s": {"kubeconfig": "{{ gpufleet_kubeconfig }}"}},
        "vars": {
            "gpu_operator_intents": [
                {"node": "gpu-container-0", "workload": "container", "expect": [], "state": "wanted", "limited": True}
            ],
            "gpu_operator_limited": True,
            "gpu_operator_timeout": 1,
            "gpufleet_operator_namespace": "elsewhere",
        },
        "tasks": [{"name": "Wait", "ansible.builtin.import_role": {"name": "gpufleet.kubevirt.gpu_operator", "tasks_from": "ready"}}],
    }
    playbook = tmp_path / "wait.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    run = lab.play(str(playbook))
    assert "there is no DaemonSet" in run.failures().get("gpu-container-0", ""), run.output


# ------------------------------------------------------------------ chapter 5: --limit on the converged lab


def test_a_limited_run_does_host_and_cluster_part_of_its_host_only(lab: Lab, second: Run) -> None:
    # Neither removal disturbs an operand: the device manager ignores the one, and `container` is the default anyway.
    lab("kubectl", "label", "node", "gpu-vgpu-0", "nvidia.com/vgpu.config-")
    lab("kubectl", "label", "node", "gpu-container-0", "nvidia.com/gpu.workload.config-")
    (lab.dir / "hosts" / "gpu-passthrough-0" / "etc" / "default" / "grub.d" / "60-gpufleet.cfg").unlink()
    trees = lab.tree_digest()
    others = {name: found for name, found in labels(lab).items() if name != "gpu-vgpu-0"}
    run = lab.play("site.yml", "--limit", "gpu-vgpu-0")
    assert run.rc == 0, run.output
    assert set(run.recap) == {"gpu-vgpu-0"}
    assert run.remote_tasks("gpu-vgpu-0")
    assert labels(lab)["gpu-vgpu-0"]["nvidia.com/vgpu.config"] == "A10-4Q"
    assert lab.tree_digest() == trees
    after = {name: found for name, found in labels(lab).items() if name != "gpu-vgpu-0"}
    assert after == others
    assert {(host, target) for host, target, _ in run.changes()} == {("cluster", "node gpu-vgpu-0")}
    host = lab.play("site.yml", "--limit", "gpu-passthrough-0")
    assert host.rc == 0, host.output
    assert {host for host, _, _ in host.changes()} == {"gpu-passthrough-0"}
    assert labels(lab)["gpu-container-0"] == others["gpu-container-0"]
    repaired = lab.play("site.yml", "--limit", "gpu-container-0")
    assert repaired.rc == 0, repaired.output


# ------------------------------------------------------------------ chapter 6: foreign permits, mending


def test_foreign_permits_survive_beside_a_lost_one_of_ours(lab: Lab, second: Run) -> None:
    lab(
        "kubectl", "patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p",
        json.dumps({"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [FOREIGN], "mediatedDevices": []}}}}),
    )  # fmt: skip
    run = lab.play("site.yml")
    assert run.rc == 2, run.output
    found = permits(lab)
    assert found["pciHostDevices"][0] == FOREIGN
    assert len(found["pciHostDevices"]) == 3
    assert len(found["mediatedDevices"]) == 1


def test_operands_that_a_dead_change_has_paused_are_set_free(lab: Lab, second: Run) -> None:
    """The device manager ends after it has paused the others: its successor waits for what only the paused validator would write."""
    name, operator, paused = "gpu-vgpu-0", ("-n", "gpu-operator"), "paused-for-vgpu-change"
    deploy = [f"nvidia.com/gpu.deploy.{operand}" for operand in ("sandbox-device-plugin", "sandbox-validator")]
    of_the_node = ("-l", "app=nvidia-vgpu-device-manager", f"--field-selector=spec.nodeName={name}")
    lab("kubectl", "label", "node", name, "--overwrite", *(f"{key}={paused}" for key in deploy), "nvidia.com/vgpu.config.state=pending")
    until = time.monotonic() + 30
    while lab.kubectl("get", "pods", *operator, "-l", "app=nvidia-sandbox-validator", f"--field-selector=spec.nodeName={name}")["items"]:
        assert time.monotonic() < until, "the validator did not go"
        time.sleep(0.3)
    lab("kubectl", "delete", "pod", *operator, *of_the_node)
    time.sleep(3)
    [waiting] = lab.kubectl("get", "pods", *operator, *of_the_node)["items"]
    assert {entry["type"]: entry["status"] for entry in waiting["status"]["conditions"]}.get("Ready") != "True"
    run = lab.play("site.yml", "--limit", name)
    assert run.rc == 0, run.output
    assert {(host, target) for host, target, _ in run.changes()} == {("cluster", f"node {name}")}
    found = labels(lab)[name]
    assert [found[key] for key in deploy] == ["true", "true"] and found["nvidia.com/vgpu.config.state"] == "success"
    assert allocatable(lab, name) == {"nvidia.com/NVIDIA_A10-4Q": 12}


def test_a_mended_host_is_taken_in_by_the_next_run(lab: Lab, second: Run) -> None:
    # Now, after all the other runs.
    no_operand_ever_ran_where_it_was_refused(lab)
    lab("mend", REFUSED)
    run = lab.play("site.yml")
    assert run.rc == 0, run.output
    assert allocatable(lab, REFUSED) == {"nvidia.com/GA102GL_A10": 2}
    found = labels(lab)[REFUSED]
    assert found["nvidia.com/gpu.workload.config"] == "vm-passthrough"
    assert "nvidia.com/gpu.deploy.operands" not in found
