# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mdev_create on the kernel's mdev core and on the vendor framework, with the stand-in of NVIDIA's driver."""

from __future__ import annotations

import errno
import os

import pytest

from tests.kernel.devices import OLD_GPU, SECOND_GPU, SRIOV_GPU
from tests.kernel.guest import DEVICES, Guest
from tests.kernel.playbooks import module, refused, three_runs

#: How the module says what the kernel answered: in its own words, not by the error's name.
ERRORS = (errno.ENOSPC, errno.EBUSY, errno.EINVAL)


def wish(address: str, **types: int) -> dict[str, object]:
    listed = [{"type": name.replace("_", "-"), "count": count} for name, count in types.items()]
    return {"gpus": [{"address": address, **({"types": listed} if listed else {})}]}


def with_vendor_framework(guest: Guest, virtual_functions: int) -> list[str]:
    """The stand-in without mdev, and the virtual functions of the SR-IOV GPU."""
    guest.run(f"modprobe -r nvidia; modprobe nvidia framework=vendor; echo {virtual_functions} > {DEVICES}/{SRIOV_GPU}/sriov_numvfs")
    assert guest.names("/sys/class/mdev_bus") == []
    return guest.virtual_functions(SRIOV_GPU)


def numbers(guest: Guest, functions: list[str]) -> list[str]:
    """What the kernel says of the vendor framework: the number of the type on each virtual function."""
    return guest.run("; ".join(f"cat {DEVICES}/{address}/nvidia/current_vgpu_type" for address in functions)).split()


@pytest.mark.smoke
def test_mediated_devices_are_exactly_what_is_wanted(on: Guest) -> None:
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=2))
    two = on.vgpus()
    assert sorted(two.values()) == ["GRID T4-4Q"] * 2
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=3))
    assert two.items() <= on.vgpus().items() and len(on.vgpus()) == 3
    # Another size cannot stand beside them: all of them go first.
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_8Q=2))
    assert sorted(on.vgpus().values()) == ["GRID T4-8Q"] * 2
    # 16 GB hold two of them.
    message = refused(on, "mdev_create", **wish(OLD_GPU, T4_8Q=3))
    assert OLD_GPU in message and "fit" in message


@pytest.mark.smoke
def test_what_the_kernel_answers_to_a_creation_is_told_apart(on: Guest) -> None:
    messages = {}
    for number in ERRORS:
        on.run(f"echo {number} > /sys/module/nvidia/parameters/create_error")
        messages[number] = refused(on, "mdev_create", **wish(OLD_GPU, T4_4Q=1))
        assert os.strerror(number) in messages[number]
    remedies = {message.splitlines()[1].rpartition(")")[2] for message in messages.values()}
    assert len(remedies) == len(ERRORS)
    on.run("echo 0 > /sys/module/nvidia/parameters/create_error")
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=1))


@pytest.mark.smoke
def test_vgpus_of_the_vendor_framework_are_exactly_what_is_wanted(on: Guest) -> None:
    functions = with_vendor_framework(on, 4)
    three_runs(on, "mdev_create", **wish(SRIOV_GPU, A10_4Q=3))
    assert numbers(on, functions) == ["593", "593", "593", "0"]
    assert on.drivers(functions) == dict.fromkeys(functions, "nvidia")
    three_runs(on, "mdev_create", **wish(SRIOV_GPU, A10_12Q=2))
    assert sorted(numbers(on, functions)) == ["0", "0", "596", "596"]
    message = refused(on, "mdev_create", **wish(SRIOV_GPU, A10_12Q=3))
    assert SRIOV_GPU in message and "fit" in message
    three_runs(on, "mdev_create", **wish(SRIOV_GPU), state="absent")
    assert numbers(on, functions) == ["0"] * 4


def test_mediated_devices_come_on_virtual_functions_one_each(on: Guest) -> None:
    on.run(f"echo 7 > {DEVICES}/{SRIOV_GPU}/sriov_numvfs")
    made = three_runs(on, "mdev_create", **wish(SRIOV_GPU, A10_4Q=6))
    assert sorted(on.vgpus().values()) == ["NVIDIA A10-4Q"] * 6
    parents = [device["parent"] for device in made["gpus"][0]["devices"]]
    assert len(set(parents)) == 6 and set(parents) <= set(on.virtual_functions(SRIOV_GPU))
    # What sriov_vfs would have to take away is named.
    assert "vGPU" in refused(on, "sriov_vfs", devices=[{"address": SRIOV_GPU, "count": "0"}])


def test_a_vgpu_that_is_held_stays_and_the_holder_is_named(on: Guest) -> None:
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=2))
    held = sorted(on.vgpus())[0]
    pid = on.hold(held)
    message = refused(on, "mdev_create", **wish(OLD_GPU, T4_8Q=1))
    assert held in message and f"process {pid} (python3)" in message
    # One that must go can: the idle one.
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=1))
    assert list(on.vgpus()) == [held] and on.holds(held)


def test_a_vgpu_of_the_vendor_framework_that_is_held_stays(on: Guest) -> None:
    functions = with_vendor_framework(on, 2)
    three_runs(on, "mdev_create", **wish(SRIOV_GPU, A10_4Q=1))
    pid = on.hold(functions[0])
    assert f"process {pid} (python3)" in refused(on, "mdev_create", **wish(SRIOV_GPU), state="absent")
    assert numbers(on, functions) == ["593", "0"] and on.holds(functions[0])


def test_a_removal_that_blocks_comes_back_in_time_and_the_next_run_finishes_it(on: Guest) -> None:
    three_runs(on, "mdev_create", **wish(OLD_GPU, T4_4Q=1))
    (held,) = on.vgpus()
    on.hold(held, hidden=True)
    own = module(on, "mdev_create", check=True, **wish(OLD_GPU), state="absent")["seconds"]
    result = module(on, "mdev_create", **wish(OLD_GPU), state="absent", timeout=5)
    assert result["failed"] and "no answer from the kernel within 5 s" in result["msg"]
    assert 5 <= result["seconds"] <= own + 10 and on.holds(held)
    on.let_go(held)
    on.until_nobody_waits_for("vfio_unregister_group_dev")
    assert on.vgpus() == {}
    result = module(on, "mdev_create", **wish(OLD_GPU), state="absent", timeout=5)
    assert not result["failed"] and not result["changed"]


def test_an_identity_that_is_taken_elsewhere_is_told_from_a_lack_of_room(on: Guest) -> None:
    predicted = module(on, "mdev_create", check=True, **wish(OLD_GPU, T4_4Q=1))
    identity = predicted["changes"][0]["after"]["device"]
    on.run(f"echo {identity} > {DEVICES}/{SECOND_GPU}/mdev_supported_types/nvidia-593/create")
    message = refused(on, "mdev_create", **wish(OLD_GPU, T4_4Q=1))
    assert identity in message and os.strerror(errno.EEXIST) in message
