# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module vfio_bind through its ``main()``, on trees with a kernel that reacts."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _boot_binding, _displaced, _rebind
from tests.hosts import furniture, kernel_pci, tree
from tests.hosts.kernel import ReactingHost
from tests.hosts.tree import Gpu, HostSpec

GPU, AUDIO, OTHER = "0000:41:00.0", "0000:41:00.1", "0000:a1:00.0"
NIC = "0000:41:01.0"
PORT = "0000:40:01.0"
ANY, THIS = "v*d*sv*sd*bc*sc*i*", "v000010DEd00002236sv*sd*bc*sc*i*"


class Bench:
    """A tree with a kernel, and the module on it."""

    def __init__(self, root: Path, reacting: t.Any, run_module: t.Any) -> None:
        self.root = root
        self.host: ReactingHost = reacting("vfio_bind", str(root))
        self._run = run_module

    def __call__(self, *addresses: str, check: bool = False, diff: bool = False, **options: t.Any) -> dict[str, t.Any]:
        devices = options.pop("devices", None) or [{"address": address} for address in addresses or (GPU,)]
        self.host.written.clear()
        result: dict[str, t.Any] = self._run("vfio_bind", {"devices": devices, "host_root": str(self.root), **options}, check, diff)
        return result

    def driver(self, address: str) -> str | None:
        link = self.root / "sys/bus/pci/devices" / address / "driver"
        return link.resolve().name if link.is_symlink() else None

    def override(self, address: str) -> str:
        return (self.root / "sys/bus/pci/devices" / address / "driver_override").read_text().strip()

    @property
    def group(self) -> str:
        return (self.root / "sys/bus/pci/devices" / GPU / "iommu_group").resolve().name

    @property
    def written(self) -> list[tuple[str, str]]:
        return [(path.rpartition("/")[2], text) for path, text in self.host.written]


@pytest.fixture
def bench(tmp_path: Path, reacting, run_module):
    def make(*gpus: Gpu, drivers: tuple[str, ...] = ("vfio-pci", "nvidia", "snd_hda_intel", "igb"), **host: t.Any) -> Bench:
        spec = HostSpec(
            list(gpus) or [Gpu(GPU, driver="nvidia", audio=True), Gpu(OTHER, driver="nvidia")], **{"cmdline": "intel_iommu=on", **host}
        )
        tree.build(tmp_path / "host", spec)
        for driver in drivers:
            kernel_pci.load(tmp_path / "host", driver)
        furniture.mounts(tmp_path / "host")
        return Bench(tmp_path / "host", reacting, run_module)

    return make


def targets(result: dict[str, t.Any]) -> list[tuple[str, str, t.Any, t.Any]]:
    return [(c["target"], c["action"], c["before"], c["after"]) for c in result["changes"]]


def refused(result: dict[str, t.Any], target: str, *words: str) -> None:
    """The module failed about this target with these words, and wrote nothing."""
    assert result["failed"] and not result["changed"], result
    blockers = [blocker for blocker in result["blockers"] if blocker["target"] == target]
    assert blockers, result["blockers"]
    for word in words:
        assert any(word in f"{blocker['problem']}. {blocker['remedy']}" for blocker in blockers), (word, blockers)


# Binding


def test_a_gpu_is_bound_with_its_companion_and_nothing_else(bench) -> None:
    b = bench()
    expected = [(GPU, "bind", "nvidia", "vfio-pci"), (AUDIO, "bind", "snd_hda_intel", "vfio-pci")]
    checked = b(check=True, diff=True)
    assert targets(checked) == expected and checked["changed"]
    assert b.host.written == [] and not (b.root / _displaced.PATH[1:]).exists()
    done = b(diff=True)
    assert (targets(done), done["changed"], done["failed"]) == (expected, True, False)
    assert done["diff"] == checked["diff"]
    assert "nvidia" in done["diff"]["before"] and "vfio-pci" in done["diff"]["after"]
    assert b.written == [
        ("driver_override", "vfio-pci"), ("unbind", GPU), ("drivers_probe", GPU),
        ("driver_override", "vfio-pci"), ("unbind", AUDIO), ("drivers_probe", AUDIO),
    ]  # fmt: skip
    assert [b.driver(address) for address in (GPU, AUDIO, OTHER, PORT)] == ["vfio-pci", "vfio-pci", "nvidia", "pcieport"]
    assert done["groups"] == {b.group: {"members": [GPU, AUDIO], "viable": True, "blockers": []}}
    assert [(f["address"], f["driver"]) for f in done["functions"]] == [(GPU, "vfio-pci"), (AUDIO, "vfio-pci")]
    again = b()
    assert (again["changed"], again["changes"], again["failed"]) == (False, [], False)
    assert b.host.written == []


@pytest.mark.parametrize(
    ("device", "bound"),
    [
        ({"vendor_device": "10DE:2236"}, [GPU, OTHER]),
        ({"vendor_device": "10de:2236", "subsystem": "10DE:1482"}, [GPU, OTHER]),
        ({"class": "0302"}, [GPU, OTHER]),
        ({"class": "0403"}, [AUDIO]),
        ({"address": OTHER}, [OTHER]),
    ],
)
def test_functions_are_chosen_by_address_or_by_what_they_are(bench, device: dict[str, str], bound: list[str]) -> None:
    b = bench()
    assert [c["target"] for c in b(devices=[device], scope="function", check=True)["changes"]] == bound


def test_ids_never_mean_virtual_functions(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"), Gpu(OTHER, driver="nvidia", vfs=2))
    refused(b(devices=[{"vendor_device": "10de:2236"}]), OTHER, "2 virtual functions")
    vf = b("0000:a1:00.4", check=True)
    assert targets(vf) == [("0000:a1:00.4", "bind", "nvidia", "vfio-pci")]


def test_a_function_alone_leaves_its_group_and_says_so(bench) -> None:
    b = bench()
    done = b(scope="function")
    assert [b.driver(GPU), b.driver(AUDIO)] == ["vfio-pci", "snd_hda_intel"]
    assert f"also holds {AUDIO} (10de:1aef, class 0403, driver snd_hda_intel)" in done["warnings"][0]
    assert not done["groups"][b.group]["viable"]


def test_two_gpus_of_one_group_go_together(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"))
    furniture.function_beside(b.root, GPU, "0000:41:02.0", "10de", "2236", "030200", "nvidia")
    b()
    assert b.driver("0000:41:02.0") == "vfio-pci"


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("", "vfio-pci"),
        (f"alias vfio_pci:{ANY} vfio_pci\n", "vfio-pci"),
        (f"alias vfio_pci:{ANY} vfio_pci\nalias vfio_pci:{THIS} nvgrace_gpu_vfio_pci\n", "nvgrace_gpu_vfio_pci"),
        (f"alias vfio_pci:{THIS.replace('2236', '2342')} nvgrace_gpu_vfio_pci\n", "vfio-pci"),
        (f"alias pci:{THIS} nvidia\n", "vfio-pci"),
    ],
)
def test_the_kernel_s_own_table_chooses_the_driver(bench, alias: str, expected: str) -> None:
    b = bench(Gpu(GPU), drivers=("vfio-pci", "nvgrace_gpu_vfio_pci"))
    (b.root / f"lib/modules/{tree.KERNEL}/modules.alias").write_text(alias)
    assert targets(b()) == [(GPU, "bind", None, expected)]
    assert b.driver(GPU) == expected


def test_a_driver_can_be_named(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"), drivers=("vfio-pci", "mlx5_vfio_pci"))
    assert targets(b(driver="mlx5-vfio-pci")) == [(GPU, "bind", "vfio-pci", "mlx5_vfio_pci")]


@pytest.mark.parametrize(
    "options",
    [
        {"driver": "pci-stub"},
        {"driver": "../vfio"},
        {"devices": [{"address": "41:00.0"}]},
        {"devices": [{"vendor_device": "2236"}]},
        {"devices": [{"class": "3"}]},
        {"allow": {"foreign": ["nvme"]}},
        {"timeout": -1},
        {"devices": [{"address": GPU, "class": "0302"}]},
        {"devices": [{"subsystem": "10de:1482"}]},
    ],
)
def test_options_that_mean_nothing_are_refused(bench, options: dict[str, t.Any]) -> None:
    b = bench()
    result = b(**options)
    assert result["failed"] and b.host.written == []


# Refusals


def test_an_address_that_does_not_exist_stops_only_itself(bench) -> None:
    b = bench()
    result = b("0000:99:00.0", OTHER)
    assert result["failed"] and [c["target"] for c in result["changes"]] == [OTHER]
    assert result["blockers"][0]["target"] == "address 0000:99:00.0"
    assert b.driver(OTHER) == "vfio-pci"


def test_a_bridge_is_never_bound(bench) -> None:
    b = bench()
    for options in ({}, {"allow": {"foreign": [PORT]}}):
        refused(b(PORT, **options), PORT, "bridge")
    assert b.host.written == []


@pytest.mark.parametrize("scope", ["group", "function"])
def test_what_is_not_nvidia_s_must_be_listed(bench, scope: str) -> None:
    b = bench()
    refused(b("0000:01:00.0", scope=scope), "0000:01:00.0", "no NVIDIA device (8086:159b, class 0200, driver ice)", "allow.foreign")
    assert b.host.written == []


def test_the_boot_display_is_taken_only_on_purpose(bench) -> None:
    b = bench(Gpu(GPU, kind="030000", driver="nvidia", boot_vga=True))
    refused(b(), GPU, "boot_vga")
    assert not b(allow={"boot_vga": True})["failed"]
    assert b.driver(GPU) == "vfio-pci"


@pytest.mark.parametrize("scope", ["group", "function", "companions"])
def test_a_foreign_neighbour_stops_the_group_and_no_other(bench, scope: str) -> None:
    b = bench(Gpu(GPU, driver="nvidia", audio=True, neighbour=True), Gpu(OTHER, driver="nvidia", audio=True))
    result = b(GPU, OTHER, scope=scope)
    assert result["failed"] and result["changed"]
    assert [blocker["target"] for blocker in result["blockers"]] == [NIC]
    assert "group" in result["blockers"][0]["problem"] and "driver igb" in result["blockers"][0]["problem"]
    assert [b.driver(GPU), b.driver(AUDIO), b.driver(NIC)] == ["nvidia", "snd_hda_intel", "igb"]
    assert all(text not in (GPU, AUDIO, NIC) for _name, text in b.written)


def test_a_foreign_neighbour_without_a_driver_is_refused_too_and_one_on_vfio_is_not(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"))
    furniture.function_beside(b.root, GPU, NIC, "8086", "1533", "020000", None)
    refused(b(), NIC, "no driver")
    kernel_pci.take(b.host, kernel_pci._function(b.host, NIC), "vfio-pci")
    assert targets(b()) == [(GPU, "bind", "nvidia", "vfio-pci")]


def test_a_listed_neighbour_follows_if_the_host_does_not_use_it(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia", neighbour=True))
    furniture.interface(b.root, NIC, "eth1")
    done = b(allow={"foreign": [NIC.upper()]})
    assert not done["failed"] and b.driver(NIC) == "vfio-pci"
    assert done["groups"][b.group]["viable"]


def _up(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1", flags=0x1003)


def _in_a_bond(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1")
    (b.root / "sys/class/net/eth1/upper_bond0").mkdir()


def _addressed(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1")
    (b.root / "proc/net").mkdir()
    (b.root / "proc/net/if_inet6").write_text("fe800000000000000000000000000001 02 40 20 80     eth1\n")


def _routed(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1")
    (b.root / "proc/net").mkdir()
    (b.root / "proc/net/route").write_text("Iface\tDestination\tGateway\neth1\t00000000\t010011AC\n")


def _routed6(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1")
    (b.root / "proc/net").mkdir()
    (b.root / "proc/net/ipv6_route").write_text(f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} 00000400 1 0 00000003     eth1\n")


def _elsewhere(b: Bench) -> None:
    pass  # a driver, and no interface in this network namespace


def _serial_console(b: Bench) -> None:
    furniture.interface(b.root, NIC, "eth1")
    place = furniture._real(b.root, NIC)
    furniture._link(b.root, "sys/class/tty/ttyS4", f"{place}/tty/ttyS4")
    furniture._write(b.root, f"{place}/tty/ttyS4/dev", "4:68\n")
    furniture._write(b.root, "sys/class/tty/console/active", "tty0 ttyS4\n")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (_up, "interface eth1, which is up"),
        (_in_a_bond, "part of bond0"),
        (_addressed, "has an address"),
        (_routed, "has a route"),
        (_routed6, "has a route"),
        (_elsewhere, "no interface can be seen"),
        (_serial_console, "console ttyS4"),
    ],
)
def test_a_network_card_that_the_host_uses_is_never_taken(bench, use: t.Callable[[Bench], None], words: str) -> None:
    b = bench(Gpu(GPU, driver="nvidia", neighbour=True))
    use(b)
    refused(b(allow={"foreign": [NIC], "boot_vga": True}), NIC, words, "nothing overrides")
    assert b.host.written == []


DISK = "0000:41:03.0"


def _mounted(b: Bench) -> None:
    furniture.mounts(b.root, "24 1 259:0 / /data rw - xfs /dev/nvme7n1 rw")


def _mounted_by_name(b: Bench) -> None:
    (b.root / "dev/disk").mkdir(parents=True)
    (b.root / "dev/disk/by-label").symlink_to("../nvme7n1")
    furniture.mounts(b.root, "24 1 0:50 / /data rw - btrfs /dev/disk/by-label rw")


def _mounted_in_a_pod(b: Bench) -> None:
    furniture.process(b.root, 77, "sh")
    (b.root / "proc/77/ns").mkdir()
    (b.root / "proc/77/ns/mnt").symlink_to("mnt:[4026532300]")
    furniture._write(b.root, "proc/77/mountinfo", "24 1 259:0 / /data rw - xfs /dev/nvme7n1 rw\n")


def _swap(b: Bench) -> None:
    (b.root / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/nvme7n1 partition 1 0 -2\n")


def _lvm(b: Bench) -> None:
    furniture.holds(b.root, "nvme7n1", "dm-0")
    furniture._write(b.root, "sys/devices/virtual/block/dm-0/dm/name", "vg-data\n")


def _md(b: Bench) -> None:
    furniture._write(b.root, "proc/mdstat", "Personalities : [raid1]\nmd0 : active raid1 nvme7n1[0] sdb[1]\n")


def _btrfs(b: Bench) -> None:
    furniture._link(b.root, "sys/fs/btrfs/4f5f/devices/nvme7n1", "sys/class/block/nvme7n1")


def _zfs(b: Bench) -> None:
    furniture._write(b.root, "proc/spl/kstat/zfs/tank/state", "ONLINE\n")


def _unknown_mounts(b: Bench) -> None:
    (b.root / "proc/1/mountinfo").unlink()


def _unknown_swaps(b: Bench) -> None:
    (b.root / "proc/swaps").unlink()


def _opened(b: Bench) -> None:
    furniture.process(b.root, 88, "ceph-osd", "/dev/nvme7n1")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (_mounted, "nvme7n1, which is mounted on /data"),
        (_mounted_by_name, "mounted on /data"),
        (_mounted_in_a_pod, "mounted on /data"),
        (_swap, "which is swap"),
        (_lvm, "part of dm-0 (vg-data)"),
        (_md, "md array"),
        (_btrfs, "btrfs"),
        (_zfs, "ZFS pool (tank)"),
        (_unknown_mounts, "cannot be read"),
        (_unknown_swaps, "cannot be read"),
        (_opened, "held by process 88 (ceph-osd)"),
    ],
)
def test_a_disk_that_the_host_uses_is_never_taken(bench, use: t.Callable[[Bench], None], words: str) -> None:
    b = bench(Gpu(GPU, driver="nvidia"), drivers=("vfio-pci", "nvme"))
    furniture.function_beside(b.root, GPU, DISK, "144d", "a80a", "010802", "nvme")
    furniture.disk(b.root, DISK, "nvme7n1", "259:0")
    use(b)
    refused(b(allow={"foreign": [DISK]}), DISK, words)
    assert b.host.written == []


def test_a_disk_behind_several_controllers_is_found_through_its_subsystem(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"), drivers=("vfio-pci", "nvme"))
    furniture.function_beside(b.root, GPU, DISK, "144d", "a80a", "010802", "nvme")
    place = "sys/devices/virtual/nvme-subsystem/nvme-subsys7"
    furniture._write(b.root, f"{furniture._real(b.root, DISK)}/nvme/nvme7/state", "live\n")
    furniture._link(b.root, f"{place}/nvme7", f"{furniture._real(b.root, DISK)}/nvme/nvme7")
    furniture.block(b.root, f"{place}/nvme7n1", "259:0")
    _mounted(b)
    refused(b(allow={"foreign": [DISK]}), DISK, "mounted on /data")


def test_a_mounted_disk_on_what_a_disk_is_part_of_counts(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"), drivers=("vfio-pci", "nvme"))
    furniture.function_beside(b.root, GPU, DISK, "144d", "a80a", "010802", "nvme")
    furniture.disk(b.root, DISK, "nvme7n1", "259:0")
    _lvm(b)
    furniture.mounts(b.root, "24 1 253:0 / /data rw - ext4 /dev/mapper/vg-data rw")
    refused(b(allow={"foreign": [DISK]}), DISK, "dm-0, which is mounted on /data")


def test_an_idle_disk_that_is_listed_is_taken(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"), drivers=("vfio-pci", "nvme"))
    furniture.function_beside(b.root, GPU, DISK, "144d", "a80a", "010802", "nvme")
    furniture.disk(b.root, DISK, "nvme7n1", "259:0")
    assert not b(allow={"foreign": [DISK]})["failed"]
    assert b.driver(DISK) == "vfio-pci"


def test_the_display_of_the_host_is_never_taken(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia"), drivers=("vfio-pci", "ast"))
    bmc = "0000:41:04.0"
    furniture.function_beside(b.root, GPU, bmc, "1a03", "2000", "030000", "ast")
    wish = {"allow": {"foreign": [bmc], "boot_vga": True}}
    furniture._write(b.root, f"{furniture._real(b.root, bmc)}/boot_vga", "1\n")
    refused(b(**wish), bmc, "shows the host's console")
    furniture._write(b.root, f"{furniture._real(b.root, bmc)}/boot_vga", "0\n")
    furniture._link(b.root, "sys/class/graphics/fb0", f"{furniture._real(b.root, bmc)}/graphics/fb0")
    refused(b(**wish), bmc, "shows the host's console")
    (b.root / "sys/class/graphics/fb0").unlink()
    assert not b(**wish)["failed"]


def test_a_physical_function_with_virtual_ones_stays(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia", vfs=4))
    refused(b(), GPU, "4 virtual functions", "sriov_vfs")
    assert b.host.written == []


def test_a_gpu_with_vgpus_stays(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia", vfs_total=0))
    (b.root / furniture._real(b.root, GPU) / "4d0f1b8e-6c0e-4d52-9f0a-2f4f5a9d7c11").mkdir()
    refused(b(), GPU, "1 vGPUs")


def test_without_an_iommu_group_nothing_is_bound(bench) -> None:
    b = bench(cmdline="intel_iommu=off")
    refused(b(), GPU, "no IOMMU group", "kernel_cmdline")
    assert b.host.written == []


@pytest.mark.parametrize("options", [{}, {"scope": "function"}, {"state": "released"}])
def test_a_host_of_the_operator_is_left_to_it(bench, options: dict[str, str]) -> None:
    b = bench()
    refused(b(owner="operator", **options), "host", "one owner")
    assert b.host.written == []


def test_on_the_operator_s_host_companions_are_bound_and_never_the_gpu(bench) -> None:
    b = bench(Gpu(GPU, kind="030000", driver="vfio-pci", audio=True))
    done = b(owner="operator", scope="companions")
    assert targets(done) == [(AUDIO, "bind", "snd_hda_intel", "vfio-pci")]
    assert done["groups"][b.group]["viable"]
    assert not b(owner="operator", scope="companions", state="released")["failed"]
    assert [b.driver(GPU), b.driver(AUDIO)] == ["vfio-pci", "snd_hda_intel"]


@pytest.mark.parametrize(("driver", "node"), [("vfio-pci", "/dev/vfio/{group}"), ("nvidia", "/dev/nvidia0")])
def test_companions_are_bound_only_if_nobody_holds_the_group(bench, driver: str, node: str) -> None:
    b = bench(Gpu(GPU, kind="030000", driver=driver, audio=True))
    furniture._write(b.root, f"proc/driver/nvidia/gpus/{GPU}/information", "Device Minor: \t 0\n")
    furniture.process(b.root, 4711, "holder", node.format(group=b.group))
    refused(b(owner="operator", scope="companions"), GPU, "held by process 4711 (holder)")
    assert b.host.written == []


@pytest.mark.parametrize(
    ("path", "text", "where"),
    [
        ("etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:1b38,10de:2236\n", "/etc/modprobe.d/vfio.conf line 1"),
        ("etc/modprobe.d/x.conf", "# x\noptions vfio_pci disable_vga=1 \\\n  ids=10DE:2236:ffffffff:ffffffff\n", "/etc/modprobe.d/x.conf line 2"),
        ("usr/lib/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2236:10de:1482\n", "/usr/lib/modprobe.d/vfio.conf"),
        ("proc/cmdline", "ro intel_iommu=on vfio-pci.ids=10de:2236 quiet\n", "kernel command line (vfio-pci.ids=10de:2236)"),
        ("proc/cmdline", 'ro "vfio_pci.ids=10de:1b38, 10de:2236"\n', "kernel command line (vfio_pci.ids=10de:1b38, 10de:2236)"),
        ("proc/cmdline", 'vfio-pci.ids="8086:1,10de:2236:10de:1482" ro\n', "kernel command line (vfio-pci.ids="),
        (f"etc/driverctl.d/pci-{GPU}", "vfio-pci\n", f"/etc/driverctl.d/pci-{GPU}"),
        ("etc/udev/rules.d/10-x.rules", f'KERNEL=="{GPU}", ATTR{{driver_override}}="vfio-pci"\n', "/etc/udev/rules.d/10-x.rules line 1"),
        ("usr/lib/udev/rules.d/10-x.rules", 'ATTR{vendor}=="0x10de", ATTR{driver_override}="vfio-pci"\n', "10-x.rules"),
        ("etc/udev/rules.d/10-x.rules", 'ENV{PCI_ID}=="10DE:*", PROGRAM=="x", ATTR{driver_override}:="vfio-pci"\n', "10-x.rules"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [{}, {"persist": "boot"}])
def test_persistence_by_somebody_else_is_refused_by_name(bench, path: str, text: str, where: str, options: dict[str, str]) -> None:
    b = bench()
    furniture._write(b.root, path, text)
    refused(b(**options), GPU, where, "one place decides")
    assert b.host.written == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/modprobe.d/vfio.conf", "#options vfio-pci ids=10de:2236\n"),
        ("etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2237,8086:2236\n"),
        ("etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2236:10de:1483\n"),
        ("etc/modprobe.d/vfio.conf", "options other ids=10de:2236\n"),
        ("proc/cmdline", "vfio-pci.ids=10de:2237 xvfio-pci.ids=10de:2236 vfio-pci.disable_vga=1 ids=10de:2236\n"),
        ("etc/default/grub.d/x.cfg", 'GRUB_CMDLINE_LINUX="vfio_pci.ids=10de:2236"\n'),
        ("etc/modprobe.d/vfio.txt", "options vfio-pci ids=10de:2236\n"),
        (f"etc/driverctl.d/pci-{OTHER}", "vfio-pci\n"),
        ("etc/udev/rules.d/10-x.rules", 'KERNEL=="0000:0?:00.0", ATTR{driver_override}="vfio-pci"\n'),
        ("etc/udev/rules.d/10-x.rules", f'KERNEL=="{GPU}", ATTR{{driver_override}}=="vfio-pci", TAG+="x"\n'),
        ("etc/udev/rules.d/10-x.rules", 'ATTR{vendor}=="0x1002", ATTR{driver_override}="vfio-pci"\n'),
    ],
)
def test_persistence_of_something_else_is_nobody_s_business(bench, path: str, text: str) -> None:
    b = bench()
    furniture._write(b.root, path, text)
    assert not b(check=True)["failed"]


def test_what_is_bound_already_may_be_bound_by_somebody_else_at_boot(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"))
    furniture._write(b.root, "etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2236\n")
    done = b()
    assert not done["failed"] and "/etc/modprobe.d/vfio.conf" in done["warnings"][0]
    refused(b(persist="boot"), GPU, "/etc/modprobe.d/vfio.conf")


# Holders


def hold(b: Bench, node: str = "/dev/nvidia0") -> None:
    furniture._write(b.root, f"proc/driver/nvidia/gpus/{GPU}/information", "Device Minor: \t 0\n")
    furniture.process(b.root, 4711, "python3", node)


@pytest.mark.parametrize("check", [False, True])
def test_a_held_function_is_refused_and_never_written_to(bench, check: bool) -> None:
    b = bench()
    hold(b)
    refused(b(check=check), GPU, "held by process 4711 (python3)", "in_use: wait")
    assert b.host.written == []


def test_a_held_companion_stops_its_gpu(bench) -> None:
    b = bench()
    furniture.node(b.root, AUDIO, "sound/card1/controlC1", "116:7")
    furniture.process(b.root, 4711, "pipewire", "/dev/controlC1")
    refused(b(), AUDIO, "pipewire")
    assert b.host.written == []


def test_a_vm_that_holds_is_named(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci", audio=True))
    furniture.process(b.root, 4711, "qemu-kvm", f"/dev/vfio/{b.group}", cmdline="qemu\0-name\0guest=team-a_train,x=y\0")
    refused(b(state="released"), GPU, "VM team-a_train")
    refused(b(), GPU, "VM team-a_train")  # the audio function would be bound into a group that a VM has


def test_unknown_holders_count_as_holders_whatever_is_said(bench) -> None:
    b = bench()
    (b.root / "proc/2/comm").write_text("sh\n")
    for in_use in ("refuse", "wait"):
        refused(b(in_use=in_use), GPU, "cannot be told who holds it", "processes of a container")
    assert b.host.written == []


def test_holders_are_looked_for_again_right_before_each_function(bench) -> None:
    b = bench()

    def meanwhile(path: str, text: str) -> None:
        """The GPU is bound; at that moment somebody opens the audio function."""
        if text == GPU:
            furniture.node(b.root, AUDIO, "sound/card1/controlC1", "116:7")
            furniture.process(b.root, 4711, "pipewire", "/dev/controlC1")

    b.host.fault("/sys/bus/pci/drivers_probe", meanwhile, times=1)
    result = b()
    assert result["failed"] and [c["target"] for c in result["changes"]] == [GPU]
    assert result["blockers"] == [
        {
            "target": AUDIO,
            "problem": "it is held by process 4711 (pipewire); nothing was written to it",
            "remedy": "Stop the VM or process, then run again",
        }
    ]
    assert b.override(AUDIO) == "(null)" and b.driver(AUDIO) == "snd_hda_intel"


def test_a_group_that_is_opened_meanwhile_stops_the_companions_that_are_left(bench) -> None:
    b = bench(Gpu(GPU, kind="030000", driver="nvidia", audio=True), drivers=("vfio-pci", "xhci_hcd"))
    usb = "0000:41:00.2"
    furniture.function_beside(b.root, GPU, usb, "10de", "1ad6", "0c0330", "xhci_hcd")
    b.host.fault("/sys/bus/pci/drivers_probe", lambda path, text: hold(b), times=1)
    result = b(owner="operator", scope="companions")
    assert result["failed"] and [c["target"] for c in result["changes"]] == [AUDIO]
    assert [(blocker["target"], "4711" in blocker["problem"]) for blocker in result["blockers"]] == [(usb, True)]
    assert b.driver(usb) == "xhci_hcd"


def test_a_function_that_somebody_else_rebinds_meanwhile_is_left_to_them(bench) -> None:
    b = bench()
    b.host.fault("/sys/bus/pci/drivers_probe", lambda path, text: kernel_pci.leave(b.host, kernel_pci._function(b.host, AUDIO)), times=1)
    result = b()
    assert result["failed"] and [c["target"] for c in result["changes"]] == [GPU]
    assert "its driver is now none: somebody else changes it" in result["msg"]
    assert not b()["failed"] and b.driver(AUDIO) == "vfio-pci"


def test_waiting_ends_when_the_holder_does(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    hold(b)
    naps = []

    def sleep(seconds: float) -> None:
        assert b.host.written == []  # it waits before the write, not in it
        naps.append(seconds)
        if len(naps) == 3:
            shutil.rmtree(b.root / "proc/4711")

    monkeypatch.setattr(_rebind.time, "sleep", sleep)
    checked = b(in_use="wait", check=True)
    assert naps == [] and [c["target"] for c in checked["changes"]] == [GPU, AUDIO]
    assert checked["warnings"] == [f"{GPU} is held by process 4711 (python3): waiting for that to end"]
    done = b(in_use="wait")
    assert len(naps) == 3 and not done["failed"] and b.driver(AUDIO) == "vfio-pci"
    assert targets(done) == targets(checked)


def test_waiting_has_an_end(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    hold(b)
    clock = [0.0]
    monkeypatch.setattr(_rebind.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(_rebind.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    result = b(GPU, OTHER, in_use="wait", wait_timeout=10)
    assert 10 <= clock[0] < 15
    assert [c["target"] for c in result["changes"]] == [OTHER]
    assert {blocker["target"]: blocker["problem"] for blocker in result["blockers"]} == {
        GPU: "it is held by process 4711 (python3); nothing was written to it",
        AUDIO: f"not tried, because {GPU} of its group failed",
    }


def test_after_waiting_everything_else_is_looked_at_again(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    hold(b)

    def sleep(seconds: float) -> None:
        shutil.rmtree(b.root / "proc/4711")
        (b.root / furniture._real(b.root, GPU) / "sriov_numvfs").write_text("4\n")

    monkeypatch.setattr(_rebind.time, "sleep", sleep)
    refused(b(in_use="wait"), GPU, "4 virtual functions")
    assert b.host.written == []


# Faults of the kernel


def test_a_kernel_that_does_not_answer_is_named_with_the_holders_and_the_next_run_converges(bench) -> None:
    b = bench()

    def opened_meanwhile(path: str, text: str) -> None:
        hold(b)
        raise kernel_pci.KernelTimeout(path, "no answer from the kernel within 30 s; it may still do what was asked")

    b.host.fault(".*/unbind", opened_meanwhile, times=1)
    result = b(GPU, OTHER)
    assert result["failed"] and [c["target"] for c in result["changes"]] == [OTHER]
    problem = result["blockers"][0]["problem"]
    assert "it may still do what was asked" in problem and "held by process 4711 (python3)" in problem
    shutil.rmtree(b.root / "proc/4711")
    kernel_pci.leave(b.host, kernel_pci._function(b.host, GPU))  # and later it does
    again = b(GPU, OTHER)
    assert not again["failed"] and targets(again)[0] == (GPU, "bind", None, "vfio-pci")
    assert b.driver(GPU) == "vfio-pci"
    assert json.loads((b.root / _displaced.PATH[1:]).read_text())["displaced"][GPU]["driver"] == "nvidia"


@pytest.mark.parametrize(
    ("pattern", "number"),
    [(".*/driver_override", errno.EACCES), (".*/unbind", errno.EBUSY), (".*/drivers_probe", errno.ENODEV)],
)
def test_a_write_that_the_kernel_refuses_stops_its_group_and_no_other(bench, pattern: str, number: int) -> None:
    b = bench()
    b.host.fault(pattern, number, times=1)
    result = b(GPU, OTHER)
    assert result["failed"] and [c["target"] for c in result["changes"]] == [OTHER]
    assert [blocker["target"] for blocker in result["blockers"]] == [GPU, AUDIO]
    assert "not tried" in result["blockers"][1]["problem"]
    assert b.driver(AUDIO) == "snd_hda_intel"
    if "unbind" in pattern:
        assert (b.driver(GPU), b.override(GPU)) == ("nvidia", "(null)")
    assert not b(GPU, OTHER)["failed"]
    assert b.driver(GPU) == "vfio-pci"


def test_a_function_that_vfio_does_not_take_goes_back_to_its_driver(bench) -> None:
    b = bench()
    kernel_pci.unwilling(b.root, "vfio-pci", GPU)
    result = b()
    refused(result, GPU, "vfio-pci did not take it, and nvidia has it again", "kernel log")
    assert (b.driver(GPU), b.override(GPU), b.driver(AUDIO)) == ("nvidia", "(null)", "snd_hda_intel")


def test_somebody_else_who_rebinds_is_noticed(bench) -> None:
    b = bench()

    def undo(path: str, text: str) -> None:
        if text == AUDIO:
            kernel_pci.leave(b.host, kernel_pci._function(b.host, GPU))

    b.host.fault(".*/drivers_probe", undo)
    result = b()
    assert result["failed"] and "was written but did not take" in result["msg"] and GPU in result["msg"]


def test_a_driver_that_is_not_loaded_is_pending_in_a_tree(bench) -> None:
    b = bench(drivers=("nvidia", "snd_hda_intel"))
    result = b()
    refused(result, GPU, "driver vfio-pci is not loaded", "modprobe vfio-pci")
    assert result["pending"] == ["modprobe vfio-pci"]


@pytest.mark.parametrize("state", ["bound", "released"])
@pytest.mark.parametrize("locked", [GPU, AUDIO])
def test_a_group_of_which_the_kernel_does_not_answer_is_refused(bench, state: str, locked: str) -> None:
    """An unbind still waits for a holder: the link to the driver is gone already, and what driver_override says cannot be read."""
    b = bench()
    (b.root / "sys/bus/pci/devices" / locked / "driver").unlink()
    b.host._silent.add(os.path.realpath(b.root / "sys/bus/pci/devices" / locked))
    refused(b(state=state), locked, "the kernel does not answer", "Stop the VM or process that has it")
    assert b.host.written == []


def test_a_driver_that_is_not_loaded_is_loaded_by_its_name(bench) -> None:
    loaded: list[str] = []
    rebinding = _rebind.Rebinding(bench().host, timeout=1, wait_timeout=0, whole_group=False, load=loaded.append, again=Plan)
    assert rebinding.apply([Change("driver vfio-pci", "load", None, "loaded", f"{GPU} is to have it")]) == []
    assert loaded == ["vfio-pci"]


@pytest.mark.parametrize(
    ("os_id", "package"), [("ubuntu", f"linux-modules-extra-{tree.KERNEL}"), ("rocky", "kernel-modules"), ("debian", "a kernel with VFIO")]
)
def test_a_kernel_without_the_driver_names_the_package(bench, os_id: str, package: str) -> None:
    b = bench(drivers=("nvidia",), os_id=os_id)
    (b.root / f"lib/modules/{tree.KERNEL}/modules.dep").write_text("kernel/drivers/vfio/vfio.ko.zst:\n")
    result = b()
    refused(result, GPU, "has no module vfio_pci", package)
    assert result["pending"] == []
    (b.root / f"lib/modules/{tree.KERNEL}/modules.dep").write_text("kernel/drivers/vfio/pci/vfio-pci.ko.zst: x\n")
    assert b()["pending"] == ["modprobe vfio-pci"]


def test_a_tree_without_a_kernel_is_never_written_to(bench, run_module, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    monkeypatch.undo()  # the real Host
    result = run_module("vfio_bind", {"devices": [{"address": GPU}], "host_root": str(b.root)})
    assert result["failed"] and "no file of a running kernel's sysfs" in result["msg"]
    assert b.override(GPU) == "(null)"


# Releasing


def test_a_release_restores_the_driver_that_was_displaced(bench) -> None:
    b = bench(drivers=("vfio-pci", "nvidia", "snd_hda_intel"))
    b()
    mode = (b.root / _displaced.PATH[1:]).stat().st_mode & 0o777
    assert mode == 0o600
    # Another driver would be the kernel's first choice now.
    kernel_pci.HOST_DRIVERS["10de", "0302"] = ("nouveau", "nvidia")
    kernel_pci.load(b.root, "nouveau")
    try:
        expected = [(GPU, "release", "vfio-pci", "nvidia"), (AUDIO, "release", "vfio-pci", "snd_hda_intel")]
        assert targets(b(state="released", check=True)) == expected
        done = b(state="released")
    finally:
        kernel_pci.HOST_DRIVERS["10de", "0302"] = ("nvidia", "nouveau")
    assert targets(done) == expected and not done["failed"]
    assert [b.driver(GPU), b.driver(AUDIO)] == ["nvidia", "snd_hda_intel"]
    assert [b.override(GPU), b.override(AUDIO)] == ["(null)", "(null)"]
    assert json.loads((b.root / _displaced.PATH[1:]).read_text()) == {"displaced": {}}
    again = b(state="released")
    assert not again["changed"] and b.host.written == []


@pytest.mark.parametrize(("drivers", "now"), [(("vfio-pci", "nouveau"), "nouveau"), (("vfio-pci",), None)])
def test_a_release_of_what_is_not_remembered_lets_the_kernel_choose(bench, drivers: tuple[str, ...], now: str | None) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"), drivers=drivers)
    done = b(state="released")
    assert targets(done) == [(GPU, "release", "vfio-pci", "known after apply")]
    assert b.driver(GPU) == now and not done["failed"]
    assert not b(state="released")["changed"]


def test_a_release_to_none_leaves_no_driver(bench) -> None:
    b = bench()
    b()
    done = b(state="released", release_to="none")
    assert [c[3] for c in targets(done)] == [None, None]
    assert [b.driver(GPU), b.driver(AUDIO), b.override(GPU)] == [None, None, "(null)"]
    assert not b(state="released", release_to="none")["changed"]
    assert not b(state="released")["changed"]  # released already


def test_a_release_never_takes_a_function_from_a_host_driver(bench) -> None:
    b = bench()
    (b.root / furniture._real(b.root, GPU) / "driver_override").write_text("vfio-pci\n")  # a run that ended after its first write
    done = b(state="released")
    assert targets(done) == [(GPU, "release", "nvidia", "nvidia")]
    assert (b.driver(GPU), b.override(GPU)) == ("nvidia", "(null)")
    assert all(name != "unbind" for name, _text in b.written)


def test_a_listed_neighbour_comes_back_without_being_listed_again(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia", neighbour=True))
    furniture.interface(b.root, NIC, "eth1")
    b(allow={"foreign": [NIC]}, persist="boot")
    done = b(state="released")
    assert not done["failed"] and b.driver(NIC) == "igb"
    assert not (b.root / _boot_binding.RULES[1:]).exists()


def test_a_foreign_function_that_we_did_not_bind_is_not_released(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"))
    furniture.function_beside(b.root, GPU, NIC, "8086", "1533", "020000", "vfio-pci")
    done = b(state="released")
    assert not done["failed"] and [b.driver(GPU) == "vfio-pci", b.driver(NIC)] == [False, "vfio-pci"]
    refused(b(NIC, state="released"), NIC, "no NVIDIA device")


@pytest.mark.parametrize("stop", range(8))
@pytest.mark.parametrize("state", ["bound", "released"])
def test_a_run_that_ends_half_way_loses_nothing(bench, state: str, stop: int) -> None:
    b = bench()
    if state == "released":
        b()
    writes = [0]

    class Killed(BaseException):
        pass

    def kill(path: str, text: str) -> None:
        writes[0] += 1
        if writes[0] > stop:
            raise Killed

    b.host.fault(".*", kill)
    with contextlib.suppress(Killed):
        b(state=state)
    b.host.faults.clear()
    assert not b(state=state)["failed"]
    if state == "bound":
        assert [b.driver(GPU), b.driver(AUDIO)] == ["vfio-pci", "vfio-pci"]
    assert not b(state="released")["failed"]
    assert [b.driver(GPU), b.driver(AUDIO)] == ["nvidia", "snd_hda_intel"]
    assert [b.override(GPU), b.override(AUDIO)] == ["(null)", "(null)"]


def test_what_is_remembered_of_another_device_at_the_address_does_not_count(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"))
    furniture._write(b.root, _displaced.PATH[1:], json.dumps({"displaced": {GPU: {"vendor_device": "10DE:1EB8", "driver": "nouveau"}}}))
    kernel_pci.load(b.root, "nouveau")
    assert targets(b(state="released", check=True)) == [(GPU, "release", "vfio-pci", "known after apply")]


def test_a_damaged_memory_stops_before_anything_is_written(bench) -> None:
    b = bench()
    furniture._write(b.root, _displaced.PATH[1:], "{")
    result = b()
    assert result["failed"] and f"{_displaced.PATH}: is damaged" in result["msg"]
    assert b.host.written == []


# Persistence


def rules(b: Bench) -> str:
    path = b.root / _boot_binding.RULES[1:]
    return path.read_text() if path.exists() else ""


def test_persistence_is_a_rule_by_address_that_checks_the_ids(bench) -> None:
    b = bench()
    checked = b(persist="boot", check=True)
    assert rules(b) == ""
    done = b(persist="boot")
    assert targets(done) == targets(checked)
    assert [c["action"] for c in done["changes"]] == ["bind", "bind", "write"]
    lines = [line for line in rules(b).splitlines() if not line.startswith("#")]
    assert lines[0] == (
        f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{GPU}", ATTR{{vendor}}=="0x10de", ATTR{{device}}=="0x2236", '
        'ATTR{driver_override}="vfio-pci", RUN{builtin}+="kmod load vfio-pci", '
        f"RUN{{program}}+=\"/bin/sh -c 'echo {GPU} > /sys/bus/pci/drivers_probe'\""
    )
    assert len(lines) == 2 and AUDIO in lines[1]
    assert not b(persist="boot")["changed"]
    # Another function of the host is added beside, and each can go by itself.
    assert [c["action"] for c in b(OTHER, persist="boot")["changes"]] == ["bind", "write"]
    assert len(rules(b).splitlines()) == 4
    assert [c["action"] for c in b(GPU)["changes"]] == ["write"]
    assert GPU not in rules(b) and OTHER in rules(b)
    assert [c["action"] for c in b(OTHER, state="released")["changes"]] == ["release", "remove"]
    assert not (b.root / _boot_binding.RULES[1:]).exists()


def test_persistence_can_be_had_while_a_vm_runs(bench) -> None:
    b = bench(Gpu(GPU, driver="vfio-pci"))
    furniture.process(b.root, 4711, "qemu-kvm", f"/dev/vfio/{b.group}")
    done = b(persist="boot")
    assert [c["action"] for c in done["changes"]] == ["write"] and b.host.written == []


def test_a_group_that_is_refused_gets_no_rule(bench) -> None:
    b = bench(Gpu(GPU, driver="nvidia", neighbour=True), Gpu(OTHER, driver="nvidia"))
    assert b(GPU, OTHER, persist="boot")["failed"]
    assert GPU not in rules(b) and OTHER in rules(b)


def test_the_rule_of_a_device_that_is_gone_can_be_removed(bench) -> None:
    b = bench()
    gone = _boot_binding.Rule("0000:99:00.0", "10de", "2236", "vfio-pci")
    furniture._write(b.root, _boot_binding.RULES[1:], _boot_binding.text_of([gone]) or "")
    done = b(gone.address, state="released")
    assert not done["failed"] and [c["action"] for c in done["changes"]] == ["remove"]
    assert b(gone.address, state="released")["failed"]  # now it is a mistake


def test_a_line_of_somebody_else_in_our_file_is_kept_and_named(bench) -> None:
    b = bench()
    line = 'KERNEL=="eth0", TAG+="mine"'
    furniture._write(b.root, _boot_binding.RULES[1:], f"{line}\n")
    result = b(persist="boot")
    assert result["failed"] and line in result["msg"] and rules(b) == f"{line}\n"
    assert b.driver(GPU) == "vfio-pci"


# Size


def test_eight_gpus_with_companions_are_one_quick_call(bench) -> None:
    gpus = [Gpu(f"0000:{bus}:00.0", driver="nvidia", audio=True) for bus in ("21", "31", "41", "51", "a1", "b1", "c1", "d1")]
    b = bench(*gpus)
    started = time.monotonic()
    done = b(devices=[{"class": "0302"}], persist="boot")
    assert len(done["changes"]) == 17 and not done["failed"]
    assert time.monotonic() - started < 20  # seconds; about one on a quiet machine
    assert not b(devices=[{"class": "0302"}], persist="boot")["changed"]
