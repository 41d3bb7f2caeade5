# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trees that stand for hosts, in tests and in the lab: they have the shapes of the kernel, and a reboot does what a reboot does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hosts import tree

PCI = "sys/bus/pci/devices"
FIRST, SECOND = "0000:41:00.0", "0000:a1:00.0"


@pytest.fixture
def build(tmp_path: Path):
    def built(spec: tree.HostSpec | str) -> Path:
        tree.build(tmp_path / "host", tree.LAB_HOSTS[spec] if isinstance(spec, str) else spec)
        return tmp_path / "host"

    return built


def boot_id(root: Path) -> str:
    return (root / "proc/sys/kernel/random/boot_id").read_text().strip()


def group(root: Path, address: str) -> str | None:
    link = root / PCI / address / "iommu_group"
    return link.resolve(strict=True).name if link.is_symlink() else None


def available(root: Path, function: int, kind: int) -> str:
    return (root / PCI / FIRST / f"virtfn{function}/mdev_supported_types/nvidia-{kind}/available_instances").read_text().strip()


@pytest.mark.parametrize("name", tree.LAB_HOSTS)
def test_every_link_is_relative_and_leads_to_something_in_the_tree(build, name: str) -> None:
    root = build(name)
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert len(links) > 10
    for link in links:
        assert not os.readlink(link).startswith("/"), link
        assert link.resolve(strict=True).is_relative_to(root.resolve()), link


@pytest.mark.parametrize(
    ("name", "dmar", "on"),
    [
        ("gpu-container-0", True, True),
        ("gpu-passthrough-0", True, False),
        ("gpu-passthrough-1", True, True),
        ("gpu-vgpu-0", True, True),
        ("gpu-refused-0", False, False),
    ],
)
def test_the_lab_hosts_start_as_they_should(build, name: str, dmar: bool, on: bool) -> None:
    root = build(name)
    assert (root / "sys/firmware/acpi/tables/DMAR").exists() is dmar
    assert (tree.has_groups(root), bool(list((root / "sys/class/iommu").iterdir()))) == (on, on)
    for address in (FIRST, SECOND):
        device = root / PCI / address
        assert device.resolve().parts[-3].startswith("pci0000:")  # below a root port
        expected = ["0x10de\n", "0x2230\n", "0x030000\n"] if name == "gpu-passthrough-1" else ["0x10de\n", "0x2236\n", "0x030200\n"]
        assert [(device / attribute).read_text() for attribute in ("vendor", "device", "class")] == expected
        assert (group(root, address) is not None) is on
    assert tree.LAB_HOSTS.keys() == {"gpu-container-0", "gpu-passthrough-0", "gpu-passthrough-1", "gpu-vgpu-0", "gpu-refused-0"}


def test_groups_lead_to_their_devices_and_back(build) -> None:
    root = build("gpu-container-0")
    for directory in (root / "sys/kernel/iommu_groups").iterdir():
        for device in (directory / "devices").iterdir():
            assert (device / "iommu_group").resolve() == directory.resolve()


def test_a_companion_and_a_neighbour_share_the_group_of_the_gpu(build) -> None:
    root = build(tree.HostSpec([tree.Gpu(FIRST, audio=True, neighbour=True)], cmdline="intel_iommu=on"))
    members = {path.name for path in (root / PCI / FIRST / "iommu_group/devices").iterdir()}
    assert members == {FIRST, "0000:41:00.1", "0000:41:01.0"}


def test_the_audio_function_of_a_board_depends_on_its_gpu_as_the_kernel_says_it(build) -> None:
    root = build("gpu-passthrough-1")
    gpu, audio = root / PCI / FIRST, root / PCI / "0000:41:00.1"
    assert [path.name for path in gpu.glob("consumer:*")] == ["consumer:pci:0000:41:00.1"]
    assert [path.name for path in audio.glob("supplier:*")] == [f"supplier:pci:{FIRST}"]
    assert (gpu / "consumer:pci:0000:41:00.1/consumer").resolve() == audio.resolve()
    assert (audio / f"supplier:pci:{FIRST}/supplier").resolve() == gpu.resolve()
    assert group(root, "0000:41:00.1") == group(root, FIRST) is not None
    assert (audio / "driver").resolve().name == "snd_hda_intel"


def test_audio_functions_follow_their_gpus_only_when_they_are_named_and_return_to_their_driver_at_boot(build) -> None:
    root = build("gpu-passthrough-1")

    def audio() -> list[str | None]:
        links = [root / PCI / address / "driver" for address in ("0000:41:00.1", "0000:a1:00.1")]
        return [link.resolve().name if link.is_symlink() else None for link in links]

    tree.bind(root, "vfio-pci", ["0000:41:00.1"])
    assert tree.drivers(root) == {FIRST: "vfio-pci", SECOND: "vfio-pci"}
    assert audio() == ["vfio-pci", "snd_hda_intel"]
    tree.bind(root, None, ["0000:41:00.1", "0000:a1:00.1"])
    assert audio() == [None, None]
    tree.reboot(root)
    assert audio() == ["snd_hda_intel", "snd_hda_intel"]


def test_each_build_and_each_boot_has_a_boot_id_of_its_own(build) -> None:
    seen = []
    for _ in range(2):
        root = build("gpu-container-0")
        seen.append(boot_id(root))
        tree.reboot(root)
        seen.append(boot_id(root))
    assert len(set(seen)) == 4


def test_virtual_functions_look_like_those_of_the_driver(build) -> None:
    root = build("gpu-vgpu-0")
    physical = root / PCI / FIRST
    assert (physical / "sriov_numvfs").read_text() == (physical / "sriov_totalvfs").read_text() == "16\n"
    functions = [(physical / f"virtfn{number}").resolve() for number in range(16)]
    assert len(set(functions)) == 16 and functions[0].name == "0000:41:00.4"
    for function in functions:
        assert (function / "physfn").resolve() == physical.resolve()
        assert (root / "sys/class/mdev_bus" / function.name).resolve() == function
        assert (function / "driver").resolve().name == "nvidia"
        assert (function / "mdev_supported_types/nvidia-593/name").read_text() == "NVIDIA A10-4Q\n"
    assert len({(function / "iommu_group").resolve() for function in functions}) == 16


def test_vgpus_of_one_size_fill_a_gpu_and_leave_no_room_for_another(build) -> None:
    root = build("gpu-vgpu-0")
    assert (available(root, 0, 593), available(root, 0, 597)) == ("1", "1")
    assert tree.set_vgpus(root, "A10-4Q") == 12
    assert len(list((root / "sys/bus/mdev/devices").iterdir())) == 12
    assert (available(root, 0, 593), available(root, 15, 593), available(root, 15, 597)) == ("0", "0", "0")
    assert tree.set_vgpus(root, "A10-24Q") == 2
    assert tree.set_vgpus(root, None) == 0
    assert available(root, 0, 593) == "1"
    with pytest.raises(KeyError):
        tree.set_vgpus(root, "A10-5Q")


def test_a_reboot_forgets_what_lives_in_the_running_kernel_and_keeps_the_disk(build) -> None:
    root = build("gpu-vgpu-0")
    tree.set_vgpus(root, "A10-4Q")
    (root / "etc/kept").write_text("kept")
    (root / "run").mkdir()
    tree.reboot(root)
    assert (root / PCI / FIRST / "sriov_numvfs").read_text() == "0\n"
    assert not (root / "sys/class/mdev_bus").exists() and not (root / "sys/bus/mdev").exists()
    assert not (root / "sys/module/nvidia").exists() and (root / "sys/module/vfio_pci").exists()
    assert tree.drivers(root) == {FIRST: None, SECOND: None}
    assert (root / "etc/kept").exists() and not (root / "run").exists()
    tree.start_vgpu_manager(root)
    assert tree.drivers(root) == {FIRST: "nvidia", SECOND: "nvidia"}
    assert (root / PCI / FIRST / "virtfn15").exists() and available(root, 0, 593) == "1"


def test_a_reboot_takes_up_grubs_files_in_grubs_order(build) -> None:
    root = build("gpu-passthrough-0")
    before = (root / "proc/cmdline").read_text()
    (root / "etc/default/grub.d/20-b.cfg").write_text('GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT two"\n')
    (root / "etc/default/grub.d/10-a.cfg").write_text(
        'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT one=\\"a b\\" intel_iommu=on"\n'
    )
    (root / "etc/default/grub.d/30-not-read").write_text("GRUB_CMDLINE_LINUX=lost\n")
    assert (root / "proc/cmdline").read_text() == before and not tree.has_groups(root)
    tree.reboot(root)
    line = (root / "proc/cmdline").read_text()
    assert line.endswith(' ro intel_iommu=off quiet splash one="a b" intel_iommu=on two\n')
    assert line.strip().removeprefix("BOOT_IMAGE=") in (root / "boot/grub/grub.cfg").read_text()
    assert tree.has_groups(root)


def test_mended_firmware_takes_effect_with_the_next_boot(build) -> None:
    root = build("gpu-refused-0")
    tree.mend_firmware(root)
    assert not (root / "sys/firmware/acpi/tables/DMAR").exists() and not tree.has_groups(root)
    tree.reboot(root)
    assert (root / "sys/firmware/acpi/tables/DMAR").exists() and tree.has_groups(root)


@pytest.mark.parametrize(
    ("firmware", "cmdline", "on"),
    [
        ("dmar", "", False),
        ("dmar", "intel_iommu=on", True),
        ("dmar", "intel_iommu=on,sm_on", True),
        ("dmar", "intel_iommu=off intel_iommu=on", True),
        ("dmar", "intel_iommu=on intel_iommu=off", False),
        ("dmar", "iommu=off intel_iommu=on", False),
        ("dmar", "iommu=pt,off intel_iommu=on", False),
        ("none", "intel_iommu=on", False),
        ("ivrs", "", True),
        ("ivrs", "amd_iommu=off amd_iommu=on", False),
        ("ivrs", "intel_iommu=off", True),
    ],
)
def test_firmware_and_arguments_make_the_iommu(firmware: str, cmdline: str, on: bool) -> None:
    assert tree.iommu_is_on(tree.HostSpec(firmware=firmware), cmdline) is on


def test_a_driver_is_bound_and_taken_away(build) -> None:
    root = build("gpu-container-0")
    tree.bind(root, "vfio-pci")
    assert (root / PCI / FIRST / "driver").resolve().name == "vfio-pci"
    assert (root / "sys/bus/pci/drivers/vfio-pci" / FIRST).exists()
    identity = boot_id(root)
    tree.bind(root, None)
    assert not (root / PCI / FIRST / "driver").exists()
    assert boot_id(root) == identity  # the machine is still the same one, still running
