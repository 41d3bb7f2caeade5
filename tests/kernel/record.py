# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the recordings of ``tests/hosts/recorded`` anew, each of a guest in a state that is brought about here.

    python -m tests.kernel.record [NAME...]

Beside each recording go the facts that ``gpu_node_info`` told of the guest itself at that moment: a replayed recording has to give the same.

Nothing of the collection has a part in what is recorded: what was made in a guest was made by hand, as an administrator does it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing as t
from pathlib import Path

from tests.hosts.facts import up_to_pseudonyms
from tests.kernel import playbooks
from tests.kernel.cached import KernelLabError
from tests.kernel.devices import GPU, SECOND_GPU, SRIOV_GPU
from tests.kernel.guest import DEVICES, Guest
from tests.kernel.session import session

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDER = CHECKOUT / "tools" / "record-host"
RECORDED = CHECKOUT / "tests" / "hosts" / "recorded"
#: The number of the type NVIDIA A10-4Q, and the identity of the vGPU; the recorder gives it another one.
TYPE, IDENTITY = 593, "5a3c1f9e-0000-4000-8000-000000000001"


def as_it_came_up(guest: Guest) -> None:
    pass


def with_vgpus(guest: Guest) -> None:
    """Four virtual functions, a vGPU on the first; a GPU on vfio-pci without its audio function, and another that a process holds."""
    guest.run(f"modprobe vfio-pci; echo 4 > {DEVICES}/{SRIOV_GPU}/sriov_numvfs")
    parent = guest.virtual_functions(SRIOV_GPU)[0]
    guest.run(f"echo {IDENTITY} > {DEVICES}/{parent}/mdev_supported_types/nvidia-{TYPE}/create")
    guest.hand_over(GPU)
    guest.hand_over(SECOND_GPU)
    guest.hold(SECOND_GPU)


def with_vendor_framework(guest: Guest) -> None:
    """The stand-in without mdev: four virtual functions, a vGPU on the second."""
    guest.run(f"modprobe -r nvidia; modprobe nvidia framework=vendor; echo 4 > {DEVICES}/{SRIOV_GPU}/sriov_numvfs")
    taken = guest.virtual_functions(SRIOV_GPU)[1]
    guest.run(f"echo {TYPE} > {DEVICES}/{taken}/nvidia/current_vgpu_type")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What is recorded: a guest in one of the states of ``states.py``, and what is done to it first."""

    state: str
    done: t.Callable[[Guest], None]


RECORDINGS = {
    "guest-no-iommu": Recorded("nofw", as_it_came_up),
    "guest-iommu-off": Recorded("off", as_it_came_up),
    "guest-vgpu": Recorded("on", with_vgpus),
    "guest-vendor-vfio": Recorded("on", with_vendor_framework),
}


def recording(guest: Guest) -> str:
    """What the recorder makes of a guest now."""
    guest.write("/run/record-host", RECORDER.read_text(encoding="utf-8"))
    return guest.run("python3 -B /run/record-host --output /run/recorded.json >/dev/null; cat /run/recorded.json")


def facts(guest: Guest) -> str:
    """What ``gpu_node_info`` says of a guest now, up to what a recording replaces."""
    said = playbooks.module(guest, "gpu_node_info")
    if said["failed"]:
        raise KernelLabError(f"Recording guests: gpu_node_info failed on the guest ({said['msg']}). Nothing was recorded of it.")
    return json.dumps(up_to_pseudonyms(said), indent=1, sort_keys=True) + "\n"


def main(names: t.Sequence[str]) -> None:
    if unknown := set(names) - RECORDINGS.keys():
        raise KernelLabError(f"Recording guests: there is no recording {', '.join(sorted(unknown))}. Choose from {', '.join(RECORDINGS)}.")
    with session() as lab:
        for name in names or RECORDINGS:
            wanted = RECORDINGS[name]
            guest = lab.start(wanted.state)
            try:
                wanted.done(guest)
                (RECORDED / f"{name}.json").write_text(recording(guest), encoding="utf-8")
                (RECORDED / "facts" / f"{name}.json").write_text(facts(guest), encoding="utf-8")
            finally:
                guest.stop()
            print(f"{name}: recorded")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KernelLabError as error:
        sys.exit(str(error))
