# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module that is killed at any moment leaves what the next run finishes."""

from __future__ import annotations

import random
import threading
import typing as t

import pytest

from tests.kernel.devices import AUDIO, GPU, SRIOV_GPU
from tests.kernel.guest import DEVICES, Guest
from tests.kernel.playbooks import task, tasks

KILLS = 6


def killed(guest: Guest, wish: dict[str, t.Any], after: float) -> None:
    """Run a task, and kill what runs it in the guest so many seconds after it has started there."""
    script = (
        f"for i in $(seq 600); do pgrep -x python3 >/dev/null && break; sleep 0.05; done; sleep {after:.3f}; pkill -9 -x python3 || true"
    )
    killer = threading.Thread(target=guest.run, args=(script,))
    killer.start()
    tasks(guest, wish)
    killer.join()


def finished(guest: Guest, wish: dict[str, t.Any]) -> None:
    run = tasks(guest, wish, wish)
    assert run.outcomes == ["ok", "ok"] and not run.results[1]["changed"], run.output


@pytest.mark.parametrize("seed", [1, 2])
def test_binding_goes_on_where_it_was_killed(on: Guest, seed: int) -> None:
    moments = random.Random(seed)
    wish = task("vfio_bind", devices=[{"address": GPU}], persist="boot")
    back = task("vfio_bind", devices=[{"address": GPU}], state="released")
    for _ in range(KILLS // 2):
        killed(on, wish, moments.uniform(0, 2.5))
        killed(on, back, moments.uniform(0, 2.5))
    finished(on, back)
    assert on.drivers([GPU, AUDIO]) == {GPU: "nvidia", AUDIO: "snd_hda_intel"}
    killed(on, wish, moments.uniform(0, 2.5))
    finished(on, wish)
    assert on.drivers([GPU, AUDIO]) == {GPU: "vfio-pci", AUDIO: "vfio-pci"} and on.viable(GPU)


def test_vgpus_are_finished_where_they_were_killed(on: Guest) -> None:
    """With a driver that takes its time, so that the moments fall into the writes."""
    moments = random.Random(3)
    on.run(f"echo 7 > {DEVICES}/{SRIOV_GPU}/sriov_numvfs; echo 150 > /sys/module/nvidia/parameters/delay_ms")
    wishes = [
        task("mdev_create", gpus=[{"address": SRIOV_GPU, "types": [{"type": name, "count": count}]}], persist="boot")
        for name, count in (("A10-4Q", 6), ("A10-8Q", 3))
    ]
    for number in range(KILLS):
        killed(on, wishes[number % 2], moments.uniform(0, 4))
    for wish, expected in zip(wishes, (["NVIDIA A10-4Q"] * 6, ["NVIDIA A10-8Q"] * 3), strict=True):
        finished(on, wish)
        assert sorted(on.vgpus().values()) == expected
