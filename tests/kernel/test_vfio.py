# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vfio_bind on the kernel's own driver core and VFIO."""

from __future__ import annotations

import pytest

from tests.kernel.devices import AUDIO, BRIDGED_GPU, GPU, NEIGHBOUR, NIC, SECOND_GPU
from tests.kernel.guest import DEVICES, Guest
from tests.kernel.playbooks import module, refused, three_runs

TIMEOUT = 5  # seconds for the kernel's answer
#: Where in the kernel an unbind waits for who holds the device.
UNREGISTERING = "vfio_unregister_group_dev"


def one(address: str) -> list[dict[str, str]]:
    return [{"address": address}]


@pytest.mark.smoke
def test_a_gpu_goes_to_vfio_with_its_group_and_the_kernel_calls_it_viable(on: Guest) -> None:
    group = on.iommu_group(GPU)
    bound = three_runs(on, "vfio_bind", devices=one(GPU))
    assert on.drivers([GPU, AUDIO, SECOND_GPU]) == {GPU: "vfio-pci", AUDIO: "vfio-pci", SECOND_GPU: "nvidia"}
    assert str(group) in on.names("/dev/vfio")
    assert bound["groups"][str(group)]["viable"] is True is on.viable(GPU)


@pytest.mark.smoke
def test_a_device_that_a_process_holds_is_refused_and_the_holder_named(on: Guest) -> None:
    on.run("modprobe vfio-pci")
    on.hand_over(SECOND_GPU)
    pid = on.hold(SECOND_GPU)
    assert f"process {pid} (python3)" in refused(on, "vfio_bind", devices=one(SECOND_GPU), state="released")
    assert on.driver(SECOND_GPU) == "vfio-pci" and on.holds(SECOND_GPU)


@pytest.mark.smoke
def test_an_unbind_that_blocks_comes_back_in_time_and_the_next_run_finishes_it(on: Guest) -> None:
    """A holder that nobody can see beforehand: its open files are in flight over a socket."""
    on.run("modprobe vfio-pci")
    on.hand_over(SECOND_GPU)
    on.hold(SECOND_GPU, hidden=True)
    # What emulation makes of the module's own work is no part of the promise.
    own = module(on, "vfio_bind", check=True, devices=one(SECOND_GPU), state="released")["seconds"]
    result = module(on, "vfio_bind", devices=one(SECOND_GPU), state="released", timeout=TIMEOUT)
    assert result["failed"] and f"no answer from the kernel within {TIMEOUT} s" in result["msg"]
    assert TIMEOUT <= result["seconds"] <= own + TIMEOUT + 5
    # The kernel is half-way: the driver's link is gone, its driver is not, and the device is locked, so that the kernel does not even show
    # its driver_override. Who asks is not kept waiting.
    facts = module(on, "gpu_node_info")
    assert [gpu["driver_override"] for gpu in facts["gpus"] if gpu["address"] == SECOND_GPU] == [None]
    assert "does not answer" in facts["unknown"][f"gpus.{SECOND_GPU}.driver_override"]
    again = module(on, "vfio_bind", devices=one(SECOND_GPU), state="released", timeout=TIMEOUT)
    assert again["failed"] and not again["changed"] and "the kernel does not answer" in again["msg"]
    assert on.holds(SECOND_GPU) and on.waits_for(UNREGISTERING)

    on.let_go(SECOND_GPU)
    on.until_nobody_waits_for(UNREGISTERING)
    three_runs(on, "vfio_bind", devices=one(SECOND_GPU), state="released")
    assert on.driver(SECOND_GPU) == "nvidia"


def test_a_release_gives_each_function_the_driver_that_it_had(on: Guest) -> None:
    three_runs(on, "vfio_bind", devices=one(GPU))
    three_runs(on, "vfio_bind", devices=one(GPU), state="released")
    assert on.drivers([GPU, AUDIO]) == {GPU: "nvidia", AUDIO: "snd_hda_intel"}
    assert on.read(f"{DEVICES}/{GPU}/driver_override") == on.read(f"{DEVICES}/{AUDIO}/driver_override") == "(null)"


def test_on_a_host_of_the_operator_only_companions_are_bound(on: Guest) -> None:
    assert "one owner" in refused(on, "vfio_bind", devices=one(GPU), owner="operator")
    # NVIDIA's VFIO manager takes the GPU, and leaves the rest of its group.
    on.run("modprobe vfio-pci")
    on.hand_over(GPU)
    assert not on.viable(GPU)
    three_runs(on, "vfio_bind", devices=one(GPU), scope="companions", owner="operator")
    assert on.drivers([GPU, AUDIO]) == {GPU: "vfio-pci", AUDIO: "vfio-pci"}
    assert on.viable(GPU)
    pid = on.hold(GPU)
    on.run(f"echo > {DEVICES}/{AUDIO}/driver_override")
    assert f"process {pid} (python3)" in refused(on, "vfio_bind", devices=one(GPU), scope="companions", owner="operator", state="released")


def test_a_group_with_the_device_of_somebody_else_is_refused_until_that_is_listed(on: Guest) -> None:
    message = refused(on, "vfio_bind", devices=one(BRIDGED_GPU))
    assert NEIGHBOUR in message and "allow.foreign" in message
    three_runs(on, "vfio_bind", devices=one(BRIDGED_GPU), allow={"foreign": [NEIGHBOUR]})
    assert on.drivers([BRIDGED_GPU, NEIGHBOUR]) == {BRIDGED_GPU: "vfio-pci", NEIGHBOUR: "vfio-pci"}
    assert on.viable(BRIDGED_GPU)


def test_a_network_card_that_carries_an_address_is_never_taken(on: Guest) -> None:
    (name,) = on.names(f"{DEVICES}/{NIC}/net")
    on.run(f"ip link set {name} up; ip address add 192.0.2.1/24 dev {name}")
    message = refused(on, "vfio_bind", devices=one(NIC), allow={"foreign": [NIC]})
    assert name in message and "nothing overrides this" in message
    assert on.driver(NIC) == "igb"


def test_without_an_iommu_nothing_is_bound(off: Guest) -> None:
    assert "no IOMMU group" in refused(off, "vfio_bind", devices=one(GPU))
    assert off.driver(GPU) == "nvidia"
