# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt's own device plugins as the lab simulates them: what they advertise of a host, and when they look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import tree
from tests.hosts.specification import LAB_HOSTS, OWNED_HOSTS, HostSpec, a10s
from tests.lab.operands import virt_handler
from tests.lab.operands.labels import Json
from tests.lab.operands.virt_handler import Around, Handler, Permits

ON = {"cmdline": "intel_iommu=on"}
HOSTS = {
    "mdevs": OWNED_HOSTS["gpu-owned-mdev-0"],
    "functions": OWNED_HOSTS["gpu-owned-vf-0"],
    "whole": HostSpec(a10s(driver="vfio-pci"), **ON),
    "whole, on NVIDIA's driver": LAB_HOSTS["gpu-vgpu-0"],
    "whole, with audio": HostSpec(a10s(driver="vfio-pci", audio=True, audio_driver="vfio-pci", kind="030000"), **ON),
    "whole, without an IOMMU": HostSpec(a10s(driver="vfio-pci"), firmware="none"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in built:
            built[name] = tmp_path_factory.mktemp("host")
            tree.build(built[name], HOSTS[name])
        return built[name]

    return of


def cr(pci: Json = (), mediated: Json = (), version: str = "v1.9.0", **more: Json) -> Json:
    devices = {
        "pciHostDevices": [dict(zip(("pciVendorSelector", "resourceName", "externalResourceProvider"), e, strict=False)) for e in pci],
        "mediatedDevices": [dict(zip(("mdevNameSelector", "resourceName", "externalResourceProvider"), e, strict=False)) for e in mediated],
    }
    return {"spec": {"configuration": {"permittedHostDevices": devices, **more}}, "status": {"observedKubeVirtVersion": version}}


A10, NAME, EIGHT = "nvidia.com/GA102GL_A10", "nvidia.com/NVIDIA_A10-12Q", "nvidia.com/NVIDIA_A10-8Q"


@pytest.mark.parametrize(
    ("host", "permitted", "found"),
    [
        ("mdevs", cr(mediated=[("NVIDIA A10-8Q", EIGHT, False)]), {EIGHT: 6}),
        ("mdevs", cr(mediated=[("NVIDIA_A10-8Q", EIGHT)]), {EIGHT: 6}),
        ("mdevs", cr(mediated=[("NVIDIA A10-8Q", EIGHT, True)]), {}),
        ("mdevs", cr(mediated=[("nvidia a10-8q", EIGHT)]), {}),
        ("mdevs", cr(mediated=[(" NVIDIA A10-8Q", EIGHT)]), {}),
        ("mdevs", cr(mediated=[("NVIDIA A10-4Q", EIGHT), ("NVIDIA A10-8Q", EIGHT)]), {EIGHT: 6}),
        ("mdevs", cr(pci=[("10DE:2236", A10)]), {}),
        ("mdevs", cr(), {}),
        ("functions", cr(pci=[("10DE:2236", NAME)]), {NAME: 4}),
        ("functions", cr(pci=[("10de:2236", A10), ("10DE:2236", NAME)]), {NAME: 4}),
        ("functions", cr(pci=[("10DE:2236", NAME)], version="v1.8.4"), {}),
        ("functions", cr(pci=[("10DE:2236", NAME, True)]), {}),
        ("functions", cr(mediated=[("NVIDIA A10-12Q", NAME)]), {}),
        ("whole", cr(pci=[("10DE:2236", A10)]), {A10: 2}),
        ("whole", cr(pci=[("10DE:2236", A10)], version="v1.0.0"), {A10: 2}),
        ("whole", cr(pci=[("10DE:*", A10)]), {}),
        ("whole, on NVIDIA's driver", cr(pci=[("10DE:2236", A10)]), {}),
        ("whole, without an IOMMU", cr(pci=[("10DE:2236", A10)]), {}),
        ("whole, with audio", cr(pci=[("10DE:2236", A10), ("10DE:1AEF", A10)]), {A10: 2}),
    ],
)  # fmt: skip
def test_a_device_is_advertised_that_is_permitted_and_there(
    root: Callable[[str], Path], host: str, permitted: Json, found: dict[str, int]
) -> None:
    assert virt_handler.discover(root(host), virt_handler.permits(permitted)) == found


def test_a_name_without_a_slash_ends_it_once_a_device_is_there(root: Callable[[str], Path]) -> None:
    without = virt_handler.permits(cr(mediated=[("NVIDIA A10-8Q", "A10-8Q")]))
    assert virt_handler.discover(root("whole"), without) == {}
    with pytest.raises(virt_handler.Crash, match="no slash"):
        virt_handler.discover(root("mdevs"), without)


@pytest.mark.parametrize(
    ("more", "handling"),
    [
        ({}, True),
        ({"developerConfiguration": {"featureGates": ["DisableMDEVConfiguration"]}}, False),
        ({"mediatedDevicesConfiguration": {"enabled": False}}, False),
        (
            {
                "mediatedDevicesConfiguration": {"enabled": True},
                "developerConfiguration": {"featureGates": ["DisableMDEVConfiguration"]},
            },
            True,
        ),
    ],
)
def test_the_field_wins_over_the_gate(more: Json, handling: bool) -> None:
    assert virt_handler.permits(cr(**more)).handling is handling


@pytest.mark.parametrize(
    ("permitted", "deleted"),
    [
        (cr(), 6),
        (cr(mediated=[("NVIDIA A10-8Q", EIGHT)]), 6),  # it is no keep-list for what KubeVirt has to advertise
        (cr(mediated=[("NVIDIA A10-8Q", EIGHT, True)]), 0),
        (cr(mediatedDevicesConfiguration={"mediatedDeviceTypes": ["NVIDIA_A10-8Q"]}), 0),
        (cr(mediatedDevicesConfiguration={"enabled": False}), 0),
    ],
)
def test_while_it_handles_mediated_devices_it_deletes_those_that_nobody_has_told_it_of(
    root: Callable[[str], Path], permitted: Json, deleted: int
) -> None:
    assert len(virt_handler.unwanted(root("mdevs"), virt_handler.permits(permitted))) == deleted


def test_deleted_devices_are_gone_from_the_tree(tmp_path: Path) -> None:
    tree.build(tmp_path / "host", HOSTS["mdevs"])
    gone = sorted(virt_handler.mediated_types(tmp_path / "host"))[:2]
    tree.drop_vgpus(tmp_path / "host", gone)
    left = virt_handler.mediated_types(tmp_path / "host")
    assert len(left) == 4 and not left.keys() & set(gone)


OFF, MORE, HANDLING = Permits(handling=False), Permits(pci=(("10de:2236", A10),), handling=False), Permits()
RUNS = Handler(OFF, {A10: 2}, 0.0)


@pytest.mark.parametrize(
    ("before", "around", "there", "after"),
    [
        pytest.param(None, Around(OFF, 0, 60), {A10: 2}, {A10: 2}, id="its pod has started"),
        pytest.param(None, Around(OFF, 0, 60, deaf=True), {A10: 2}, {A10: 2}, id="a deaf one has started"),
        pytest.param(RUNS, Around(MORE, 1, 60), {A10: 2, EIGHT: 6}, {A10: 2, EIGHT: 6}, id="something more is permitted"),
        pytest.param(RUNS, Around(MORE, 1, 60, deaf=True), {A10: 2, EIGHT: 6}, {A10: 2}, id="a deaf one does not see that"),
        pytest.param(RUNS, Around(MORE, 1, 60), {A10: 9}, {A10: 2}, id="more devices of a running plugin do not count"),
        pytest.param(RUNS, Around(MORE, 1, 60), {EIGHT: 6}, {EIGHT: 6}, id="what is no longer permitted goes"),
        pytest.param(RUNS, Around(OFF, 999, 60), {EIGHT: 6}, {A10: 2}, id="without handling there is no heartbeat that looks"),
        pytest.param(Handler(HANDLING, {}, 0.0), Around(HANDLING, 59, 60), {EIGHT: 6}, {}, id="the heartbeat is not due"),
        pytest.param(Handler(HANDLING, {}, 0.0), Around(HANDLING, 60, 60), {EIGHT: 6}, {EIGHT: 6}, id="the heartbeat looks"),
        pytest.param(Handler(OFF, {}, 0.0, "panic"), Around(MORE, 1, 60), {A10: 2}, {}, id="a crashed one does nothing"),
    ],
)  # fmt: skip
def test_when_it_looks(before: Handler | None, around: Around, there: dict[str, int], after: dict[str, int]) -> None:
    assert dict(virt_handler.step(before, around, lambda: there).plugins) == after


def test_a_crash_takes_all_its_plugins() -> None:
    def crash() -> dict[str, int]:
        raise virt_handler.Crash("no slash")

    after = virt_handler.step(RUNS, Around(MORE, 1, 60), crash)
    assert (dict(after.plugins), after.crashed) == ({}, "no slash")


@pytest.mark.parametrize(
    ("now", "plugins", "ended", "changed"),
    [
        ({}, {A10: 2}, (), {A10: "2"}),
        ({A10: "2"}, {A10: 2}, (), {}),
        ({A10: "2"}, {}, (A10,), {A10: "0"}),
        ({A10: "0"}, {}, (A10,), {}),
        ({"nvidia.com/gpu": "2"}, {A10: 1}, (), {A10: "1"}),
    ],
)
def test_what_is_said_of_the_node(now: dict[str, str], plugins: dict[str, int], ended: tuple[str, ...], changed: dict[str, str]) -> None:
    assert virt_handler.changes(now, plugins, ended) == changed
