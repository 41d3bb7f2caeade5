# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names

TYPES = Path(__file__).parent / "vgpu" / "vgpu_types.json"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (_names.check_workload, ["container", "vm-vgpu"], ["vm", "", "Container"]),
        (_device_names.check_pci_id, ["10DE:2236", "10de:25b6"], ["10de", "0x10de:2236", "10de:*", " 10de:2236", "10de:2236\n", ""]),
        (_device_names.check_pci_address, ["0000:41:00.0"], ["41:00.0", "0000:41:00.8", "0000:41:00.0\n"]),
        (_names.check_mdev_name, ["NVIDIA A10-4Q", "nvidia-592"], ["", " NVIDIA A10-4Q", "NVIDIA A10-4Q ", "a\nb"]),
        (
            _names.check_resource_name,
            ["nvidia.com/GA102GL_A10", "nvidia.com/NVIDIA_A10-4Q", "devices.example.org/x"],
            ["GA102GL_A10", "nvidia.com/", "/x", "nvidia.com/_x", "nvidia.com/" + "a" * 64, "nvidia.com/a/b", "nvidia/x", "NVIDIA.com/x"]
            + ["kubernetes.io/x", "pod.kubernetes.io/x", "nvidia.com/x\n", "nvidia.com/a b"],
        ),
        (_names.check_node_name, ["gpu01", "gpu01.example.org"], ["GPU01", "gpu_01", "-x", "", "x\n", "a..b"]),
        (_names.check_label_key, ["nvidia.com/gpu.present", "app"], ["", "/x", "nvidia.com/", "a b", "Nvidia.com/x", "app\n"]),
        (_names.check_label_value, ["", "A10-4Q", "true"], ["a b", "-x", "x" * 64, "true\n"]),
    ],
)
def test_names_are_valid_or_say_why(check, good: list[str], bad: list[str]) -> None:
    for name in good:
        assert check(name) == name
    for name in bad:
        with pytest.raises(ValueError, match=r"is no .*: ") as caught:
            check(name)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("NVIDIA A10-4Q", "A10-4Q"),
        ("nvidia.com/NVIDIA_A10-4Q", "A10-4Q"),
        ("NVIDIA_A10-4Q", "A10-4Q"),
        ("A10-4Q", "A10-4Q"),
        ("GRID A100D-40C", "A100D-40C"),
        ("GRID A100-1-5CME", "A100-1-5CME"),
        ("NVIDIA RTX6000-Ada-2Q", "RTX6000-Ada-2Q"),
        ("NVIDIA RTX Pro 6000 Blackwell DC-1-2QGFX", "DC-1-2QGFX"),
        ("nvidia.com/gpu", None),
        ("nvidia.com/GA102GL_A10", None),
        ("nvidia-592", None),
        ("", None),
    ],
)
def test_the_plain_type_is_the_last_word(name: str, plain: str | None) -> None:
    assert _device_names.plain_type(name) == plain


def test_every_type_of_the_data_is_its_own_plain_type() -> None:
    data = json.loads(TYPES.read_text())
    names = [row["name"] for gpu in data["gpus"] for row in gpu["types"]]
    assert len(names) > 800
    assert [name for name in names if _device_names.plain_type(f"NVIDIA {name}") != name] == []


def test_keys_follow_kubevirts_comparison() -> None:
    assert _names.pci_id_key("10de:25b6") == _names.pci_id_key("10DE:25B6")
    assert _names.mdev_name_key("NVIDIA A10-4Q") == _names.mdev_name_key("NVIDIA_A10-4Q")
    assert _names.mdev_name_key("NVIDIA a10-4q") != _names.mdev_name_key("NVIDIA A10-4Q")
