# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing the lab up, back to fresh, and down."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.lab import build, cluster, kubevirt, nodes, owned, pki, processes, profiles, registry, switch
from tests.lab import faults as fault_table
from tests.lab.api import Api, ApiError
from tests.lab.layout import CHECKOUT, COMMAND, LabError, Layout

# Namespaces that a fresh lab has.
_OWN_NAMESPACES = {"default", "kube-node-lease", "kube-public", "kube-system", kubevirt.NAMESPACE}
_OWN_GROUPS = ("kubevirt.io",)
_GRACE = 1.0  # seconds from SIGTERM to SIGKILL: what the parts would save is thrown away


def admin(layout: Layout) -> Api:
    """The client of a lab that is up."""
    return Api(layout, int(layout.read()["ports"]["kube-apiserver"]))


def up(layout: Layout, faults: Sequence[str] = (), plain: int = 0, profile: str = "mixed", say: Callable[[str], None] = print) -> None:
    """Start a lab, or find that it already runs; on failure nothing is left but the logs."""
    profiles.profile(profile)
    wanted = {"faults": fault_table.chosen(faults), "plain": plain, "profile": profile}
    if layout.is_lab() or processes.running(layout):
        with layout.lock():
            _already_up(layout, wanted, say)
        return
    directory = build.programs()
    with layout.lock():
        if layout.is_lab() or processes.running(layout):
            _already_up(layout, wanted, say)
            return
        began = time.monotonic()
        ports = processes.free_ports(cluster.PORTS)
        layout.create({"ports": ports, "programs": str(directory), **wanted})
        try:
            _start(layout, directory, ports, wanted)
        except BaseException:
            processes.stop(layout, seconds=_GRACE)
            layout.remove(keep_log=True)
            raise
        say(
            f"The lab is up after {time.monotonic() - began:.1f} s: https://127.0.0.1:{ports['kube-apiserver']}, state in {layout.directory}"
        )
        say(f"Its inventory: {profiles.inventory(layout, profile)}")
        say(f'For this shell: eval "$({COMMAND} env)"')


def _already_up(layout: Layout, wanted: dict[str, Any], say: Callable[[str], None]) -> None:
    record, sick = layout.read() if layout.is_lab() else {}, problems(layout)
    if sick:
        raise LabError(f"A lab is left over in {layout.directory}: {'; '.join(sick)}. Clean up with `{COMMAND} down`.")
    if differs := [k for k, v in wanted.items() if record.get(k) != v]:
        have = ", ".join(f"{k}: {record.get(k)}" for k in differs)
        raise LabError(
            f"A lab with other options is up in {layout.directory} ({have}). Stop it with `{COMMAND} down` first; faults alone: `{COMMAND} fault`."
        )
    say(f"The lab is already up: https://127.0.0.1:{record['ports']['kube-apiserver']}, state in {layout.directory}")


def problems(layout: Layout) -> list[str]:
    """What keeps a lab from being healthy; nothing when it is."""
    alive = processes.running(layout)
    if not layout.is_lab():
        return [f"its state is gone, but these run: {processes.describe(alive)}"] if alive else ["there is none"]
    expected = [part for part in cluster.PARTS if part != "simulation" or _has_simulation()]
    expected += switch.parts(layout)
    if not alive:
        return ["it has a state, but nothing of it runs"]
    if dead := [part for part in expected if part not in alive]:
        return [f"{part} does not run" for part in dead]
    checks = cluster.health(layout, layout.read()["ports"])
    return [f"{part} is not healthy: {found}" for part, trouble in checks.items() if (found := trouble())]


def _start(layout: Layout, directory: Any, ports: dict[str, int], wanted: dict[str, Any]) -> None:
    layout.programs.symlink_to(directory)
    layout.events.touch(mode=0o600)
    pki.make(layout.pki)
    pki.write_kubeconfigs(layout, ports["kube-apiserver"])
    argv = cluster.commands(layout, directory, ports)
    checks = cluster.health(layout, ports)
    cluster.start_api_server(layout, argv, checks)
    for part in ("kube-controller-manager", "kube-scheduler", "kwok"):
        processes.start(layout, part, argv[part])
    api = admin(layout)
    kubevirt.install(layout, api, directory)
    nodes.build_trees(layout)
    profiles.write_inventory(layout, wanted["profile"])
    for part in ("kube-controller-manager", "kube-scheduler", "kwok"):
        processes.wait(layout, part, checks[part])
    nodes.create(layout, api, wanted["plain"])
    kubevirt.start(layout, api, directory, argv, checks, ports["virt-api"])
    wait_for_nodes(api)
    _start_simulation(layout)
    switch.carry_out(layout, wanted["faults"])


def wait_for_nodes(api: Api, seconds: float = 30) -> None:
    """Until every node is ready and nothing keeps pods away from it."""
    deadline = time.monotonic() + seconds
    while True:
        waiting = [n["metadata"]["name"] for n in api.items(nodes.NODES) if n["spec"].get("taints") or not _is_ready(n)]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise LabError(
                f"Waiting for the lab's nodes: {', '.join(waiting)} not ready after {seconds:.0f} s. See kwok.log and kube-controller-manager.log."
            )
        time.sleep(0.1)


def _is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def _has_simulation() -> bool:
    return importlib.util.find_spec("tests.lab.operands") is not None


def _start_simulation(layout: Layout) -> None:
    if not _has_simulation():
        return
    argv = [sys.executable, "-m", "tests.lab.operands", "--kubeconfig", str(layout.kubeconfig("simulation"))]
    argv += ["--hosts", str(layout.hosts), "--events", str(layout.events)]
    processes.start(layout, "simulation", argv, cwd=CHECKOUT, environment={"PYTHONDONTWRITEBYTECODE": "1"})
    # It has no port to ask: a wrong argument or a missing package ends it within this time.
    deadline = time.monotonic() + 1
    processes.wait(layout, "simulation", lambda: None if time.monotonic() > deadline else "it has just been started")


def reset(layout: Layout, say: Callable[[str], None] = print) -> None:
    """Back to the fresh lab without restarting the control plane: all that was made since is deleted, the host trees are rebuilt."""
    record = layout.read()
    with layout.lock():
        if sick := [p for p in problems(layout) if "simulation" not in p]:
            raise LabError(
                f"Resetting the lab in {layout.directory}: {'; '.join(sick)}. Start anew with `{COMMAND} down` and `{COMMAND} up`."
            )
        began = time.monotonic()
        api = admin(layout)
        processes.stop(layout, ["simulation"])
        registry.clear(layout)
        kubevirt.clear(api)
        owned.remove(api)
        _clear_cluster(api)
        shutil.rmtree(layout.hosts)
        layout.hosts.mkdir(mode=0o700)
        nodes.build_trees(layout)
        nodes.recreate(layout, api, record["plain"])
        kubevirt.write_object(api)
        os.truncate(layout.events, 0)
        wait_for_nodes(api)
        _start_simulation(layout)
        say(f"The lab is fresh again after {time.monotonic() - began:.1f} s")


def own(layout: Layout) -> list[str]:
    """Add the hosts that own their devices; their names."""
    layout.read()
    with layout.lock():
        if sick := problems(layout):
            raise LabError(f"Adding hosts to the lab in {layout.directory}: {'; '.join(sick)}. Start one with `{COMMAND} up`.")
        api = admin(layout)
        added = owned.add(layout, api)
        wait_for_nodes(api)
    return added


def _clear_cluster(api: Api) -> None:
    """Delete what a Helm release, a playbook or a test can have made outside the lab's own namespaces, and in `default`."""
    rbac, extensions = ("/apis/rbac.authorization.k8s.io/v1", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")

    def foreign_definitions() -> list[str]:
        return [d["metadata"]["name"] for d in api.items(extensions) if not d["spec"]["group"].endswith(_OWN_GROUPS)]

    def foreign_namespaces() -> list[str]:
        return [n["metadata"]["name"] for n in api.items("/api/v1/namespaces") if n["metadata"]["name"] not in _OWN_NAMESPACES]

    for namespace in foreign_namespaces():
        api.delete(f"/api/v1/namespaces/{namespace}")
    for name in foreign_definitions():
        api.delete(f"{extensions}/{name}")
    for collection in (
        f"{rbac}/clusterroles",
        f"{rbac}/clusterrolebindings",
        "/apis/node.k8s.io/v1/runtimeclasses",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    ):
        for thing in api.items(collection):
            if thing["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "Helm":
                api.delete(f"{collection}/{thing['metadata']['name']}")
    for kind in ("pods", "configmaps", "secrets"):
        for thing in api.items(f"/api/v1/namespaces/default/{kind}"):
            if thing["metadata"]["name"] != "kube-root-ca.crt":
                api.delete(f"/api/v1/namespaces/default/{kind}/{thing['metadata']['name']}", {"gracePeriodSeconds": 0})
    deadline = time.monotonic() + 60
    while left := foreign_namespaces() + foreign_definitions():
        if time.monotonic() > deadline:
            raise LabError(
                f"Resetting the lab: {', '.join(left)} still there after 60 s. Start anew with `{COMMAND} down` and `{COMMAND} up`."
            )
        time.sleep(0.2)


def down(layout: Layout, say: Callable[[str], None] = print) -> None:
    """Stop everything of the lab and remove its state; done already is fine."""
    with layout.lock():
        stopped = processes.stop(layout, seconds=_GRACE)
        was = layout.is_lab()
        layout.remove()
    say(
        f"The lab in {layout.directory} is gone" + (f" ({', '.join(stopped)} stopped)" if stopped else "")
        if was or stopped
        else f"No lab in {layout.directory}"
    )


def status(layout: Layout, say: Callable[[str], None] = print) -> bool:
    """Print parts, addresses and nodes; whether the lab is healthy."""
    sick = problems(layout)
    if not layout.is_lab() and not processes.running(layout):
        say(f"No lab in {layout.directory}")
        return False
    alive = processes.running(layout)
    record = layout.read() if layout.is_lab() else {"ports": {}}
    say(f"State     {layout.directory}")
    say(f"Programs  {record.get('programs', '?')}")
    if "profile" in record:
        say(f"Profile   {record['profile']}, inventory in {profiles.inventory(layout, record['profile'])}")
    if record.get("faults"):
        say(f"Faults    {', '.join(record['faults'])}")
    for part in (*cluster.PARTS, *sorted(set(alive) - set(cluster.PARTS))):
        pids = " ".join(map(str, alive.get(part, []))) or "-"
        port = record["ports"].get(part)
        scheme = "http" if part == "kwok" else "https"
        say(f"{part:<24} pid {pids:<8} {f'{scheme}://127.0.0.1:{port}' if port else ''}".rstrip())
    try:
        for node in admin(layout).items(nodes.NODES) if layout.is_lab() else []:
            ready = "Ready" if _is_ready(node) else "NotReady"
            gpus = {k: v for k, v in node["status"].get("allocatable", {}).items() if k.startswith("nvidia.com/")}
            say(f"{node['metadata']['name']:<24} {ready:<9} boot {node['status']['nodeInfo']['bootID'][:8]}  {gpus or ''}".rstrip())
    except (ApiError, OSError):
        say("nodes                    the API server does not answer")
    for problem in sick:
        say(f"PROBLEM   {problem}")
    return not sick
