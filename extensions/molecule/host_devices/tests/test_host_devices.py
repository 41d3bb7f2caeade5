# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guest's kernel and its systemd say after the role, asked of them without the collection.

Which function is what: ``tests/kernel/devices.py``.
"""

from __future__ import annotations

import pytest

DEVICES = "/sys/bus/pci/devices"
GPU, AUDIO, SECOND_GPU = "0000:01:00.0", "0000:01:00.1", "0000:04:00.0"
DIVIDED_GPU = "0000:02:00.0"
#: What nobody asked for, and what has it since it came up.
OTHERS = {"0000:03:00.0": "nvidia", "0000:05:00.0": "igb", "0000:07:01.0": "nvidia", "0000:07:02.0": None}
VGPUS = 6
UNIT = "gpufleet-devices.service"


@pytest.fixture
def link(host):
    """The last part of where a link leads, or None if there is none."""

    def name(path):
        return host.run("readlink %s", path).stdout.strip().rpartition("/")[2] or None

    return name


@pytest.fixture
def virtual_functions(host):
    links = host.check_output(f"cd {DEVICES}/{DIVIDED_GPU} && readlink virtfn*").splitlines()
    return [path.rpartition("/")[2] for path in links]


@pytest.fixture
def vgpus(host):
    """Of each mediated device its parent and the name of its type, by its identity."""
    devices = host.check_output("cd /sys/bus/mdev/devices && readlink *").splitlines()
    kinds = host.check_output("cat /sys/bus/mdev/devices/*/mdev_type/name").splitlines()
    return {device.split("/")[-1]: (device.split("/")[-2], kind) for device, kind in zip(devices, kinds, strict=True)}


@pytest.mark.parametrize("address", [GPU, AUDIO, SECOND_GPU])
def test_whole_gpus_and_what_shares_their_group_are_on_vfio(host, link, address):
    assert link(f"{DEVICES}/{address}/driver") == "vfio-pci"
    group = link(f"{DEVICES}/{address}/iommu_group")
    assert host.file(f"/dev/vfio/{group}").exists


def test_the_gpu_and_its_audio_function_are_one_group(link):
    groups = [link(f"{DEVICES}/{address}/iommu_group") for address in (GPU, AUDIO, SECOND_GPU)]
    assert groups[0] == groups[1] != groups[2]


def test_the_divided_gpu_has_all_its_virtual_functions_on_its_driver(host, virtual_functions):
    now, most = host.check_output(f"cd {DEVICES}/{DIVIDED_GPU} && cat sriov_numvfs sriov_totalvfs").split()
    assert now == most == str(len(virtual_functions)) and int(most) > VGPUS
    drivers = host.check_output(f"cd {DEVICES}/{DIVIDED_GPU} && readlink driver virtfn*/driver").splitlines()
    assert [path.rpartition("/")[2] for path in drivers] == ["nvidia"] * (1 + int(most))


def test_as_many_vgpus_as_fit_are_there_one_on_a_virtual_function(virtual_functions, vgpus):
    assert [kind for _parent, kind in vgpus.values()] == ["NVIDIA A10-4Q"] * VGPUS
    parents = {parent for parent, _kind in vgpus.values()}
    assert len(parents) == VGPUS and parents <= set(virtual_functions)


@pytest.mark.parametrize(("address", "driver"), OTHERS.items())
def test_a_device_that_nobody_asked_for_keeps_its_driver(link, address, driver):
    assert link(f"{DEVICES}/{address}/driver") == driver


@pytest.mark.parametrize(
    ("path", "mode"),
    [("/etc/gpufleet/devices.json", 0o600), ("/usr/local/lib/gpufleet/boot.py", 0o644), (f"/etc/systemd/system/{UNIT}", 0o644)],
)
def test_only_root_can_change_what_makes_them_again(host, path, mode):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_the_unit_is_enabled_and_comes_before_a_kubelet(host):
    assert host.service(UNIT).is_enabled
    assert "kubelet.service" in host.check_output(f"systemctl show -p Before --value {UNIT}").split()
    assert host.file(f"/etc/systemd/system/kubelet.service.wants/{UNIT}").is_symlink


def test_the_unit_finds_nothing_left_to_do(host, vgpus):
    host.check_output(f"systemctl start {UNIT}")
    assert host.check_output(f"systemctl show -p Result --value {UNIT}") == "success"
    listed = host.check_output("ls /sys/bus/mdev/devices").split()
    assert sorted(listed) == sorted(vgpus)
