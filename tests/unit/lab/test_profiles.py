# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleets that a lab can have: hosts, trees, inventory and the simulated vGPU Device Manager agree."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue
from tests.hosts import tree
from tests.lab import nodes, profiles
from tests.lab.layout import LabError, Layout
from tests.lab.operands import device_manager, devices

OTHERS = sorted(profiles.PROFILES.keys() - {"mixed"})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "lab")


def test_a_profile_that_is_none_is_refused_with_the_list() -> None:
    with pytest.raises(LabError, match=r"profile gremlins: there is none.*mixed: .*twenty: "):
        profiles.profile("gremlins")


@pytest.mark.parametrize("name", OTHERS)
def test_the_inventory_has_the_hosts_of_the_profile_each_in_the_group_of_its_name(layout: Layout, name: str) -> None:
    layout.create({"profile": name})
    profiles.write_inventory(layout, name)
    groups = json.loads((profiles.inventory(layout, name) / "hosts.yml").read_text())["all"]["children"]["gpu_nodes"]["children"]
    found = {host: group for group, content in groups.items() for host in content["hosts"]}
    assert found.keys() == profiles.of(layout).hosts.keys()
    assert all(profiles.GROUPS[host.split("-")[1]] == group for host, group in found.items())
    assert groups["gpu_vm_vgpu"]["vars"]["gpufleet_vgpu_profile"] == profiles.of(layout).vgpu_profile


def test_twenty_are_twenty_alike() -> None:
    hosts = profiles.PROFILES["twenty"].hosts
    assert len(hosts) == 20 and len({repr(spec) for spec in hosts.values()}) == 1


@pytest.mark.parametrize("name", ["mig", "a16", "two-models"])
def test_each_host_has_a_tree_that_boots_with_its_gpus_in_groups(layout: Layout, name: str) -> None:
    layout.create({"profile": name})
    nodes.build_trees(layout)
    for host, spec in profiles.of(layout).hosts.items():
        found = devices.read(layout.hosts / host)
        assert [(gpu.address, gpu.device, gpu.group) for gpu in found.gpus] == [(gpu.address, gpu.device, True) for gpu in spec.gpus]


BOARDS = {gpu.device: gpu.subsystem for found in profiles.PROFILES.values() for spec in found.hosts.values() for gpu in spec.gpus}


@pytest.mark.parametrize("device", sorted(device_manager.TYPES))
def test_the_types_of_a_board_are_those_of_the_catalogue(device: str) -> None:
    pci = f"10DE:{device.upper()}"
    [gpu] = _catalogue.at(pci, BOARDS[device].upper())
    known = {(kind.type_id, _catalogue.mdev_name(pci, BOARDS[device].upper(), kind.name), kind.most) for kind in gpu.types}
    assert {(number, name, most) for number, (name, most) in device_manager.TYPES[device].items()} <= known


def test_the_simulated_stock_configuration_is_a_part_of_the_real_one() -> None:
    assert device_manager.STOCK.keys() <= _catalogue.known_profiles()
    for device in device_manager.TYPES:
        ours = [(plain, 2) for board, plain in device_manager.DEFAULT if board == device]
        assert ours == _catalogue.default_types(f"10DE:{device.upper()}")


#: Profile of the lab, configuration -> outcome, and the vGPUs of its vm-vgpu host.
APPLIED = [
    ("mig", "A100-1-5C", True, {"GRID A100-1-5C": 14}),
    ("a16", "A16-8Q", True, {"NVIDIA A16-8Q": 4}),
    ("a16", "default", False, {"NVIDIA A16-8Q": 4}),
    ("two-models", "default", True, {"GRID T4-8Q": 2, "NVIDIA A10-12Q": 2}),
    ("two-models", "T4-8Q", False, {"GRID T4-8Q": 2}),
]


@pytest.mark.parametrize(("name", "config", "through", "made"), APPLIED)
def test_what_a_stock_configuration_makes_of_a_board(tmp_path: Path, name: str, config: str, through: bool, made: dict[str, int]) -> None:
    root = tmp_path / "host"
    spec = copy.deepcopy(profiles.PROFILES[name].hosts["gpu-vgpu-0"])
    del spec.gpus[2:]
    for gpu in spec.gpus:
        gpu.vfs_total = min(gpu.vfs_total, 7)  # each is many files
    tree.build(root, spec)
    tree.start_vgpu_manager(root)
    types, whole = device_manager.walk(device_manager.STOCK_CONFIGS[config], devices.read(root))
    assert (tree.make_vgpus(root, types) and whole) is through
    host = devices.read(root)
    assert Counter(host.vgpus) == made
    assert device_manager.fits(device_manager.STOCK_CONFIGS[config], host) is through
