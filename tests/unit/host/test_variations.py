# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host's tree is made of: of recordings, and of variations that are named with their reason; of nothing else."""

from __future__ import annotations

import collections
import copy
import dataclasses
import os
import re
import typing as t
from pathlib import Path

import pytest

from tests.hosts import recording, tree, variations
from tests.hosts.specification import LAB_HOSTS, HostSpec, a10s

#: What stands for a path in every recording and tree: function, driver, group, release and numbers may be others.
SHAPES = (
    (r"^(sys/devices/)pci[0-9a-f:/.]+/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", r"\1FUNCTION"),
    (r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", "ADDRESS"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"^(sys/(?:kernel/iommu_groups|class/vfio)/)\d+", r"\1GROUP"),
    (r"(virtfn|nvidia-)\d+", r"\1NUMBER"),
    (r"\d+\.\d+\.\d+-[\d.]+-(amd64|generic)", "RELEASE"),
)
Found = t.Dict[str, t.Set[t.Optional[bytes]]]


def shape(path: str) -> str:
    for pattern, new in SHAPES:
        path = re.sub(pattern, new, path)
    return path


def recorded() -> Found:
    """Shapes of paths in all recordings, each with the contents that were seen; None for a link or a directory."""
    found: Found = collections.defaultdict(set)
    for file in recording.RECORDED.glob("*.json"):
        one = recording.recording(file.stem)
        for path, content in one.files.items():
            found[shape(path)].add(content)
        for path in (*one.links, *one.directories):
            found[shape(path)].add(None)
    return found


def entries(root: Path) -> dict[str, bytes | None]:
    """What is in a tree, by path: files with their content, links, and directories that are empty."""
    found: dict[str, bytes | None] = {}
    for directory, directories, files in os.walk(root):
        below = os.path.relpath(directory, root)
        if not directories and not files:
            found[below] = None
        for name in [*files, *directories]:
            path = Path(directory, name)
            if path.is_symlink() or name in files:
                found[os.path.normpath(f"{below}/{name}")] = None if path.is_symlink() else path.read_bytes()
    return found


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """All that the trees of the lab's hosts come to hold, before and after what the lab does to them."""
    found: dict[str, bytes | None] = {}
    for name, spec in LAB_HOSTS.items():
        root = tmp_path_factory.mktemp(name) / "host"
        tree.build(root, spec)
        found = {**entries(root), **found}
        if name == "gpu-vgpu-0":
            tree.set_vgpus(root, "A10-4Q")
        elif name == "gpu-passthrough-1":
            tree.bind(root, "vfio-pci", ["0000:41:00.1"])
        else:
            tree.reboot(root)
        found = {**entries(root), **found}
    return found


def named(path: str) -> list[str]:
    """The variations that name a path, by their pattern."""
    patterns = [*(variation.paths for variation in variations.MACHINE), *variations.PLACED]
    return [pattern for pattern in patterns if re.fullmatch(pattern, path)]


def unexplained(found: t.Mapping[str, bytes | None]) -> list[str]:
    seen = recorded()
    return [path for path, content in sorted(found.items()) if content not in seen.get(shape(path), ()) and not named(path)]


def test_the_labs_hosts_hold_nothing_that_is_neither_recorded_nor_a_named_variation(hosts) -> None:
    assert unexplained(hosts) == []


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("proc/meminfo", b"MemTotal: 1 kB\n"),
        ("sys/kernel/security/lockdown", b"[integrity]\n"),
        ("sys/devices/pci0000:40/0000:40:01.0/0000:41:00.0/serial", b"1\n"),
        ("etc/default/grub.d/90-file001.cfg", b"GRUB_TIMEOUT=1\n"),
        ("sys/bus/pci/drivers/mlx5_core", None),
    ],
)
def test_a_path_or_a_content_that_nobody_accounts_for_is_found(hosts, path: str, content: bytes | None) -> None:
    assert unexplained({**hosts, path: content}) == [path]


def test_what_recordings_hold_and_no_host_does_is_named(hosts) -> None:
    there = {shape(path) for path in hosts}
    there |= {shape(parent) for path in hosts for parent in (str(above) for above in Path(path).parents)}
    changed = [variation.paths for variation in variations.MACHINE]

    def accounted(path: str) -> bool:
        return shape(path) in there or any(re.fullmatch(pattern, path) for pattern in (*variations.LEFT_OUT, *changed))

    found = recording.recording()
    assert [path for path in sorted({*found.files, *found.links, *found.directories}) if not accounted(path)] == []


#: Beside the lab's hosts, those for which some variations are there.
OTHERS = (
    HostSpec(firmware="ivrs"),
    HostSpec(hypervisor=True, host_driver="580.95.05", modules=["nvidia"], blocked=["nouveau"], other_kernels=["5.15.0-121-generic"]),
    HostSpec(a10s(), qemu=[4711], kernel_log=["NVRM: GPU has fallen off the bus"], loadable=[]),
)
BOOT = variations.Boot("intel_iommu=on quiet", "11111111-1111-4111-8111-111111111111", True)


def differing(before: recording.Machine, after: recording.Machine) -> set[str]:
    """The paths that were added, removed or changed."""
    kinds = [(before.files, after.files), (before.links, after.links)]
    changed = {path for old, new in kinds for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    return changed | (before.directories ^ after.directories)


def test_each_variation_changes_the_paths_that_it_names_and_no_others() -> None:
    idle = {variation.why for variation in variations.MACHINE}
    for spec in (*LAB_HOSTS.values(), *OTHERS):
        machine = recording.machine("guest-vgpu")
        for variation in variations.MACHINE:
            before = copy.deepcopy(machine)
            variation.make(machine, spec, BOOT)
            changed = differing(before, machine)
            idle -= {variation.why} if changed else set()
            assert [path for path in changed if not re.fullmatch(variation.paths, path)] == [], variation.why
    assert idle == set()


def test_every_entry_of_the_tables_of_paths_is_needed(hosts, tmp_path: Path) -> None:
    seen = recorded()
    gpus = [dataclasses.replace(gpu, backend="vendor_vfio", power_state="D3hot") for gpu in a10s(driver="nvidia", vfs=2)]
    tree.build(tmp_path / "host", HostSpec(gpus, cmdline="intel_iommu=on"))
    differ = [path for path, content in {**hosts, **entries(tmp_path / "host")}.items() if content not in seen.get(shape(path), ())]
    placed = [pattern for pattern in variations.PLACED if not any(re.fullmatch(pattern, path) for path in differ)]
    found = recording.recording()
    left_out = [
        pattern
        for pattern in variations.LEFT_OUT
        if not any(re.fullmatch(pattern, path) for path in (*found.files, *found.links, *found.directories))
    ]
    assert (placed, left_out) == ([], [])


def test_the_recordings_of_a_machine_are_not_changed_by_what_is_made_of_them() -> None:
    before = copy.deepcopy(recording.recording("guest-vgpu").files)
    variations.carry_out(recording.machine("guest-vgpu"), OTHERS[1], BOOT)
    assert recording.recording("guest-vgpu").files == before


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (LAB_HOSTS["gpu-refused-0"], "guest-no-iommu"),
        (LAB_HOSTS["gpu-passthrough-0"], "guest-iommu-off"),
        (LAB_HOSTS["gpu-container-0"], "guest-vgpu"),
    ],
)
def test_a_tree_shows_of_its_iommu_what_the_guest_in_that_state_shows(tmp_path: Path, spec: HostSpec, name: str) -> None:
    tree.build(tmp_path / "host", spec)
    pattern = r"sys/firmware/acpi/tables/.+|sys/class/iommu/.+|sys/kernel/iommu_groups/.+"
    found = recording.recording(name)
    ours = {shape(path) for path in entries(tmp_path / "host") if re.fullmatch(pattern, path)}
    theirs = {shape(path) for path in (*found.files, *found.links) if re.fullmatch(pattern, path)}
    assert ours == theirs - ({"sys/kernel/iommu_groups/GROUP/devices/UUID"} if not spec.gpus[0].active else set())
