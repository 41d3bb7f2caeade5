# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import time
import typing as t
import uuid
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _vgpu_host
from tests.hosts import kernel_vgpu, tree
from tests.hosts.vgpu_node import MACHINE, VF1, A, B, Node, build, gpu, said

Make = t.Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path, reacting: t.Any, run_module: t.Any) -> Make:
    def make(backend: str = "mdev", **more: t.Any) -> Node:
        build(tmp_path / "host", backend, **more)
        return Node(reacting("mdev_create", str(tmp_path / "host")), run_module, tmp_path / "host")

    return make


backends = pytest.mark.parametrize("backend", ["mdev", "vendor_vfio"])


@backends
def test_vgpus_are_made_and_a_second_run_changes_nothing(node: Make, backend: str) -> None:
    host = node(backend)
    wish = [gpu(("A10-4Q", 6)), gpu(("NVIDIA A10-12Q", 2), address=B)]
    before = host.snapshot()
    checked = host.run(*wish, check=True)
    assert host.snapshot() == before
    made = host.run(*wish)
    assert not made["failed"], made
    assert checked["changed"] and checked["changes"] == made["changes"] and len(made["changes"]) == 8
    assert host.counts() == {A: {"NVIDIA A10-4Q": 6}, B: {"NVIDIA A10-12Q": 2}}
    assert [entry["counts"] for entry in made["gpus"]] == [{"NVIDIA A10-4Q": 6}, {"NVIDIA A10-12Q": 2}]
    assert all(entry["backend"] == backend for entry in made["gpus"])
    writes = len(host.host.written)
    again = host.run(*wish)
    assert not again["failed"] and not again["changed"] and len(host.host.written) == writes


@backends
def test_128_vgpus_are_made_fast_and_a_converged_run_is_faster(tmp_path: Path, reacting: t.Any, run_module: t.Any, backend: str) -> None:
    addresses = [f"0000:{bus:02x}:00.0" for bus in range(0x21, 0x21 + 8 * 16, 16)]
    gpus = [tree.Gpu(address, driver="nvidia", vfs=16, backend=backend) for address in addresses]
    tree.build(tmp_path / "host", tree.HostSpec(gpus, cmdline="intel_iommu=on"))
    (tmp_path / "host/etc/machine-id").write_text(f"{MACHINE}\n")
    reacting("mdev_create", str(tmp_path / "host"))
    params = {"host_root": str(tmp_path / "host"), "gpus": [gpu(("A10-1Q", 16), address=address) for address in addresses]}
    # Time of the processor, so that what else the machine does is not counted; the module waits for nothing here.
    started = time.process_time()
    made = run_module("mdev_create", params)
    took = time.process_time() - started
    assert not made["failed"] and len(made["changes"]) == 128
    started = time.process_time()
    assert not run_module("mdev_create", params)["changed"]
    assert took <= 1.5
    assert time.process_time() - started <= 0.5


def test_uuids_are_the_same_in_each_run_on_a_host_and_others_on_another_one(node: Make) -> None:
    host = node()
    first = host.run(gpu(("A10-8Q", 3)), check=True)["changes"]
    devices = [change["after"]["device"] for change in first]
    assert [uuid.UUID(device).version for device in devices] == [5] * 3 and len(set(devices)) == 3
    assert MACHINE not in str(first)
    (host.root / "etc/machine-id").write_text("f" * 32)
    others = [change["after"]["device"] for change in host.run(gpu(("A10-8Q", 3)), check=True)["changes"]]
    assert not set(devices) & set(others)


def test_without_a_machine_id_no_mediated_device_is_made(node: Make) -> None:
    host = node()
    (host.root / "etc/machine-id").write_text("uninitialized\n")
    refused = host.run(gpu(("A10-4Q", 1)))
    assert refused["failed"] and "no machine id" in said(refused) and host.counts() == {}


@backends
def test_exact_removes_what_is_not_wanted_and_present_does_not(node: Make, backend: str) -> None:
    host = node(backend)
    host.run(gpu(("A10-4Q", 6)), gpu(("A10-6Q", 2), address=B))
    kept = host.run(gpu(("A10-4Q", 2)), state="present")
    assert not kept["failed"] and not kept["changed"]
    fewer = host.run(gpu(("A10-4Q", 2)))
    assert [change["action"] for change in fewer["changes"]] == ["remove"] * 4
    assert host.counts() == {A: {"NVIDIA A10-4Q": 2}, B: {"NVIDIA A10-6Q": 2}}
    other = host.run(gpu(("A10-12Q", 2)))
    assert [change["action"] for change in other["changes"]] == ["remove"] * 2 + ["create"] * 2
    assert host.counts() == {A: {"NVIDIA A10-12Q": 2}, B: {"NVIDIA A10-6Q": 2}}
    assert not host.run(gpu(("A10-12Q", 2)))["changed"]


@backends
def test_absent_removes_the_types_named_or_everything(node: Make, backend: str) -> None:
    host = node(backend)
    host.run(gpu(("A10-2Q", 2), ("A10-2B", 2)))
    assert host.counts() == {A: {"NVIDIA A10-2Q": 2, "NVIDIA A10-2B": 2}}
    gone = host.run({"address": A, "types": [{"type": "A10-2Q"}]}, state="absent")
    assert len(gone["changes"]) == 2 and host.counts() == {A: {"NVIDIA A10-2B": 2}}
    assert len(host.run({"address": A}, state="absent")["changes"]) == 2 and host.counts() == {}
    assert not host.run({"address": A}, state="absent")["changed"]


def test_a_gpu_is_found_by_index_or_model(node: Make) -> None:
    host = node()
    types = [{"type": "A10-24Q", "count": 1}]
    assert not host.run({"index": 1, "types": types})["failed"]
    assert host.counts() == {B: {"NVIDIA A10-24Q": 1}}
    assert len(host.run({"vendor_device": "10de:2236", "types": types})["changes"]) == 1
    assert host.counts() == {A: {"NVIDIA A10-24Q": 1}, B: {"NVIDIA A10-24Q": 1}}


def test_a_gpu_before_ampere_takes_several_itself(node: Make) -> None:
    host = node(vfs=0, vfs_total=0)
    kernel_vgpu.make_parent_of(host.root, A)
    made = host.run(gpu(("A10-4Q", 6)))
    assert not made["failed"], made
    assert {change["after"]["parent"] for change in made["changes"]} == {A}
    assert not host.run(gpu(("A10-4Q", 6)))["changed"]
    assert len(host.run(gpu(("A10-4Q", 5)))["changes"]) == 1
    assert not host.run(gpu(("A10-4Q", 6)))["failed"]
    assert host.counts() == {A: {"NVIDIA A10-4Q": 6}}


def test_a_vendor_vgpu_is_told_by_the_name_that_was_kept(node: Make) -> None:
    host = node("vendor_vfio")
    host.run(gpu(("A10-4Q", 6)))
    memory = host.root / "var/lib/gpufleet/vgpu_types.json"
    assert memory.stat().st_mode & 0o777 == 0o600
    assert host.run(gpu(("A10-4Q", 6)))["gpus"][0]["counts"] == {"NVIDIA A10-4Q": 6}
    memory.unlink()
    lost = host.run(gpu(("A10-4Q", 6)), gpu(("A10-4Q", 6), address=B))
    # B lists them: the names are those of the model, and whoever still lists them helps the others.
    assert not lost["failed"], lost
    memory.unlink()
    blind = host.run(gpu(("A10-4Q", 6)), gpu(("A10-4Q", 6), address=B))
    assert blind["failed"] and "names no type" in said(blind)
    assert not host.run({"address": A}, {"address": B}, state="absent")["failed"]
    assert not host.run(gpu(("A10-4Q", 6)))["failed"]


def test_names_of_another_driver_are_not_believed(node: Make) -> None:
    host = node("vendor_vfio")
    host.run(gpu(("A10-4Q", 6)))
    tree._write(host.root, "sys/module/nvidia/version", "570.1\n")
    assert "names no type" in said(host.run(gpu(("A10-4Q", 6))))


def test_placement_ids_are_written_before_the_type_and_read_back(node: Make) -> None:
    host = node("vendor_vfio")
    for number in range(6):
        path = host.host.resolve(f"/sys/bus/pci/devices/{A}/virtfn{number}")
        tree._write(host.root, f"{path[1:]}/nvidia/placement_id", "0\n")
    wish = {"address": A, "types": [{"type": "A10-12Q", "count": 2, "placement_ids": [12, 0]}]}
    made = host.run(wish)
    assert not made["failed"], made
    writes = [(path.rpartition("/")[2], text) for path, text in host.host.written]
    assert writes == [("placement_id", "0"), ("current_vgpu_type", "596"), ("placement_id", "12"), ("current_vgpu_type", "596")]
    assert not host.run(wish)["changed"]


# Refusals: nothing is written, and what was found and what to do is said.


@pytest.fixture(scope="module")
def one_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refusals") / "host"
    build(root)
    return root


@pytest.fixture
def untouched(one_tree: Path, reacting: t.Any, run_module: t.Any) -> Node:
    """A host that no test changes, so that one is enough for all."""
    return Node(reacting("mdev_create", str(one_tree)), run_module, one_tree)


@pytest.mark.parametrize(
    ("wish", "more", "expected"),
    [
        ([gpu(("A10-4Q", 1), address="0000:99:00.0")], {}, "0000:41:00.0 (10DE:2236)"),
        ([gpu(("A10-4Q", 1), address="41:00.0")], {}, "no PCI address"),
        ([{"index": 7, "types": []}], {}, "index: 7"),
        ([{"vendor_device": "2236", "types": []}], {}, "no PCI vendor:device"),
        ([gpu(("A10-4Q", 1), index=0)], {}, "by address and index"),
        ([{"types": [{"type": "A10-4Q", "count": 1}]}], {}, "by none"),
        ([gpu(("A10-4Q", 1)), {"index": 0, "types": []}], {}, "more than one entry"),
        ([gpu(("A10-4Q", 0))], {"state": "present"}, "the count of A10-4Q is 0"),
        ([gpu(("A10-4Q", -1))], {}, "the count of A10-4Q is -1"),
        ([{"address": A, "types": [{"type": "A10-4Q"}]}], {}, "the count of A10-4Q is None"),
        ([{"address": A}], {"state": "present"}, "names no type"),
        ([gpu(("A10-5Q", 1))], {}, "NVIDIA A10-4Q"),
        ([gpu(("A10-8Q", 4))], {}, "the driver says 3 fit"),
        ([gpu(("A10-1Q", 7))], {}, "6 virtual functions"),
        ([gpu(("A10-4Q", 1), ("NVIDIA A10-4Q", 2))], {}, "listed more than once"),
        ([gpu(("A10-4Q", 2), ("A10-8Q", 1))], {}, "different sizes"),
        ([gpu(("A10-12Q", 2), ("A10-8Q", 1))], {"mixed_size": "on"}, "32 GB are wanted together"),
        ([{"address": A, "types": [{"type": "A10-4Q", "count": 1, "placement_ids": [0]}]}], {}, "mediated devices take none"),
        ([{"address": A, "types": [{"type": "A10-4Q", "count": 2, "placement_ids": [0]}]}], {}, "1 placement_ids for 2"),
        ([{"address": A, "types": [{"type": "A10-4Q", "count": 2, "placement_ids": [4, 4]}]}], {}, "not different numbers"),
        ([gpu(("A10-4Q", 1))], {"owner": "operator"}, "Operator owns its devices"),
        ([gpu(("A10-4Q", 1))], {"backend": "vendor_vfio"}, "its driver offers mdev"),
        ([gpu(("A10-4Q", 1))], {"planned_vfs": [{"address": A}]}, "no address and count"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_cannot_be_is_refused_before_anything_is_written(
    untouched: Node, wish: list[dict[str, t.Any]], more: dict[str, t.Any], expected: str, check: bool
) -> None:
    host = untouched
    before = host.snapshot()
    refused = host.run(*wish, check=check, **more)
    assert refused["failed"] and not refused.get("changed")
    assert expected in said(refused)
    assert all(set(blocker) == {"target", "problem", "remedy"} and all(blocker.values()) for blocker in refused["blockers"])
    assert host.snapshot() == before


def test_a_gpu_without_types_says_why(node: Make) -> None:
    host = node(vfs=0)
    assert "without virtual functions" in said(host.run(gpu(("A10-4Q", 1))))
    assert not host.run({"address": A, "types": []})["failed"]
    assert not host.run(gpu(("A10-4Q", 0)))["failed"]
    assert not host.run(gpu(("A10-4Q", 1)), state="absent")["failed"]
    assert not host.run(gpu(("A10-4Q", 0), ("A10-8Q", 0), address=B))["failed"]


def test_a_type_that_the_driver_does_not_know_is_absent_where_nothing_is_and_a_mistake_where_something_is(node: Make) -> None:
    host = node()
    gone = {"address": A, "types": [{"type": "A10-5Q"}]}
    absent = host.run(gone, state="absent")
    assert not absent["failed"] and not absent["changed"]
    host.run(gpu(("A10-4Q", 1)))
    assert "NVIDIA A10-4Q" in said(host.run(gone, state="absent"))


@backends
def test_a_held_vgpu_is_not_removed_and_its_vm_is_named(node: Make, backend: str) -> None:
    host = node(backend)
    host.run(gpu(("A10-4Q", 2)), gpu(("A10-4Q", 1), address=B))
    device = host.run(gpu(("A10-4Q", 2)))["gpus"][0]["devices"][0]
    kernel_vgpu.hold(host.host, device["parent"], vm="render-1", device=device["device"] if backend == "mdev" else None)
    writes = len(host.host.written)
    for wish, state in ((gpu(("A10-8Q", 1)), "exact"), ({"address": A}, "absent")):
        refused = host.run(wish, state=state)
        assert refused["failed"] and "VM render-1" in said(refused) and "process 4711 (qemu-kvm" in said(refused)
        assert len(host.host.written) == writes
    # It counts as one that is wanted, and the other GPU is served.
    mixed = host.run(gpu(("A10-4Q", 1)), gpu(("A10-8Q", 1), address=B))
    assert not mixed["failed"], mixed
    assert [entry["device"] for entry in mixed["gpus"][0]["devices"]] == [device["device"]]


@backends
def test_a_vgpu_that_is_taken_between_plan_and_write_is_not_removed(node: Make, backend: str) -> None:
    host = node(backend)
    host.run(gpu(("A10-4Q", 3)))
    devices = host.run(gpu(("A10-4Q", 3)))["gpus"][0]["devices"]

    def starts(path: str, text: str) -> None:
        kernel_vgpu.hold(host.host, devices[1]["parent"], device=devices[1]["device"] if backend == "mdev" else None)

    host.host.fault(r".*/remove|.*/current_vgpu_type", starts, times=1)
    stopped = host.run({"address": A}, state="absent")
    assert stopped["failed"] and "in use now" in said(stopped) and "not tried" in said(stopped)
    assert host.counts() == {A: {"NVIDIA A10-4Q": 2}}
    assert [change["before"]["device"] for change in stopped["changes"]] == [devices[0]["device"]]


def test_where_processes_cannot_be_seen_nothing_is_removed(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 2)))
    (host.root / "proc/2/comm").write_text("pause\n")
    refused = host.run({"address": A}, state="absent")
    assert refused["failed"] and "cannot be told by whom" in said(refused) and host.counts()[A] == {"NVIDIA A10-4Q": 2}


def test_waiting_for_a_vm_ends_when_it_is_gone_or_the_time_is_up(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 1)))
    device = host.run(gpu(("A10-4Q", 1)))["gpus"][0]["devices"][0]
    kernel_vgpu.hold(host.host, device["parent"], device=device["device"])
    looked: list[float] = []
    monkeypatch.setattr(_vgpu_host.time, "sleep", looked.append)
    checked = host.run({"address": A}, state="absent", in_use="wait", check=True)
    assert not checked["failed"] and len(checked["changes"]) == 1 and "would wait" in checked["warnings"][0] and not looked
    assert "in use" in said(host.run({"address": A}, state="absent", in_use="wait", timeout=0))
    monkeypatch.setattr(_vgpu_host.time, "sleep", lambda seconds: kernel_vgpu.let_go(host.host))
    assert not host.run({"address": A}, state="absent", in_use="wait")["failed"]
    assert host.counts() == {}


def test_nothing_is_removed_before_the_wanted_is_known_to_fit(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 6)))
    writes = len(host.host.written)
    for wish, more in ((gpu(("A10-8Q", 4)), {}), (gpu(("A10-8Q", 2), ("A10-6Q", 1)), {"mixed_size": "on"})):
        refused = host.run(wish, **more)
        assert refused["failed"] and len(host.host.written) == writes
    assert "before it is known" in said(refused) and "state: absent" in said(refused)


def test_mig_backed_types_need_gpu_instances(node: Make) -> None:
    host = node()
    for number in range(6):
        path = host.host.resolve(f"/sys/bus/pci/devices/{A}/virtfn{number}")
        tree._write(host.root, f"{path[1:]}/mdev_supported_types/nvidia-700/name", "NVIDIA A100-1-5C\n")
        tree._write(host.root, f"{path[1:]}/mdev_supported_types/nvidia-700/available_instances", "1\n")
    wish = gpu(("A100-1-5C", 2))
    assert "no MIG GPU instance" in said(host.run(wish, check=True))
    tree._write(host.root, f"proc/driver/nvidia/gpus/{A}/information", "Device Minor: \t 0\n")
    for number in (1, 2):
        tree._write(host.root, f"proc/driver/nvidia/capabilities/gpu0/mig/gi{number}/access", "")
    assert len(host.run(wish, check=True)["changes"]) == 2
    assert "2 MIG GPU instances" in said(host.run(gpu(("A100-1-5C", 3)), check=True))
    assert "never share" in said(host.run(gpu(("A100-1-5C", 1), ("A10-4Q", 1)), check=True))


@pytest.mark.parametrize(
    ("backend", "number", "expected"),
    [
        ("mdev", errno.ENOSPC, "no room for another NVIDIA A10-4Q"),
        ("mdev", errno.EEXIST, "exists already"),
        ("mdev", errno.EINVAL, "does not take that type"),
        ("mdev", errno.EBUSY, "has a vGPU already"),
        ("vendor_vfio", errno.ENOSPC, "no room for another NVIDIA A10-4Q"),
        ("vendor_vfio", errno.EBUSY, "has a vGPU already"),
        ("vendor_vfio", errno.EIO, "refused to make it"),
    ],
)
def test_each_answer_of_the_kernel_has_its_own_message_and_other_gpus_go_on(node: Make, backend: str, number: int, expected: str) -> None:
    host = node(backend)
    host.host.fault(r".*/0000:41:00\.5/(nvidia/current_vgpu_type|mdev_supported_types/.*/create)", number, times=1)
    failed = host.run(gpu(("A10-4Q", 3)), gpu(("A10-4Q", 3), address=B))
    assert failed["failed"] and expected in said(failed) and VF1 in said(failed)
    assert host.counts() == {A: {"NVIDIA A10-4Q": 1}, B: {"NVIDIA A10-4Q": 3}}
    assert len(failed["changes"]) == 4 and failed["changed"]
    assert not host.run(gpu(("A10-4Q", 3)), gpu(("A10-4Q", 3), address=B))["failed"]
    assert host.counts()[A] == {"NVIDIA A10-4Q": 3}


@backends
def test_a_kernel_that_does_not_answer_is_named(node: Make, backend: str) -> None:
    host = node(backend)
    host.run(gpu(("A10-4Q", 1)))
    host.host.fault(r".*/remove|.*/current_vgpu_type", "blocks")
    blocked = host.run({"address": A}, state="absent", timeout=2)
    assert blocked["failed"] and "no answer from the kernel within 2 s" in said(blocked) and not blocked["changed"]


@backends
def test_a_write_that_does_not_take_is_an_error(node: Make, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = node(backend)
    monkeypatch.setattr(host.host, "write_kernel", lambda path, text, timeout: None)
    failed = host.run(gpu(("A10-4Q", 2)))
    assert failed["failed"] and "it has no vGPU" in said(failed)


@backends
@pytest.mark.parametrize("survives", range(7))
def test_killed_between_two_writes_it_converges(node: Make, backend: str, survives: int) -> None:
    host = node(backend)
    host.run(gpu(("A10-8Q", 3)))
    write, left = host.host.write_kernel, [survives]

    def until_killed(path: str, text: str, timeout: float = 30) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, text, timeout)

    host.host.write_kernel = until_killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        host.run(gpu(("A10-6Q", 4)))
    del host.host.write_kernel  # type: ignore[method-assign]
    after = host.run(gpu(("A10-6Q", 4)))
    assert not after["failed"], after
    assert host.counts() == {A: {"NVIDIA A10-6Q": 4}} and not host.run(gpu(("A10-6Q", 4)))["changed"]
