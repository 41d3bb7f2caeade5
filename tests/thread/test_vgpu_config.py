# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vGPU configuration of the site: given as a file, changed by profile, by content, after a failure; and refused under a VM.

Each step goes on where the one before ended. The playbook is the part of `site.yml` from the request to the operator. What else restarts a device
manager, or keeps it from being restarted, is tried with GPUFLEET_LONG=1, and always by the unit tests on an API server that is simulated.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

import pytest
import yaml

from tests.hosts import tree

from .conftest import CHECKOUT, Lab, Run

NODE = "gpu-vgpu-0"
NAME = "gpufleet-vgpu-devices"
RESOURCES = {"half": {"nvidia.com/NVIDIA_A10-12Q": 4}, "small": {"nvidia.com/NVIDIA_A10-4Q": 12}, "fewer": {"nvidia.com/NVIDIA_A10-4Q": 10}}
CONFIGS = {"half": {"A10-12Q": 2}, "small": {"A10-4Q": 6}}
LONG = pytest.mark.skipif(not os.environ.get("GPUFLEET_LONG"), reason="takes a minute more: GPUFLEET_LONG=1, as make soak does it")
PLAYBOOK = [
    {"ansible.builtin.import_playbook": str(CHECKOUT / "playbooks/parts" / f"{part}.yml")} for part in ("request", "judge", "cluster")
]


class Site:
    """The inventory's part of the story: the file, and the profile of the node."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.file = lab.dir / "vgpu-devices.yml"
        self.playbook = lab.dir / "vgpu.yml"
        self.playbook.write_text(json.dumps(PLAYBOOK), encoding="utf-8")
        self.give(CONFIGS)

    def give(self, configs: dict[str, dict[str, int]]) -> None:
        entries = {n: [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": types}] for n, types in configs.items()}
        self.file.write_text(yaml.safe_dump({"version": "v1", "vgpu-configs": entries}), encoding="utf-8")

    def play(self, profile: t.Any, *arguments: str, file: bool = True) -> Run:
        variables = {
            "gpufleet_vgpu_profile": profile,
            "gpufleet_vgpu_config_file": str(self.file) if file else "",
            "gpufleet_operator_settle": 1,
        }
        return self.lab.play(str(self.playbook), "-e", json.dumps(variables), *arguments)

    def limited(self, profile: str, *arguments: str) -> Run:
        return self.play(profile, "--limit", NODE, *arguments)

    def manager(self) -> dict[str, t.Any]:
        selector = ("-l", "app=nvidia-vgpu-device-manager", f"--field-selector=spec.nodeName={NODE}")
        [pod] = self.lab.kubectl("get", "pods", "-n", "gpu-operator", *selector)["items"]
        return dict(pod)

    def allocatable(self) -> dict[str, int]:
        found = self.lab.kubectl("get", "node", NODE)["status"]["allocatable"]
        return {key: int(value) for key, value in found.items() if key.startswith("nvidia.com/") and value != "0"}

    def lost(self) -> list[t.Any]:
        events = (json.loads(line) for line in (self.lab.dir / "events.jsonl").read_text(encoding="utf-8").splitlines())
        return [event for event in events if event.get("event") == "vm_lost"]


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    """The lab with the file in use. The first run is a whole one: a part of the fleet cannot decide about the ConfigMap."""
    story = Site(lab)
    run = story.play("half")
    assert run.rc in (0, 2) and NODE not in run.failures(), run.output  # 2 where there are hosts that preflight refuses
    return story


@pytest.fixture
def machine(site: Site) -> t.Iterator[str]:
    """A VM with a vGPU on the node: the pod in which KubeVirt runs one."""
    [resource] = site.allocatable()
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "virt-launcher-worker",
            "labels": {"kubevirt.io": "virt-launcher"},
            "annotations": {"kubevirt.io/domain": "worker"},
        },
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "compute", "image": "registry.example.com/launcher", "resources": {"limits": {resource: "1"}}}],
        },
    }
    path = site.lab.dir / "worker.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    site.lab("kubectl", "apply", "-n", "default", "-f", str(path))
    try:
        until = time.monotonic() + 30
        while site.lab.kubectl("get", "pod", "virt-launcher-worker", "-n", "default")["status"].get("phase") != "Running":
            assert time.monotonic() < until, "the VM does not run"
            time.sleep(0.3)
        yield "default/worker"
    finally:
        site.lab("kubectl", "delete", "pod", "virt-launcher-worker", "-n", "default", "--force", "--grace-period=0", "--ignore-not-found")


def test_a_given_file_is_what_the_device_manager_reads(site: Site) -> None:
    written = site.lab.kubectl("get", "configmap", NAME, "-n", "gpu-operator")
    assert written["data"]["config.yaml"].strip() == site.file.read_text().strip()
    volumes = {volume["name"]: volume for volume in site.manager()["spec"]["volumes"]}
    assert volumes["vgpu-config"]["configMap"]["name"] == NAME
    assert site.allocatable() == RESOURCES["half"]


@LONG
def test_a_profile_that_is_not_in_the_file_is_refused_before_anything_is_read(site: Site) -> None:
    run = site.limited("A10-4Q")
    assert run.rc == 2
    [message] = run.failures().values()
    assert f"the file {site.file} has no profile 'A10-4Q'" in message and "half" in message
    assert run.remote_tasks(NODE) == [] and run.changes() == set()


def test_another_profile_under_a_vm_is_refused_with_its_name(site: Site, machine: str) -> None:
    before = site.manager()["metadata"]["uid"]
    run = site.limited("small")
    assert run.rc == 2
    assert f"VM {machine}" in " ".join(run.failures().values()), run.output
    assert (site.allocatable(), site.manager()["metadata"]["uid"], site.lost()) == (RESOURCES["half"], before, [])


@LONG
def test_another_content_under_a_vm_is_refused_with_its_name(site: Site, machine: str) -> None:
    site.give({**CONFIGS, "half": {"A10-12Q": 1}})
    run = site.play("half")
    site.give(CONFIGS)
    assert f"VM {machine}" in " ".join(run.failures().values()), run.output
    assert run.changes() == set() and site.lost() == []


def test_another_profile_without_a_vm_takes_no_restart(site: Site) -> None:
    before = site.manager()["metadata"]["uid"]
    run = site.limited("small")
    assert run.rc == 0, run.output
    assert (site.allocatable(), site.manager()["metadata"]["uid"]) == (RESOURCES["small"], before)


@LONG
def test_a_second_run_changes_nothing(site: Site) -> None:
    again = site.limited("small")
    assert (again.rc, again.changes()) == (0, set()), again.output


@LONG
def test_a_change_that_failed_is_tried_again(site: Site) -> None:
    before = site.manager()["metadata"]["uid"]
    tree.make_vgpus(site.lab.dir / "hosts" / NODE, [{}, {}])
    site.lab("kubectl", "label", "node", NODE, "--overwrite", "nvidia.com/vgpu.config.state=failed")
    run = site.limited("small")
    assert run.rc == 0, run.output
    assert run.changes() == {("cluster", f"node {NODE}", "restart device manager")}
    assert site.allocatable() == RESOURCES["small"] and site.manager()["metadata"]["uid"] != before


@LONG
def test_another_content_takes_effect_on_its_node(site: Site) -> None:
    site.give({**CONFIGS, "small": {"A10-4Q": 5}})
    run = site.play("small")
    assert NODE not in run.failures(), run.output
    assert {(target, action) for _host, target, action in run.changes()} == {
        (f"ConfigMap {NAME}", "update"),
        (f"node {NODE}", "restart device manager"),
    }
    assert site.allocatable() == RESOURCES["fewer"] and site.lost() == []


@LONG
def test_types_per_gpu_take_the_place_of_the_file(site: Site) -> None:
    run = site.play({0: "A10-4Q", "A10": {"A10-8Q": 2}}, file=False)
    assert NODE not in run.failures(), run.output
    assert site.allocatable() == {"nvidia.com/NVIDIA_A10-4Q": 6, "nvidia.com/NVIDIA_A10-8Q": 2} and site.lost() == []
    profile = site.lab.kubectl("get", "node", NODE)["metadata"]["labels"]["nvidia.com/vgpu.config"]
    written = yaml.safe_load(site.lab.kubectl("get", "configmap", NAME, "-n", "gpu-operator")["data"]["config.yaml"])
    assert profile.startswith("A10-4Q.A10-8Q-") and profile in written["vgpu-configs"]
