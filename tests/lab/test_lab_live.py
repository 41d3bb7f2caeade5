# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One whole lab of its own, up and down: what is real in it, that it keeps to itself, and that it comes back to fresh."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import kubevirt, lifecycle, nodes, processes, switch
from tests.lab.api import Api, ApiError
from tests.lab.layout import CHECKOUT, Layout

RESOURCE = "nvidia.com/GA102GL_A10"
INSTANCES = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"


def lab(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "tests/lab/lab.py"), *arguments],
        env={**os.environ, "GPUFLEET_LAB_DIR": str(layout.directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def until(what: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true answer; a failure that shows the last one."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    return answer


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    layout = Layout(tmp_path_factory.mktemp("live") / "lab")
    assert lab(layout, "build").returncode == 0
    began = time.monotonic()
    up = lab(layout, "up", "--nodes", "1")
    took = time.monotonic() - began
    try:
        assert up.returncode == 0, up.stderr
        assert took <= 25, f"lab up took {took:.1f} s with its programs in the cache"
        yield layout
    finally:
        down = lab(layout, "down")
    assert down.returncode == 0, down.stderr
    assert not layout.directory.exists()
    assert processes.running(layout) == {}


@pytest.fixture(scope="module")
def api(layout: Layout) -> Api:
    return lifecycle.admin(layout)


@pytest.fixture
def fresh(layout: Layout, api: Api) -> Iterator[Api]:
    """The lab as a test finds it after `reset`; without the operand simulation, which is tested apart."""
    reset = lab(layout, "reset")
    assert reset.returncode == 0, reset.stderr
    yield api


def permit(api: Api, *resources: str) -> None:
    entries = [{"pciVendorSelector": "10DE:2236", "resourceName": r, "externalResourceProvider": True} for r in resources]
    api.patch(kubevirt.OBJECT, {"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": entries}}}})


def machine(api: Api, name: str) -> None:
    spec = {"domain": {"resources": {"requests": {"memory": "64Mi"}}, "devices": {"gpus": [{"name": "gpu", "deviceName": RESOURCE}]}}}
    api.create(INSTANCES, {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name}, "spec": spec})


def synchronized(api: Api, name: str) -> str:
    conditions = api.get(f"{INSTANCES}/{name}").get("status", {}).get("conditions", [])
    return next((c["message"] for c in conditions if c["type"] == "Synchronized"), "")


def test_everything_runs_and_up_again_says_so(layout: Layout) -> None:
    assert lab(layout, "status").returncode == 0
    again = lab(layout, "up", "--nodes", "1")
    assert again.returncode == 0
    assert "already up" in again.stdout
    other = lab(layout, "up", "--nodes", "2")
    assert other.returncode == 1
    assert "plain: 1" in other.stderr
    assert "lab down" in other.stderr


def test_nodes_carry_the_boot_ids_of_their_trees_and_no_word_about_gpus(layout: Layout, fresh: Api) -> None:
    found = {n["metadata"]["name"]: n for n in fresh.items(nodes.NODES)}
    trees = {p.name: nodes.boot_id(p) for p in layout.hosts.iterdir()}
    assert set(found) == {*trees, nodes.STRANGER, "plain-0"}
    assert {name: found[name]["status"]["nodeInfo"]["bootID"] for name in trees} == trees
    assert len({n["status"]["nodeInfo"]["bootID"] for n in found.values()}) == len(found)
    words = [
        w for n in found.values() for w in (*n["metadata"]["labels"], *n["status"]["allocatable"]) if "nvidia" in w or "feature.node" in w
    ]
    assert words == []


def test_the_lab_listens_on_loopback_only(layout: Layout) -> None:
    sockets = set()
    for pids in processes.running(layout).values():
        for pid in pids:
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    sockets.add(os.readlink(fd))
                except OSError:
                    continue
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.append(fields[1].split(":")[0])
    assert len(listening) >= 8
    assert set(listening) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_keys_and_kubeconfigs_are_the_owners_only(layout: Layout) -> None:
    secret = [*layout.pki.glob("*.key"), *layout.directory.glob("*.kubeconfig")]
    assert len(secret) > 10
    assert {stat.S_IMODE(p.stat().st_mode) for p in secret} == {0o600}
    assert stat.S_IMODE(layout.directory.stat().st_mode) == 0o700


def test_the_audit_log_has_what_playbooks_write_and_shows_dry_runs(layout: Layout, fresh: Api) -> None:
    gpufleet = Api(layout, layout.read()["ports"]["kube-apiserver"], "operator")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}}
    offset = layout.audit.stat().st_size
    gpufleet.items("/api/v1/namespaces/default/configmaps")
    gpufleet.request("POST", "/api/v1/namespaces/default/configmaps", body, dryRun="All")
    gpufleet.create("/api/v1/namespaces/default/configmaps", body)
    with open(layout.audit) as file:
        file.seek(offset)
        events = [json.loads(line) for line in file]
    mine = [
        (e["verb"], "dryRun=All" in e["requestURI"], e["responseStatus"]["code"]) for e in events if e["user"]["username"] == "gpufleet"
    ]
    assert mine == [("create", True, 201), ("create", False, 201)]
    assert {e["user"]["username"] for e in events} <= {"gpufleet", "admin", "gpu-operator-simulation"}


def test_admission_is_kubevirts_own(fresh: Api) -> None:
    with pytest.raises(
        ApiError, match=r'admission webhook "virtualmachineinstances-create-validator\.kubevirt\.io" denied.*no-such-volume'
    ):
        fresh.create(INSTANCES, {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "bad"}, "spec": {
            "domain": {"devices": {"disks": [{"name": "no-such-volume", "disk": {}}]}, "resources": {"requests": {"memory": "64Mi"}}}}})  # fmt: skip


def test_a_machine_is_explained_then_scheduled_then_lost_with_its_node(layout: Layout, fresh: Api) -> None:
    permit(fresh)
    machine(fresh, "probe")
    until(lambda: f"GPU {RESOURCE} is not permitted in permittedHostDevices configuration" in synchronized(fresh, "probe"))
    permit(fresh, RESOURCE)
    fresh.patch(f"{nodes.NODES}/{nodes.STRANGER}/status", {"status": {"capacity": {RESOURCE: "1"}, "allocatable": {RESOURCE: "1"}}})
    # A lab host is needed for the reboot, and the simulation decides what lab hosts advertise: so the machine runs on the stranger,
    # and losing it is asked for without the reboot of a tree.
    until(lambda: fresh.get(f"{INSTANCES}/probe")["status"]["phase"] == "Scheduled")
    assert fresh.get(f"{INSTANCES}/probe")["status"]["nodeName"] == nodes.STRANGER
    nodes.lose_machines(layout, fresh, nodes.STRANGER, "reboot")
    until(lambda: fresh.get(f"{INSTANCES}/probe")["status"]["phase"] == "Failed")
    event = json.loads(layout.events.read_text().splitlines()[-1])
    assert {k: event[k] for k in ("event", "vm", "node", "why")} == {
        "event": "vm_lost",
        "vm": "default/probe",
        "node": nodes.STRANGER,
        "why": "reboot",
    }


def test_a_reboot_changes_the_boot_id_of_tree_and_node_alike(layout: Layout, fresh: Api) -> None:
    host = min(p.name for p in layout.hosts.iterdir())
    before = nodes.boot_id(layout.hosts / host)
    done = lab(layout, "reboot", host)
    assert done.returncode == 0, done.stderr
    node = fresh.get(f"{nodes.NODES}/{host}")
    assert before != nodes.boot_id(layout.hosts / host) == node["status"]["nodeInfo"]["bootID"]
    until(lambda: not fresh.get(f"{nodes.NODES}/{host}")["spec"].get("taints"))


def test_rebooting_what_is_no_host_of_the_lab_names_those_that_are(layout: Layout) -> None:
    for name in (nodes.STRANGER, "..", ""):
        done = lab(layout, "reboot", name)
        assert done.returncode == 1
        assert "gpu-container-0" in done.stderr


# ------------------------------------------------------------------ faults


@pytest.fixture
def switched(layout: Layout, fresh: Api) -> Iterator[Callable[..., Api]]:
    """Switches faults; the playbooks' client, as their kubeconfig then has it. In the end there are none."""

    def to(*names: str) -> Api:
        done = lab(layout, "fault", *names)
        assert done.returncode == 0, done.stderr
        [server] = re.findall(r"server: https://127\.0\.0\.1:(\d+)", layout.kubeconfig("operator").read_text())
        return Api(layout, int(server), "operator")

    yield to
    direct = to("none")
    assert direct.get("/version")["major"] == "1"
    assert "fault-proxy" not in processes.running(layout)
    assert lab(layout, "status").returncode == 0


def test_faults_of_the_api_stand_between_the_playbooks_and_the_api_server_and_nobody_else(
    layout: Layout, switched: Callable[..., Api], fresh: Api
) -> None:
    node = f"{nodes.NODES}/{nodes.STRANGER}"
    through = switched("api-conflict", "sticky-pause")
    offset = layout.audit.stat().st_size
    through.patch(node, {"metadata": {"labels": {"seen": "1"}}})
    with pytest.raises(ApiError, match="409: Operation cannot be fulfilled"):
        through.patch(node, {"metadata": {"labels": {"seen": "2"}}})
    assert fresh.get(node)["metadata"]["labels"]["seen"] == "1"
    with open(layout.audit) as file:
        file.seek(offset)
        assert [json.loads(line)["user"]["username"] for line in file if '"gpufleet"' in line] == ["gpufleet"]
    assert switch.active(layout) == ["api-conflict", "sticky-pause"] and lab(layout, "status").returncode == 0
    for identity in ("admin", None):
        with pytest.raises(ApiError, match="no answer"):
            Api(layout, layout.read()["ports"]["fault-proxy"], identity).get("/version")


def test_a_webhook_that_is_down_stops_the_playbooks_and_not_the_lab(switched: Callable[..., Api], fresh: Api) -> None:
    user = switched("webhook-down")
    change = {"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": []}}}}
    with pytest.raises(ApiError, match=r"failed calling webhook.*connection refused"):
        user.patch(kubevirt.OBJECT, change)
    fresh.patch(kubevirt.OBJECT, change)


def test_a_fault_that_is_none_is_refused_with_those_that_are(layout: Layout, switched: Callable[..., Api]) -> None:
    done = lab(layout, "fault", "gremlins")
    assert done.returncode == 1 and "gremlins is not known. Known: none, no-nfd" in done.stderr


def test_a_reset_leaves_nothing_of_what_was_made(layout: Layout, fresh: Api) -> None:
    def shape() -> dict[str, Any]:
        return {
            "namespaces": sorted(n["metadata"]["name"] for n in fresh.items("/api/v1/namespaces")),
            "definitions": sorted(d["metadata"]["name"] for d in fresh.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")),
            "kubevirt": fresh.get(kubevirt.OBJECT)["spec"],
            "nodes": {n["metadata"]["name"]: (n["metadata"]["labels"], n["status"]["allocatable"]) for n in fresh.items(nodes.NODES)},
            "default": sorted(c["metadata"]["name"] for c in fresh.items("/api/v1/namespaces/default/configmaps")),
            "machines": fresh.items(INSTANCES),
            "events": layout.events.read_text(),
        }

    before = shape()
    fresh.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-operator"}})
    fresh.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.nvidia.com"},
        "spec": {"group": "nvidia.com", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"}, "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})  # fmt: skip
    fresh.create("/api/v1/namespaces/default/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left"}})
    permit(fresh, RESOURCE)
    machine(fresh, "left")
    fresh.patch(
        f"{nodes.NODES}/{nodes.STRANGER}",
        {"metadata": {"labels": {"nvidia.com/gpu.workload.config": "container"}}, "spec": {"unschedulable": True}},
    )
    nodes.record(layout, event="vm_lost", vm="a/b", node="c", why="d")
    assert shape() != before
    done = lab(layout, "reset")
    assert done.returncode == 0, done.stderr
    assert shape() == before


def test_kubectl_and_helm_are_at_hand(layout: Layout) -> None:
    got = lab(layout, "kubectl", "get", "nodes", "-o", "name")
    assert "node/gpu-vgpu-0" in got.stdout.split()
    assert lab(layout, "helm", "version", "--short").stdout.startswith("v4.")
    env = lab(layout, "env").stdout
    script = env + '\nkubectl config view --minify -o jsonpath="{.users[0].name}" && command -v helm'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("gpufleet")
    assert str(layout.programs / "helm") in done.stdout


def test_a_start_that_is_interrupted_leaves_nothing_running(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "interrupted")
    environment = {**os.environ, "GPUFLEET_LAB_DIR": str(other.directory)}
    with subprocess.Popen([sys.executable, str(CHECKOUT / "tests/lab/lab.py"), "up"], env=environment, stdout=subprocess.DEVNULL) as up:
        until(lambda: "kube-apiserver" in processes.running(other))
        up.terminate()
        assert up.wait(30) == 143
    assert processes.running(other) == {}
    assert [p.name for p in other.directory.iterdir()] == ["log"]


def test_a_dead_part_is_reported_and_up_explains_it(layout: Layout) -> None:
    """Last, because it leaves the lab broken for `down`, which has to cope."""
    [pid] = processes.running(layout)["kwok"]
    os.kill(pid, 9)
    until(lambda: "kwok" not in processes.running(layout))
    status = lab(layout, "status")
    assert status.returncode == 1
    assert "kwok does not run" in status.stdout
    up = lab(layout, "up", "--nodes", "1")
    assert up.returncode == 1
    assert "kwok does not run" in up.stderr
    assert "lab down" in up.stderr
