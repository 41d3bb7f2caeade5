# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``validate.yml`` and ``cluster.yml`` on the lab that the story of ``site.yml`` has left: all is well; two things break; the cluster mends them."""

from __future__ import annotations

import json
import typing as t

import pytest

from .conftest import SUMMED_UP, Lab, Run
from .test_site import GOOD, REFUSED, REPORT, labels, permits, writes

VGPU = "nvidia.com/NVIDIA_A10-4Q"
DEVICES = ("nvidia.com/GA102GL_A10", "nvidia.com/GA102GL_RTX_A6000", VGPU, "nvidia.com/gpu")
WORKLOAD = "nvidia.com/gpu.workload.config"
PROBES = "gpufleet-probe"


class Played(t.NamedTuple):
    run: Run
    writes: list[str]
    trees_changed: bool


def play(lab: Lab, playbook: str) -> Played:
    REPORT.unlink(missing_ok=True)
    trees, position = lab.tree_digest(), lab.audit_size()
    run = lab.play(playbook, env=SUMMED_UP)
    return Played(run, writes(lab.audit(position)), lab.tree_digest() != trees)


def proven(run: Run) -> set[str]:
    return {
        name for name in DEVICES if f"{name}: a VM with it was admitted" in flat(run) or f"{name}: a pod with it was admitted" in flat(run)
    }


def flat(run: Run) -> str:
    return " ".join(run.output.split())


@pytest.fixture(scope="module")
def validated(lab: Lab) -> Played:
    if not lab.kubectl("get", "secrets", "-A", "-l", "owner=helm")["items"]:  # this file alone
        lab("mend", REFUSED)
        assert lab.play("site.yml").rc == 0
    return play(lab, "playbooks/validate.yml")


def test_a_fleet_that_is_as_wanted_passes_and_every_device_is_proven(validated: Played) -> None:
    assert validated.run.rc == 0, validated.run.output
    assert {host: counts["changed"] for host, counts in validated.run.recap.items()} == dict.fromkeys([*GOOD, REFUSED], 0)
    assert proven(validated.run) == set(DEVICES)


def test_validating_writes_probes_and_nothing_else_and_none_is_left(lab: Lab, validated: Played) -> None:
    assert not validated.trees_changed
    assert validated.writes
    assert [entry for entry in validated.writes if PROBES not in entry and not entry.startswith("create /api/v1/namespaces?")] == []
    for kind in ("virtualmachineinstances", "pods"):
        assert lab.kubectl("get", kind, "-n", PROBES)["items"] == []


@pytest.fixture(scope="module")
def broken(lab: Lab, validated: Played) -> t.Iterator[Played]:
    """A permit is gone, and so is a label whose loss disturbs no operand: the operator takes the node for `container` anyway."""
    whole = permits(lab)
    lab("kubectl", "label", "node", "gpu-container-0", f"{WORKLOAD}-")
    patch(lab, {"mediatedDevices": []})
    yield play(lab, "playbooks/validate.yml")
    # Whatever failed: what comes after finds the fleet as it was.
    patch(lab, whole)
    lab("kubectl", "label", "--overwrite", "node", "gpu-container-0", f"{WORKLOAD}=container")


def patch(lab: Lab, permitted: dict[str, t.Any]) -> None:
    body = json.dumps({"spec": {"configuration": {"permittedHostDevices": permitted}}})
    lab("kubectl", "patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", body)


def test_all_that_is_broken_is_named_in_one_run(broken: Played) -> None:
    assert broken.run.rc == 2, broken.run.output
    messages = [result["msg"] for result in broken.run.results if result["outcome"] == "failed"]
    assert len(messages) == 3, messages
    wait, findings, probes = (" ".join(message.split()) for message in messages)
    assert f"node gpu-container-0: its label {WORKLOAD} is not set" in wait
    sides = "permitted: no; advertised by: gpu-vgpu-0 (12); asked for by: nobody"
    assert f"device {VGPU}: KubeVirt does not permit it ({sides}). Run gpufleet.kubevirt.cluster" in findings
    assert f"expected scheduled: {VGPU}: KubeVirt does not permit it" in probes and sides in probes
    for healthy in ("gpu-passthrough-0", "gpu-passthrough-1", "nvidia.com/gpu:"):
        assert healthy not in wait + findings


def test_the_failures_are_summed_up_and_the_report_is_written_all_the_same(broken: Played) -> None:
    assert "FAILURE SUMMARY: 3 problems" in broken.run.output
    states = {node["name"]: node["state"] for node in json.loads(REPORT.read_text(encoding="utf-8"))["nodes"]}
    assert states["gpu-container-0"] == "drift"
    assert states["gpu-vgpu-0"] == "ok"


def test_validating_mends_nothing(broken: Played) -> None:
    assert not broken.trees_changed
    assert [entry for entry in broken.writes if PROBES not in entry and not entry.startswith("create /api/v1/namespaces?")] == []


@pytest.fixture(scope="module")
def mended(lab: Lab, broken: Played) -> Played:
    return play(lab, "playbooks/cluster.yml")


def test_the_cluster_playbook_mends_what_was_broken_and_changes_nothing_else(lab: Lab, mended: Played) -> None:
    assert mended.run.rc == 0, mended.run.output
    assert {(host, target) for host, target, _ in mended.run.changes()} == {
        ("cluster", "node gpu-container-0"),
        ("cluster", "permit mdev NVIDIA A10-4Q"),
    }
    assert labels(lab)["gpu-container-0"][WORKLOAD] == "container"
    assert [entry["resourceName"] for entry in permits(lab)["mediatedDevices"]] == [VGPU]
    assert VGPU in proven(mended.run)


def test_the_cluster_playbook_only_reads_hosts(mended: Played) -> None:
    assert not mended.trees_changed
    for host in GOOD:
        # Once to judge it, and once more for the report: the operands of a node that was labelled may have changed its devices.
        assert mended.run.remote_tasks(host) == ["gpufleet.kubevirt.preflight : Observe | Read the host", "Read this host"]
