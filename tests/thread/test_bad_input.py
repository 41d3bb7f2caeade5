# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input gets a clear error before the first write."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import typing as t
from pathlib import Path

import pytest
import yaml

from .conftest import INVENTORY, Lab, Run
from .test_site import writes


def groups(**hosts: dict[str, dict[str, t.Any]]) -> str:
    """An inventory (JSON is YAML) with these hosts in these groups below gpu_nodes."""
    children = {group: {"hosts": entries} for group, entries in hosts.items()}
    return json.dumps({"all": {"children": {"gpu_nodes": {"children": children}}}})


def attempt(lab: Lab, tmp_path: Path, extra: str | None, *arguments: str, env: t.Mapping[str, str] = {}) -> Run:
    """Run ``site`` with a further inventory file; whatever happens, nothing may have been written."""
    inventory: list[Path] = [INVENTORY]
    if extra is not None:
        added = tmp_path / "extra.yml"
        added.write_text(extra, encoding="utf-8")
        inventory.append(added)
    trees, position = lab.tree_digest(), lab.audit_size()
    run = lab.play("site.yml", *arguments, inventory=inventory, env=env)
    assert run.rc != 0, run.output
    assert lab.tree_digest() == trees
    assert writes(lab.audit(position)) == []
    assert "Traceback" not in run.output
    return run


CASES = {
    "host in two groups": (groups(gpu_vm_vgpu={"gpu-container-0": {}}), [], ["gpu-container-0", "gpu_container", "gpu_vm_vgpu"]),
    "unknown workload": (groups(gpu_container={"gpu-container-0": {"gpufleet_workload": "vm-magic"}}), [], ["gpu-container-0", "vm-magic"]),
    "inventory host that is no node": (groups(gpu_container={"ghost-0": {}}), [], ["ghost-0", "no node"]),
    "two hosts on one node": (
        groups(gpu_container={"twin-0": {"gpufleet_node_name": "gpu-container-0"}}), [], ["twin-0", "gpu-container-0"],
    ),
    "unknown profile": (groups(gpu_vm_vgpu={"gpu-vgpu-0": {"gpufleet_vgpu_profile": "A10-5Q"}}), [], ["A10-5Q", "A10-4Q"]),
    "profile not chosen": (groups(gpu_vm_vgpu={"gpu-vgpu-0": {"gpufleet_vgpu_profile": None}}), [], ["gpu-vgpu-0", "gpufleet_vgpu_profile"]),
    "malformed node name": (groups(gpu_container={"gpu-container-0": {"gpufleet_node_name": "No Such/Name"}}), [], ["No Such/Name"]),
    "unknown Helm value": (None, ["-e", '{"gpufleet_operator_values": {"sandboxWorkload": {}}}'], ["sandboxWorkload", "nearest: sandboxWorkloads"]),
    "vGPU without an image": (None, ["-e", "gpufleet_vgpu_version="], ["gpu-vgpu-0", "gpufleet_vgpu_version"]),
    "half a pull secret": (None, ["-e", "gpufleet_registry_password="], ["vgpu-manager-pull", "gpufleet_registry_password"]),
    "no helm": (None, ["-e", "gpufleet_helm=/nowhere/helm"], ["/nowhere/helm", "gpufleet_helm"]),
    "wrong cluster": (None, ["-e", "gpufleet_expected_cluster=somewhere-else"], ["somewhere-else"]),
    "limit that matches no GPU host": (
        json.dumps({"all": {"hosts": {"bmc-0": {}}}}), ["--limit", "bmc-0"], ["bmc-0", "no GPU host"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_request_stops_before_the_first_write(lab: Lab, tmp_path: Path, case: str) -> None:
    extra, arguments, words = CASES[case]
    run = attempt(lab, tmp_path, extra, *arguments)
    message = " ".join(run.failures().values())
    for word in words:
        assert word in message, message


def test_no_kubeconfig_is_named(lab: Lab, tmp_path: Path) -> None:
    run = attempt(lab, tmp_path, None, "-e", f"gpufleet_kubeconfig={tmp_path}/missing.kubeconfig")
    message = " ".join(run.failures().values())
    assert "missing.kubeconfig" in message
    assert "gpufleet_kubeconfig" in message
    assert run.seconds <= 15


def test_a_malformed_kubeconfig_is_named(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "broken.kubeconfig"
    broken.write_text("clusters: [a: b: c\n", encoding="utf-8")
    run = attempt(lab, tmp_path, None, "-e", f"gpufleet_kubeconfig={broken}")
    assert "broken.kubeconfig" in " ".join(run.failures().values())


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_an_unreachable_api_server_is_named_within_15_seconds(lab: Lab, tmp_path: Path, kind: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if kind == "silent":  # takes connections and never answers
            server.listen(16)
            held: list[socket.socket] = []

            def accept() -> None:
                while True:
                    try:
                        held.append(server.accept()[0])
                    except OSError:
                        return

            threading.Thread(target=accept, daemon=True).start()
        config = yaml.safe_load((lab.dir / "operator.kubeconfig").read_text(encoding="utf-8"))
        config["clusters"][0]["cluster"]["server"] = f"https://{address}"
        changed = tmp_path / "unreachable.kubeconfig"
        changed.write_text(yaml.safe_dump(config), encoding="utf-8")
        run = attempt(lab, tmp_path, None, "-e", f"gpufleet_kubeconfig={changed}")
    message = " ".join(run.failures().values())
    assert address in message
    assert run.seconds <= 15, run.output


def test_a_boot_id_of_another_machine_stops_that_host(lab: Lab, tmp_path: Path) -> None:
    copied = tmp_path / "root"
    shutil.copytree(lab.dir / "hosts" / "gpu-container-0", copied, symlinks=True)
    (copied / "proc" / "sys" / "kernel" / "random" / "boot_id").write_text("00000000-0000-4000-8000-000000000000\n", encoding="utf-8")
    extra = groups(gpu_container={"gpu-container-0": {"gpufleet_host_root": str(copied)}})
    inventory = tmp_path / "extra.yml"
    inventory.write_text(extra, encoding="utf-8")
    run = lab.play("playbooks/preflight.yml", inventory=[INVENTORY, inventory])
    assert run.rc == 2
    assert "00000000-0000-4000-8000-000000000000" in run.failures()["gpu-container-0"]


def test_without_an_image_nothing_is_touched_and_all_hosts_are_in_the_report(lab: Lab, tmp_path: Path) -> None:
    given = {
        "gpufleet_vgpu_run_file": "/nowhere/NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run",
        "gpufleet_vgpu_source": "/nowhere",
        "gpufleet_report_dir": str(tmp_path),
    }
    run = attempt(lab, tmp_path, None, "-e", json.dumps(given))
    message = " ".join(run.failures().values())
    assert "NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run cannot be read" in message and "source /nowhere" in message, message
    nodes = json.loads((tmp_path / "fleet.json").read_text(encoding="utf-8"))["nodes"]
    reported = {node["name"]: node["state"] for node in nodes if node["name"].startswith("gpu-")}
    assert reported["gpu-vgpu-0"] == "refused", reported
    # Those of other groups are of this run, too.
    assert reported["gpu-container-0"] != "refused" and not any("not in this run" in str(node) for node in nodes), reported


def test_the_image_playbook_says_what_it_is_to_build_from(lab: Lab) -> None:
    run = lab.play("playbooks/image.yml")
    assert run.rc != 0 and "gpufleet_vgpu_run_file is not set" in " ".join(run.failures().values())


@pytest.mark.parametrize("tag", ["gpu_operator", "vgpu_config"])
def test_one_step_of_the_cluster_play_alone_does_not_reach_undecided_nodes(lab: Lab, tag: str) -> None:
    """On a cluster without a release, where no node carries a decision."""
    position = lab.audit_size()
    run = lab.play("playbooks/cluster.yml", "--tags", tag, "--check")
    assert writes(lab.audit(position)) == []
    if tag == "gpu_operator":
        assert run.rc != 0 and "carry no decision" in " ".join(run.failures().values()), run.output
    assert "undefined" not in run.output


def test_a_missing_chart_is_named(lab: Lab, tmp_path: Path) -> None:
    run = attempt(lab, tmp_path, None, "-e", f"gpufleet_operator_chart={tmp_path}/no-chart")
    assert any("no-chart" in message for message in run.failures().values()), run.failures()
