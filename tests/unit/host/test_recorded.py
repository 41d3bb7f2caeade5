# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recordings of guests of the kernel suite: what is said of them, and whether the trees that stand for hosts look like them."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import recording, tree
from tests.hosts.facts import up_to_pseudonyms
from tests.hosts.recorder import recorder

RECORDED = Path(__file__).resolve().parents[2] / "hosts" / "recorded"
GPU, AUDIO, SRIOV, OLD, SECOND, BRIDGED = (f"0000:{end}" for end in ("01:00.0", "01:00.1", "02:00.0", "03:00.0", "04:00.0", "07:01.0"))
NAMES = sorted(path.stem for path in RECORDED.glob("*.json"))

Found = t.Dict[str, t.Any]


@pytest.fixture
def recorded(tmp_path: Path) -> t.Callable[[str], Path]:
    def made(name: str) -> Path:
        recorder.write_tree(recorder.load(str(RECORDED / f"{name}.json")), str(tmp_path / name))
        return tmp_path / name

    return made


def test_a_guest_whose_firmware_describes_no_iommu(recorded) -> None:
    found: Found = _node.read(Host(str(recorded("guest-no-iommu"))))
    assert found["firmware"]["dmar"] is False and found["iommu"]["enabled"] is False
    assert [gpu["iommu_group"] for gpu in found["gpus"]] == [None] * 5


def test_a_guest_whose_kernel_leaves_the_iommu_off(recorded) -> None:
    found: Found = _node.read(Host(str(recorded("guest-iommu-off"))))
    assert found["firmware"]["dmar"] is True
    assert found["iommu"] == {"enabled": False, "kind": "none", "groups": 0, "default_domain": None}
    assert "intel_iommu=off" in found["boot"]["running"] and found["boot"]["provider"] == "grub" and found["boot"]["pending"] == []
    assert {gpu["address"]: (gpu["driver"], gpu["iommu_group"]) for gpu in found["gpus"]} == dict.fromkeys(
        (GPU, SRIOV, OLD, SECOND, BRIDGED), ("nvidia", None)
    )
    assert found["host"]["cpu_vendor"] == "AuthenticAMD"  # of QEMU's processor, whatever the IOMMU
    assert found["host"]["os_id"] == "debian" and re.fullmatch(r"6\.1\.0-\d+-amd64", found["host"]["kernel"])
    assert found["kernels"]["modules"] == {"mdev": True, "nouveau": True, "nova_core": False, "nvidiafb": False, "vfio_pci": True}


def test_a_guest_with_virtual_functions_a_vgpu_and_a_gpu_that_is_held(recorded) -> None:
    found: Found = _node.read(Host(str(recorded("guest-vgpu"))))
    assert found["iommu"]["enabled"] is True and found["iommu"]["kind"] == "intel"
    gpus = {gpu["address"]: gpu for gpu in found["gpus"]}
    assert gpus[SRIOV]["sriov"]["enabled"] == 4 and gpus[SRIOV]["vgpu"]["backend"] == "mdev"
    assert [(active["parent"], active["type"]) for active in gpus[SRIOV]["vgpu"]["active"]] == [("0000:02:10.0", "NVIDIA A10-4Q")]
    assert gpus[GPU]["driver"] == gpus[SECOND]["driver"] == "vfio-pci" and gpus[GPU]["companions"] == [AUDIO]
    assert [user["comm"] for user in gpus[SECOND]["users"]] == ["program1"] and gpus[GPU]["users"] == []
    shared = found["groups"][str(gpus[GPU]["iommu_group"])]
    assert (shared["members"], shared["viable"]) == ([GPU, AUDIO], False)
    assert found["groups"][str(gpus[SECOND]["iommu_group"])]["viable"] is True
    assert len(gpus[SRIOV]["bars"]) == 6 and max(gpus[GPU]["bars"]) == 64 << 20


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_recording_gives_the_facts_that_the_module_gave_on_the_guest_itself(recorded, run_module, name: str) -> None:
    """``gpu_node_info`` with the recording as ``host_root``, against what it said on the guest as that was recorded, up to the pseudonyms."""
    said = json.loads((RECORDED / "facts" / f"{name}.json").read_text(encoding="utf-8"))
    again = run_module("gpu_node_info", {"host_root": str(recorded(name))})
    assert not again["failed"]
    assert known_then(up_to_pseudonyms(again), said) == said


def known_then(found: t.Any, said: t.Any) -> t.Any:
    """Of facts, those that the module told when the guest was recorded: it has learnt some since, and no guest runs here."""
    if isinstance(found, dict) and isinstance(said, dict):
        return {name: known_then(fact, said[name]) for name, fact in found.items() if name in said}
    if isinstance(found, list) and isinstance(said, list) and len(found) == len(said):
        return [known_then(*pair) for pair in zip(found, said)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_holds_what_the_recorder_would_let_out_today(recorded, name: str) -> None:
    again = recorder.Recorder(str(recorded(name))).record()
    before = recorder.load(str(RECORDED / f"{name}.json"))
    assert (again.files, again.links) == (before.files, before.links)


# ------------------------------------------------------------------ trees against the kernel


def below(found: t.Any, address: str) -> dict[str, str]:
    """The files and links of a function by name, with the form of what is in them."""
    base = f"{found.links[f'sys/bus/pci/devices/{address}']}/".replace("../../../", "sys/")
    forms = {}
    for path, content in found.files.items():
        if path.startswith(base) and not path.endswith(("/config", "/driver_override")):
            forms[path[len(base) :]] = form(content.decode())
    forms.update({path[len(base) :]: "link" for path in found.links if path.startswith(base)})
    # Numbers of types and virtual functions, and whatever is below another function's directory.
    names = collections.OrderedDict((re.sub(r"(nvidia-|virtfn)\d+", r"\1N", name), kind) for name, kind in forms.items())
    return {name: kind for name, kind in names.items() if not re.match(r"[0-9a-f]{4}:|[0-9a-f]{8}-", name)}


def form(text: str) -> str:
    """A text with its values taken out: hexadecimal and decimal numbers, and the name of a vGPU type."""
    first = text.splitlines()[0] if text else ""
    if first.startswith("pci:"):
        return re.sub(r"[0-9A-F]{2,8}", "#", text)
    return re.sub(r"-?\b(0x)?[0-9a-f]+\b", r"\1#", re.sub(r"^NVIDIA A10-\S+", "TYPE", first)) + "\n" * text.endswith("\n")


@pytest.mark.parametrize(
    ("name", "backend", "real", "made"),
    [
        ("guest-vgpu", "mdev", SRIOV, "0000:41:00.0"),
        ("guest-vgpu", "mdev", "0000:02:10.2", "0000:41:00.5"),
        ("guest-vendor-vfio", "vendor_vfio", "0000:02:10.2", "0000:41:00.5"),
    ],
    ids=["physical function with virtual ones", "virtual function, parent of vGPUs", "virtual function of the vendor framework"],
)
def test_functions_of_a_tree_look_like_those_of_the_kernel(tmp_path: Path, name: str, backend: str, real: str, made: str) -> None:
    """All files and links are there and no others, with the same form of what is in them."""
    spec = tree.LAB_HOSTS["gpu-vgpu-0"]
    gpus = [dataclasses.replace(gpu, backend=backend, active={1: 593} if backend != "mdev" else {}) for gpu in spec.gpus]
    tree.build(tmp_path / "host", dataclasses.replace(spec, gpus=gpus))
    ours = below(recorder.Recorder(str(tmp_path / "host")).record(), made)
    kernels = below(recorder.load(str(RECORDED / f"{name}.json")), real)
    assert ours == kernels and {"vendor", "class", "iommu_group", "driver"} <= ours.keys()


def test_a_vgpu_of_a_tree_looks_like_that_of_the_kernel(tmp_path: Path) -> None:
    tree.build(tmp_path / "host", tree.HostSpec(tree.a10s(driver="nvidia", vfs=4, active={0: 593}), cmdline="intel_iommu=on"))

    def shown(found: t.Any) -> tuple[set[str], set[bytes]]:
        links = {path: target for path, target in found.links.items() if re.search(r"/[0-9a-f]{8}-[^/]*/[^/]*$", path)}
        groups = {target.rpartition("/")[2] for path, target in links.items() if path.endswith("iommu_group")}
        return {path.rpartition("/")[2] for path in links}, {found.files[f"sys/kernel/iommu_groups/{group}/type"] for group in groups}

    kernels = shown(recorder.load(str(RECORDED / "guest-vgpu.json")))
    assert shown(recorder.Recorder(str(tmp_path / "host")).record()) == kernels == ({"mdev_type", "iommu_group"}, {b"unknown\n"})


def test_what_a_tree_shows_of_an_identity_is_what_the_kernel_would() -> None:
    """What is varied to what it was already: nothing then differs from the recording, but for what belongs to the place of a function."""
    seen = recording.function("GPU with SR-IOV")
    assert recording.varied("GPU with SR-IOV", "10de", "2236", "030200", "10de:1482", -1) == seen
    other = recording.varied("GPU with SR-IOV", "10de", "2230", "030000", "10de:1459", 1)
    assert {name for name in seen if seen[name] != other[name]} == {
        "config", "device", "class", "subsystem_device", "modalias", "numa_node",
    }  # fmt: skip


def test_audio_functions_of_a_tree_look_like_those_of_the_kernel(tmp_path: Path) -> None:
    tree.build(tmp_path / "host", tree.LAB_HOSTS["gpu-passthrough-1"])
    ours = below(recorder.Recorder(str(tmp_path / "host")).record(), "0000:41:00.1")
    kernels = below(recorder.load(str(RECORDED / "guest-vgpu.json")), AUDIO)
    same = {re.sub(r":pci:.*", ":pci:GPU", name): kind for name, kind in kernels.items() if not name.startswith("sound/")}
    assert {re.sub(r":pci:.*", ":pci:GPU", name): kind for name, kind in ours.items()} == same


def test_no_text_of_a_trees_function_has_another_shape_than_the_kernels(tmp_path: Path) -> None:
    tree.build(tmp_path / "host", tree.LAB_HOSTS["gpu-vgpu-0"])
    dropped = recorder.Recorder(str(tmp_path / "host")).record().manifest()["dropped"]
    assert not dropped.keys() & (recorder.PCI_FILES.keys() | {f"mdev types, {name}" for name in recorder.MDEV_FILES} | {"IOMMU groups"})
