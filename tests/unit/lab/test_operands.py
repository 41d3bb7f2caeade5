# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts of the simulated operator, against what NVIDIA's sources say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hosts import tree
from tests.hosts.tree import HostSpec, a10s
from tests.lab.operands import daemonsets, device_manager, devices, labels, readiness
from tests.lab.operands.device_manager import PAUSABLE, PAUSED, Around, Manager
from tests.lab.operands.devices import Gpu, Host
from tests.lab.operands.labels import CONFIG, DEPLOY, NFD, OPERANDS, PRESENT, STATE, WORKLOAD, Json

GPU = {NFD: "true", PRESENT: "true"}


def node(**own: str) -> Json:
    return {"metadata": {"name": "n", "labels": own}, "status": {"nodeInfo": {"kernelVersion": "5.15.0", "bootID": "b"}}}


def policy(sandbox: bool = True, default: str = "container", **spec: Json) -> Json:
    switches = ("driver", "toolkit", "devicePlugin", "gfd", "dcgmExporter", "vfioManager", "vgpuDeviceManager", "sandboxDevicePlugin")
    complete = {"enabled": True, "repository": "r", "image": "vgpu-manager", "version": "1"}
    return {
        "metadata": {"name": "cluster-policy", "uid": "p", "generation": 1},
        "spec": {
            "sandboxWorkloads": {"enabled": sandbox, "defaultWorkload": default},
            **{name: {"enabled": True} for name in switches},
            "vgpuManager": complete,
            **spec,
        },
    }


def deployed(*names: str) -> dict[str, str]:
    return {DEPLOY + name: "true" for name in names}


def after(item: Json, changes: dict[str, str | None]) -> Json:
    return node(**{key: value for key, value in {**labels.of(item), **changes}.items() if value is not None})


# ------------------------------------------------------------------ labels


def test_nfd_names_the_gpu_of_a_gpu_node_only() -> None:
    assert labels.nfd(node(), has_gpu=True)[NFD] == "true"
    plain = labels.nfd(node(), has_gpu=False)
    assert plain and NFD not in plain
    assert labels.nfd(after(node(), dict(plain)), has_gpu=False) == {}


@pytest.mark.parametrize("form", labels.NFD_FORMS)
def test_each_of_three_forms_says_gpu(form: str) -> None:
    assert labels.is_gpu(node(**{form: "true"}))
    assert not labels.is_gpu(node(**{form: "false"}))


@pytest.mark.parametrize(
    ("given_label", "sandbox", "default", "expected"),
    [
        ("vm-vgpu", True, "container", "vm-vgpu"),
        ("vm-passthrough", True, "container", "vm-passthrough"),
        (None, True, "container", "container"),
        (None, True, "vm-passthrough", "vm-passthrough"),
        ("VM-vGPU", True, "container", "container"),
        ("vm-vgpu", False, "vm-vgpu", "container"),
    ],
)
def test_workload_of_a_node(given_label: str | None, sandbox: bool, default: str, expected: str) -> None:
    item = node(**({WORKLOAD: given_label} if given_label else {}))
    assert labels.workload(item, policy(sandbox, default)) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {}),
        ({PRESENT: "true"}, {PRESENT: "false"}),
        ({**GPU, WORKLOAD: "vm-passthrough", **deployed("driver", "client")}, {DEPLOY + "driver": None}),
        ({**GPU, WORKLOAD: "vm-passthrough", DEPLOY + "vfio-manager": "paused-by-me"}, {}),
        ({**GPU, WORKLOAD: "vm-passthrough", DEPLOY + "vfio-manager": ""}, {DEPLOY + "vfio-manager": "true"}),
        ({**GPU, OPERANDS: "false", **deployed("driver")}, {DEPLOY + "driver": None}),
        ({NFD: "true", OPERANDS: "false"}, {PRESENT: "true"}),
    ],
    ids=["no-gpu", "gpu-vanished", "other-workload-goes", "value-honoured", "empty-is-filled", "operands-false", "operands-false-new"],
)
def test_deploy_labels(own: dict[str, str], expected: dict[str, str | None]) -> None:
    changes = labels.deploy(node(**own), policy())
    if own.get(WORKLOAD):
        missing = {DEPLOY + name: "true" for name in labels.OPERANDS_OF[own[WORKLOAD]] if DEPLOY + name not in own}
        expected = {**missing, **expected}
    assert changes == expected


def test_an_unlabelled_gpu_node_gets_the_container_driver() -> None:
    assert labels.deploy(node(**{NFD: "true"}), policy())[DEPLOY + "driver"] == "true"


_values = st.sampled_from(["true", "false", "", "paused-for-vgpu-change"])


@given(
    st.dictionaries(st.sampled_from([DEPLOY + name for names in labels.OPERANDS_OF.values() for name in names]), _values),
    st.sampled_from(["container", "vm-passthrough", "vm-vgpu", "else", ""]),
)
def test_labelling_settles_at_once_and_honours_values(own: dict[str, str], workload: str) -> None:
    item = node(**GPU, **own, **{WORKLOAD: workload})
    changes = labels.deploy(item, policy())
    assert labels.deploy(after(item, changes), policy()) == {}
    assert all(value is None or not own.get(key) for key, value in changes.items())


def test_a_deploy_label_is_no_trigger() -> None:
    before = labels.triggers(node(**GPU, **deployed("driver")), policy())
    assert before == labels.triggers(node(**GPU), policy())
    for change in ({WORKLOAD: "vm-vgpu"}, {OPERANDS: "false"}, {NFD: "false"}):
        assert before != labels.triggers(node(**{**GPU, **change}), policy())


# ------------------------------------------------------------------ DaemonSets and status


@pytest.mark.parametrize(
    ("given_policy", "there", "not_there"),
    [
        (policy(), {"driver", "vfio-manager", "vgpu-manager", "sandbox-validator"}, {"dcgm", "mig-manager"}),
        (policy(sandbox=False), {"driver"}, {"vfio-manager", "sandbox-validator"}),
        (policy(vgpuManager={"enabled": False}), {"vgpu-device-manager"}, {"vgpu-manager"}),
        (policy(driver={"enabled": True, "useNvidiaDriverCRD": True}), {"vgpu-device-manager"}, {"driver", "vgpu-manager"}),
    ],
    ids=["sandbox", "no-sandbox", "device-manager-without-manager", "driver-crd"],
)
def test_which_operands_have_a_daemonset(given_policy: Json, there: set[str], not_there: set[str]) -> None:
    found = set(daemonsets.enabled(given_policy))
    assert there <= found and not not_there & found


def test_daemonset_of_an_operand() -> None:
    own = policy(daemonsets={"labels": {"helm.sh/chart": "gpu-operator-1"}, "updateStrategy": "OnDelete"})
    body = daemonsets.daemonset("vfio-manager", own, "ns")
    template = body["spec"]["template"]
    assert template["metadata"]["labels"] == {"helm.sh/chart": "gpu-operator-1", "name": "nvidia-vfio-manager"}
    assert template["spec"]["nodeSelector"] == {"nvidia.com/gpu.deploy.vfio-manager": "true"}
    assert body["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert daemonsets.operand_of(body) == "vfio-manager"
    assert daemonsets.daemonset("sandbox-validator", own, "ns")["spec"]["selector"]["matchLabels"] == {"app": "nvidia-sandbox-validator"}


def test_the_driver_is_updated_by_hand_whatever_the_policy_says() -> None:
    assert daemonsets.daemonset("driver", policy(), "ns")["spec"]["updateStrategy"]["type"] == "OnDelete"
    assert daemonsets.daemonset("vgpu-manager", policy(), "ns")["spec"]["updateStrategy"]["type"] == "RollingUpdate"


def test_a_new_chart_changes_every_daemonset_and_the_same_chart_none() -> None:
    def made(chart: str) -> dict[str, Json]:
        own = policy(daemonsets={"labels": {"helm.sh/chart": chart}})
        return {name: daemonsets.daemonset(name, own, "ns") for name in daemonsets.enabled(own)}

    old, new = made("gpu-operator-1"), made("gpu-operator-2")
    assert [name for name in old if daemonsets.update(old[name], new[name]) is None] == []
    assert [name for name in old if daemonsets.update(old[name], old[name])] == []


def rollout(wanted: int, available: int, updated: int) -> Json:
    item = daemonsets.daemonset("vfio-manager", policy(), "ns")
    item["metadata"]["generation"] = 1
    counts = {"desiredNumberScheduled": wanted, "numberAvailable": available, "updatedNumberScheduled": updated}
    return {**item, "status": {"observedGeneration": 1, **counts}}


@pytest.mark.parametrize(
    ("nodes", "sets", "expected"),
    [
        ([node(**GPU)], [rollout(1, 1, 1)], ("ready", "Reconciled")),
        ([node(**GPU)], [rollout(0, 0, 0)], ("ready", "Reconciled")),
        ([node(**GPU)], [rollout(2, 1, 2)], ("notReady", "OperandNotReady")),
        ([node(**GPU)], [rollout(2, 2, 1)], ("notReady", "OperandNotReady")),
        ([node()], [], ("ready", "NFDLabelsMissing")),
        ([node(**{"feature.node.kubernetes.io/kernel-version.full": "5"})], [], ("ready", "NoGPUNodes")),
    ],
    ids=["done", "no-pod-wanted-is-ready", "one-not-ready", "one-old-pod", "no-nfd-is-ready", "no-gpu-is-ready"],
)
def test_status(nodes: list[Json], sets: list[Json], expected: tuple[str, str]) -> None:
    state, reason, message = daemonsets.status(policy(), nodes, sets)
    assert (state, reason) == expected
    ready, error = daemonsets.conditions(state, reason, message)
    assert (ready["type"], error["type"]) == ("Ready", "Error")
    if state == "ready":
        assert (ready["status"], ready["reason"], error["status"]) == ("True", reason, "False")
    else:  # only the error says why
        assert (ready["status"], ready["reason"], ready["message"]) == ("False", "Error", "")
        assert (error["status"], error["reason"]) == ("True", reason) and "state-vfio-manager" in error["message"]


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ({"repository": "r", "image": "i", "version": "1"}, False),
        ({"repository": "", "image": "r/i:1", "version": ""}, False),
        ({"repository": "r", "image": "i", "version": ""}, True),
        ({"repository": "", "image": "i", "version": "1"}, True),
    ],
)
def test_an_image_is_whole_or_alone(image: Json, problem: bool) -> None:
    own = policy(vgpuManager={"enabled": True, **image})
    assert (daemonsets.status(own, [node(**GPU)], [])[1] == "ReconcileFailed") is problem
    assert daemonsets.image_problem(policy(vgpuManager={"enabled": False, **image})) is None


# ------------------------------------------------------------------ devices


def test_what_a_host_shows(tmp_path: Path) -> None:
    tree.build(tmp_path / "h", HostSpec(a10s(driver="nvidia", vfs=6, vfs_total=6), cmdline="intel_iommu=on"))
    found = devices.read(tmp_path / "h")
    assert [(gpu.address, gpu.device, gpu.driver, gpu.group) for gpu in found.gpus] == [
        ("0000:41:00.0", "2236", "nvidia", True),
        ("0000:a1:00.0", "2236", "nvidia", True),
    ]
    assert found.parents and found.vgpus == ()
    tree.set_vgpus(tmp_path / "h", "A10-4Q")
    assert devices.sandbox_resources(devices.read(tmp_path / "h")) == {"nvidia.com/NVIDIA_A10-4Q": 12}


@pytest.mark.parametrize(
    ("gpus", "container", "sandbox"),
    [
        ([Gpu("a", "2236", "nvidia"), Gpu("b", "2236", "nvidia")], {"nvidia.com/gpu": 2}, {}),
        ([Gpu("a", "2236", "vfio-pci"), Gpu("b", "2236", "vfio-pci")], {}, {"nvidia.com/GA102GL_A10": 2}),
        ([Gpu("a", "2236", "vfio-pci"), Gpu("b", "2236", None)], {}, {"nvidia.com/GA102GL_A10": 1}),
        ([Gpu("a", "2236", "vfio-pci", group=False)], {}, {}),
        ([Gpu("a", "3182", "vfio-pci")], {}, {"nvidia.com/3182": 1}),
        ([Gpu("a", "2230", "vfio-pci")], {}, {"nvidia.com/GA102GL_RTX_A6000": 1}),
    ],
    ids=["container", "passthrough", "one-not-bound", "no-iommu-group", "id-without-a-name", "another-model"],
)
def test_what_plugins_find(gpus: list[Gpu], container: dict[str, int], sandbox: dict[str, int]) -> None:
    assert devices.container_resources(Host(tuple(gpus))) == container
    assert devices.sandbox_resources(Host(tuple(gpus))) == sandbox


def test_the_plugin_advertises_an_audio_function_that_vfio_manager_took_too(tmp_path: Path) -> None:
    root = tmp_path / "h"
    tree.build(root, tree.LAB_HOSTS["gpu-passthrough-1"])
    assert devices.companions(root) == ["0000:41:00.1", "0000:a1:00.1"]
    tree.bind(root, "vfio-pci")
    assert devices.sandbox_resources(devices.read(root)) == {"nvidia.com/GA102GL_RTX_A6000": 2}
    tree.bind(root, "vfio-pci", devices.companions(root))
    assert devices.sandbox_resources(devices.read(root)) == {
        "nvidia.com/GA102GL_RTX_A6000": 2,
        "nvidia.com/GA102_HIGH_DEFINITION_AUDIO_CONTROLLER": 2,
    }


def test_vfio_manager_takes_no_companion_of_a_3d_controller(tmp_path: Path) -> None:
    tree.build(tmp_path / "h", HostSpec(a10s(audio=True), cmdline="intel_iommu=on"))
    assert devices.companions(tmp_path / "h") == []


def test_vfio_manager_takes_the_first_companion_alone(tmp_path: Path) -> None:
    root = tmp_path / "h"
    tree.build(root, tree.LAB_HOSTS["gpu-passthrough-1"])
    gpu = root / "sys/bus/pci/devices/0000:41:00.0"
    (gpu / "consumer:pci:0000:41:00.2").symlink_to((gpu / "consumer:pci:0000:41:00.1").readlink())
    assert devices.companions(root) == ["0000:41:00.1", "0000:a1:00.1"]


@pytest.mark.parametrize(
    ("now", "wanted", "changes"),
    [
        ({"cpu": "4"}, {"nvidia.com/gpu": 2}, {"nvidia.com/gpu": "2"}),
        ({"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": 2}, {}),
        ({"nvidia.com/gpu": "2"}, {"nvidia.com/GA102GL_A10": 2}, {"nvidia.com/gpu": "0", "nvidia.com/GA102GL_A10": "2"}),
        ({"nvidia.com/gpu": "0", "cpu": "4"}, {}, {}),
    ],
)
def test_old_resources_stay_with_the_value_0(now: dict[str, str], wanted: dict[str, int], changes: dict[str, str]) -> None:
    assert devices.allocatable(now, wanted) == changes


# ------------------------------------------------------------------ readiness

LONG = 99.0
VFIO = Host((Gpu("a", "2236", "vfio-pci"),))
VGPU = Host((Gpu("a", "2236", "nvidia"),), parents=True, vgpus=("NVIDIA A10-4Q",))
SANDBOX = ("sandbox-validator", "sandbox-device-plugin")


@pytest.mark.parametrize(
    ("workload", "running", "host", "expected"),
    [
        ("container", {"driver": 0.1, "container-toolkit": LONG, "device-plugin": LONG}, Host(), {"driver", "container-toolkit", "device-plugin"}),
        ("container", {"driver": LONG, "container-toolkit": LONG, "device-plugin": LONG}, Host(), set()),
        ("container", {"driver": LONG, "device-plugin": LONG}, Host(), {"device-plugin"}),
        ("vm-passthrough", {"vfio-manager": LONG, **dict.fromkeys(SANDBOX, LONG)}, VFIO, set()),
        ("vm-passthrough", dict.fromkeys(SANDBOX, LONG), VFIO, set(SANDBOX)),
        ("vm-passthrough", {"vfio-manager": LONG, **dict.fromkeys(SANDBOX, LONG)}, Host((Gpu("a", "2236", "nvidia"),)), set(SANDBOX)),
        ("vm-vgpu", {"vgpu-manager": LONG, "vgpu-device-manager": LONG, **dict.fromkeys(SANDBOX, LONG)}, VGPU, set()),
        ("vm-vgpu", {"vgpu-manager": LONG, "vgpu-device-manager": LONG, **dict.fromkeys(SANDBOX, LONG)}, Host(VGPU.gpus, True), set(SANDBOX)),
        ("vm-vgpu", {"vgpu-manager": 0.1, "vgpu-device-manager": LONG, "sandbox-validator": LONG}, VGPU,
         {"vgpu-manager", "vgpu-device-manager", "sandbox-validator"}),
        ("vm-vgpu", {"vgpu-manager": LONG, "vgpu-device-manager": LONG}, VGPU, {"vgpu-device-manager"}),
    ],
    ids=[
        "driver-is-loading", "container-ready", "no-toolkit", "passthrough-ready", "no-vfio-manager", "not-bound", "vgpu-ready", "no-vgpus",
        "vgpu-manager-is-loading", "killed-while-paused",
    ],
)  # fmt: skip
def test_what_is_not_ready(workload: str, running: dict[str, float], host: Host, expected: set[str]) -> None:
    here = readiness.Here(workload, running, host, frozenset(daemonsets.DAEMONSETS))
    assert set(readiness.waiting(here)) == expected


def test_an_operand_that_is_through_is_not_asked_again() -> None:
    here = readiness.Here("vm-passthrough", {"sandbox-device-plugin": LONG}, VFIO, frozenset(daemonsets.DAEMONSETS))
    assert readiness.waiting(here)
    passed = frozenset({"sandbox-device-plugin"})
    assert not readiness.waiting(readiness.Here("vm-passthrough", here.running, VFIO, here.enabled, passed))


def test_a_driver_that_the_policy_does_not_have_is_not_waited_for() -> None:
    here = readiness.Here("container", {"container-toolkit": LONG}, Host(), frozenset({"container-toolkit"}))
    assert readiness.waiting(here) == {}


# ------------------------------------------------------------------ the vGPU Device Manager

BOTH = dict.fromkeys(PAUSABLE, "true")
BARE = Host((Gpu("a", "2236", "nvidia"),), parents=True)
FULL = Host(BARE.gpus, True, ("NVIDIA A10-4Q",) * 6)


def follow(manager: Manager, item: Json, host: Host, applies: bool = True, gone: bool = True) -> tuple[Manager, list[str], Json]:
    """Step until it watches again; the states that its label showed, and the node then."""
    shown: list[str] = []
    made = host

    def apply(config: str) -> bool:
        nonlocal made
        name, most = device_manager.STOCK["A10-12Q" if config == "default" else config]
        made = Host(host.gpus, True, (name,) * most) if applies else host
        return applies

    for tick in range(400):
        manager, changes = device_manager.step(manager, Around(item, made, manager.since + tick, gone=gone), apply)
        item = after(item, changes)
        if STATE in changes:
            shown.append(str(changes[STATE]))
            if manager.step == "watching":
                return manager, shown, item
    raise AssertionError(f"it never watches again: {manager}")


@pytest.mark.parametrize(
    ("config", "host", "applies", "gone", "states", "paused"),
    [
        ("A10-4Q", BARE, True, True, ["pending", "success"], False),
        ("A10-4Q", FULL, True, True, ["success"], False),
        ("A10-4Q", BARE, False, True, ["pending", "failed"], False),
        ("A10-5Q", BARE, True, True, ["failed"], False),
        ("A10-2B", BARE, True, True, ["failed"], False),
        ("A10-4Q", BARE, True, False, ["pending", "failed"], True),
        (None, BARE, True, True, ["pending", "success"], False),
    ],
    ids=["applied", "fits-already", "apply-fails", "not-in-config", "b-series-not-in-config", "pods-do-not-go", "no-label-is-default"],
)
def test_device_manager(config: str | None, host: Host, applies: bool, gone: bool, states: list[str], paused: bool) -> None:
    item = node(**GPU, **BOTH, **({CONFIG: config} if config else {}))
    manager = device_manager.start(item, "default", 0.0)
    manager, shown, item = follow(manager, item, host, applies, gone)
    assert shown == states
    assert {labels.of(item)[key] for key in PAUSABLE} == {PAUSED if paused else "true"}


def test_plugin_and_validator_are_off_while_it_works() -> None:
    item = node(**GPU, **{PAUSABLE[0]: "true", PAUSABLE[1]: "false"}, **{CONFIG: "A10-4Q"})
    manager, changes = device_manager.step(Manager("A10-4Q"), Around(item, BARE, 9.0), lambda config: True)
    assert manager.step == "pausing"
    assert changes == {STATE: "pending", PAUSABLE[0]: PAUSED}  # what somebody has set to false stays


@pytest.mark.parametrize("own", [{CONFIG: "A10-4Q"}, {}, {CONFIG: ""}], ids=["same-value", "removed", "empty"])
def test_the_same_value_and_a_removed_label_do_nothing(own: dict[str, str]) -> None:
    manager = Manager("A10-4Q", "watching")
    around = Around(node(**own, **{STATE: "success"}), FULL, 99.0)
    assert device_manager.step(manager, around, lambda config: True) == (manager, {})


def test_the_old_state_stands_until_it_has_looked() -> None:
    item = node(**{CONFIG: "A10-8Q", STATE: "success"}, **BOTH)
    manager, changes = device_manager.step(Manager("A10-4Q", "watching"), Around(item, FULL, 5.0), lambda config: True)
    assert (manager.step, manager.wanted, changes) == ("looking", "A10-8Q", {})
    assert device_manager.step(manager, Around(item, FULL, 5.2), lambda config: True) == (manager, {})
    assert device_manager.step(manager, Around(item, FULL, 5.4), lambda config: True)[1][STATE] == "pending"


def test_labels_left_paused_are_set_back_by_the_next_change_that_runs_through() -> None:
    item = node(**{CONFIG: "A10-8Q", **dict.fromkeys(PAUSABLE, PAUSED)})
    _manager, shown, item = follow(Manager("A10-8Q"), item, FULL)
    assert shown[-1] == "success" and {labels.of(item)[key] for key in PAUSABLE} == {"true"}
