# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import (
    _driver,
    _gpus,
    _holders,
    _modprobe,
    _modprobe_wish,
    _node,
    _pci,
    _system,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import kernel_vgpu, tree
from tests.hosts.kernel import ReactingHost
from tests.hosts.tree import Gpu, HostSpec, a10s


@pytest.fixture
def facts(tmp_path: Path, run_module):
    def read(spec: HostSpec):
        tree.build(tmp_path / "host", spec)
        result = run_module("gpu_node_info", {"host_root": str(tmp_path / "host")})
        assert not result["failed"], result
        return result

    return read


def test_a_container_host(facts) -> None:
    found = facts(tree.LAB_HOSTS["gpu-container-0"])
    assert [gpu["address"] for gpu in found["gpus"]] == ["0000:41:00.0", "0000:a1:00.0"]
    gpu = found["gpus"][0]
    assert (gpu["vendor_device"], gpu["subsystem"], gpu["class"], gpu["model"]) == ("10DE:2236", "10DE:1482", "0302", "GA102GL [A10]")
    assert (gpu["driver"], gpu["driver_override"], gpu["power_state"], gpu["fell_off_bus"]) == (None, None, "D0", False)
    assert gpu["bars"] == [16 << 20, 32 << 30, 0, 32 << 20, 0, 0]
    assert gpu["vgpu"]["backend"] == "none" and gpu["vgpu"]["why"]
    assert (found["host"]["os_id"], found["host"]["os_version"], found["host"]["secure_boot"]) == ("ubuntu", "22.04", False)
    assert found["boot"]["provider"] == "grub"
    assert "intel_iommu=on" in found["boot"]["configured"]
    assert found["qemu"] == []


@pytest.mark.parametrize(
    ("spec", "enabled", "kind", "dmar"),
    [
        (HostSpec(a10s(), cmdline="intel_iommu=on"), True, "intel", True),
        (HostSpec(a10s(), cmdline="intel_iommu=on iommu=pt"), True, "intel", True),
        (HostSpec(a10s(), cmdline="intel_iommu=off"), False, "none", True),
        (HostSpec(a10s()), False, "none", True),
        (HostSpec(a10s(), firmware="none", cmdline="intel_iommu=on"), False, "none", False),
        (HostSpec(a10s(), firmware="ivrs"), True, "amd", False),
        (HostSpec(a10s(), firmware="ivrs", cmdline="amd_iommu=off"), False, "none", False),
    ],
)
def test_the_iommu_is_judged_by_what_the_kernel_made(facts, spec: HostSpec, enabled: bool, kind: str, dmar: bool) -> None:
    found = facts(spec)
    assert (found["iommu"]["enabled"], found["iommu"]["kind"], found["firmware"]["dmar"]) == (enabled, kind, dmar)
    assert bool(found["groups"]) == enabled


def test_vgpus_on_mediated_devices(facts) -> None:
    found = facts(HostSpec([Gpu("0000:41:00.0", driver="nvidia", vfs=16, active={0: 593, 3: 593})], cmdline="intel_iommu=on"))
    vgpu = found["gpus"][0]["vgpu"]
    kinds = {kind["plain"]: kind for kind in vgpu["types"]}
    assert vgpu["backend"] == "mdev"
    assert (kinds["A10-4Q"]["name"], kinds["A10-4Q"]["id"], kinds["A10-4Q"]["available"]) == ("NVIDIA A10-4Q", "nvidia-593", 14)
    assert kinds["A10-8Q"]["available"] == 0
    assert [(active["parent"], active["type"]) for active in vgpu["active"]] == [
        ("0000:41:00.4", "NVIDIA A10-4Q"),
        ("0000:41:00.7", "NVIDIA A10-4Q"),
    ]
    assert len(found["gpus"]) == 1  # virtual functions are no GPUs
    assert found["gpus"][0]["sriov"] == {"total": 16, "enabled": 16}


def test_vgpus_on_vendor_vfio(facts) -> None:
    found = facts(HostSpec([Gpu("0000:41:00.0", driver="nvidia", vfs=4, backend="vendor_vfio", active={1: 593})], cmdline="intel_iommu=on"))
    vgpu = found["gpus"][0]["vgpu"]
    assert vgpu["backend"] == "vendor_vfio"
    assert [(active["vf"], active["type"]) for active in vgpu["active"]] == [("0000:41:00.5", "593")]


@pytest.mark.parametrize(("backend", "device"), [("mdev", True), ("vendor_vfio", False)])
def test_who_holds_each_vgpu(tmp_path: Path, run_module, backend: str, device: bool) -> None:
    root, first, second = tmp_path / "host", "0000:41:00.4", "0000:41:00.7"
    spec = HostSpec([Gpu("0000:41:00.0", driver="nvidia", vfs=16, backend=backend, active={0: 593, 3: 593})], cmdline="intel_iommu=on")
    tree.build(root, spec)
    [uuid] = [path.name for path in (root / "sys/bus/pci/devices" / second).iterdir() if path.name.count("-") == 4] if device else [None]
    kernel_vgpu.hold(ReactingHost(str(root)), second, vm="ml_train", device=uuid)

    def users():
        active = run_module("gpu_node_info", {"host_root": str(root)})["gpus"][0]["vgpu"]["active"]
        return {entry["parent"]: entry["users"] for entry in active}

    assert users() == {first: [], second: [{"pid": 4711, "comm": "qemu-kvm", "vm": "ml_train"}]}
    (root / "proc/2/comm").write_text("pause\n")  # the processes of a container
    assert users() == {first: None, second: None}


def test_a_group_with_a_foreign_device_is_not_viable(facts) -> None:
    found = facts(HostSpec([Gpu("0000:41:00.0", neighbour=False), Gpu("0000:a1:00.0", audio=True)], cmdline="intel_iommu=on"))
    by_member = {member: group for group in found["groups"].values() for member in group["members"]}
    assert by_member["0000:41:00.0"]["viable"]
    shared = by_member["0000:a1:00.0"]
    assert shared["members"] == ["0000:a1:00.0", "0000:a1:00.1"]
    assert not shared["viable"]
    assert shared["blockers"] == [{"address": "0000:a1:00.1", "class": "0403", "driver": "snd_hda_intel", "foreign": False}]
    assert found["gpus"][1]["companions"] == ["0000:a1:00.1"]
    foreign = facts(HostSpec([Gpu("0000:41:00.0", neighbour=True)], cmdline="intel_iommu=on"))
    blockers = [blocker for group in foreign["groups"].values() for blocker in group["blockers"]]
    assert [(blocker["driver"], blocker["foreign"]) for blocker in blockers] == [("igb", True)]


def test_who_holds_a_gpu(facts) -> None:
    found = facts(HostSpec(a10s(driver="vfio-pci"), cmdline="intel_iommu=on", qemu=[4711]))
    assert found["qemu"] == [{"pid": 4711, "comm": "qemu-system-x86"}]
    holders = {gpu["iommu_group"]: gpu["users"] for gpu in found["gpus"]}
    assert set(holders) == {30, 32}
    assert all(users == [] for users in holders.values())  # it holds group 28, which is nobody's GPU
    tampered = _pci.functions(Host("/"))  # reading the real machine must not fail either
    assert isinstance(tampered, list)


def test_trouble_is_seen(facts) -> None:
    spec = HostSpec(
        [
            Gpu("0000:41:00.0", fell_off_bus=True, bar1=0, driver="nouveau"),
            Gpu("0000:a1:00.0", kind="030000", boot_vga=True, power_state="D3cold"),
        ],
        host_driver="580.95.05",
        modules=["nouveau"],
        secure_boot=True,
        hypervisor=True,
        kernel_log=[
            "vfio-pci 0000:41:00.0: not ready 65535ms after FLR; giving up",
            "usb 1-1: new device",
            "NVRM: GPU has fallen off the bus",
        ],
    )
    found = facts(spec)
    first, second = found["gpus"]
    assert (first["fell_off_bus"], first["bars"][1], first["driver"]) == (True, 0, "nouveau")
    assert (second["boot_vga"], second["fell_off_bus"]) == (True, None)
    assert "not woken" in found["unknown"]["gpus.0000:a1:00.0.fell_off_bus"]
    assert found["modules"]["nouveau"] and not found["modules"]["vfio_pci"]
    assert (found["host_driver"]["present"], found["host_driver"]["kind"]) == (True, "datacenter")
    assert (found["host"]["secure_boot"], found["host"]["virtualised"]) == (True, True)
    assert {entry["signature"]: entry["count"] for entry in found["kernel_log"]} == {"flr_failed": 1, "fell_off_bus": 1}


def test_an_empty_root_gives_nulls_with_reasons_and_no_failure(tmp_path: Path, run_module) -> None:
    result = run_module("gpu_node_info", {"host_root": str(tmp_path)})
    assert not result["failed"]
    assert result["gpus"] is None and result["qemu"] is None and result["iommu"]["enabled"] is None
    assert result["host"]["boot_id"] is None
    assert result["kernels"]["installed"] is None and result["kernels"]["modules"]["nouveau"] is None
    for fact in (
        "gpus",
        "qemu",
        "iommu",
        "host.boot_id",
        "kernel_log",
        "firmware.tables",
        "modules",
        "kernels.installed",
        "kernels.modules",
    ):
        assert result["unknown"][fact]


def test_this_very_machine_can_be_read(run_module) -> None:
    assert not run_module("gpu_node_info", {})["failed"]


def test_values_of_strange_boot_arguments_are_not_shown(facts) -> None:
    found = facts(HostSpec(cmdline="root_password=hunter2 intel_iommu=on luks.key=/secret hugepages=16"))
    assert "hunter2" not in str(found) and "/secret" not in str(found)
    assert {"root_password=(not shown)", "intel_iommu=on", "hugepages=16"} <= set(found["boot"]["running"])


def test_arguments_that_are_configured_and_do_not_run_yet_are_pending(tmp_path: Path, facts) -> None:
    assert facts(HostSpec(cmdline="intel_iommu=on"))["boot"]["pending"] == []
    defaults = tmp_path / "host/etc/default/grub"
    defaults.write_text(defaults.read_text().replace("intel_iommu=on", "intel_iommu=on root_password=hunter2 iommu=pt"))
    found = _node.read(Host(str(tmp_path / "host")))
    assert found["boot"]["pending"] == ["root_password=(not shown)", "iommu=pt"]
    (tmp_path / "host/proc/cmdline").unlink()
    assert _node.read(Host(str(tmp_path / "host")))["boot"]["pending"] is None


def test_arguments_of_a_boot_loader_that_is_not_read_are_not_known(tmp_path: Path, facts) -> None:
    facts(HostSpec())
    (tmp_path / "host/usr/sbin/grubby").write_text("")
    found = _node.read(Host(str(tmp_path / "host")))
    assert (found["boot"]["configured"], found["boot"]["pending"]) == (None, None)
    assert "not read" in found["unknown"]["boot.configured"]


def test_which_kernels_are_installed_and_what_the_running_one_can_load(facts) -> None:
    spec = HostSpec(
        mdev=False,
        blocked=["nouveau", "floppy"],
        other_kernels=["5.15.0-9-generic", "5.15.0-120-generic", "0-rescue-0123456789abcdef"],
        cmdline="modprobe.blacklist=nvidiafb,ast module_blacklist=nova-core",
    )
    found = facts(spec)["kernels"]
    assert found["installed"] == ["5.15.0-9-generic", tree.KERNEL, "5.15.0-120-generic"]
    assert (found["newest"], found["headers"]) == ("5.15.0-120-generic", True)
    assert found["modules"] == {"mdev": False, "nouveau": True, "nova_core": False, "nvidiafb": False, "vfio_pci": True}
    assert found["blocked"] == ["nouveau", "nova_core", "nvidiafb"]
    assert facts(HostSpec(headers=False))["kernels"]["headers"] is False


def test_a_kernel_is_found_where_el_keeps_it_and_modules_may_be_built_in(tmp_path: Path, facts) -> None:
    facts(HostSpec(loadable=["drivers/gpu/drm/nouveau/nouveau"]))
    host = tmp_path / "host"
    for name in (f"boot/vmlinuz-{tree.KERNEL}", f"usr/lib/modules/{tree.KERNEL}/build"):
        (host / name).unlink()
    (host / f"usr/lib/modules/{tree.KERNEL}/vmlinuz").write_text("")
    (host / f"usr/lib/modules/{tree.KERNEL}/modules.builtin").write_text("kernel/drivers/vfio/pci/vfio-pci.ko\n")
    (host / "usr/lib/modules/5.14.0-1.el9/kernel").mkdir(parents=True)  # what a removed kernel leaves
    found = _node.read(Host(str(host)))["kernels"]
    assert (found["installed"], found["headers"], found["modules"]["vfio_pci"]) == ([tree.KERNEL], False, True)


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("blacklist nouveau\noptions nouveau modeset=0\n", {"nouveau"}),
        ("  blacklist   nova-core  \n", {"nova_core"}),
        ("install nouveau /bin/false\n", {"nouveau"}),
        ("install nouveau /usr/bin/true\n", {"nouveau"}),
        ("install nouveau /sbin/modprobe --ignore-install nouveau\n", set()),
        ("# blacklist nouveau\nblacklistnouveau\nalias nouveau off\n", set()),
        ("", set()),
    ],
)
def test_what_modprobe_does_not_load_by_itself(text: str, blocked: set[str]) -> None:
    assert _modprobe.blocked(_modprobe.directives("x", text)) == blocked


def test_what_we_block_ourselves_counts(tmp_path: Path, facts) -> None:
    facts(HostSpec(blocked=["nvidiafb"]))
    (tmp_path / "host" / _modprobe.OWN[1:]).write_text(_modprobe_wish.own_text(_modprobe_wish.Wish(block=("nouveau",))) or "")
    assert _node.read(Host(str(tmp_path / "host")))["kernels"]["blocked"] == ["nouveau", "nvidiafb"]


def test_a_file_of_the_administrator_hides_the_one_of_that_name_from_a_package(tmp_path: Path, facts) -> None:
    facts(HostSpec())
    for place, text in (("etc", ""), ("usr/lib", "blacklist nouveau\n")):
        (tmp_path / "host" / place / "modprobe.d").mkdir(parents=True, exist_ok=True)
        (tmp_path / "host" / place / "modprobe.d/nouveau.conf").write_text(text)
    assert _node.read(Host(str(tmp_path / "host")))["kernels"]["blocked"] == []
    (tmp_path / "host/etc/modprobe.d/nouveau.conf").unlink()
    assert _node.read(Host(str(tmp_path / "host")))["kernels"]["blocked"] == ["nouveau"]


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"sys/module/nvidia/version": "580.95.05\n"}, "580.95.05"),
        ({"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun Mar 30\nGCC version: gcc 12.3.0\n"},
         "570.133.20"),
        ({"var/lib/dkms/nvidia/535.9.1/x": "", "var/lib/dkms/nvidia/535.54.03/x": "", "var/lib/dkms/nvidia/kernel-5.15/x": ""}, "535.54.03"),
        ({"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.15": "", "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": ""}, "550.54.15"),
        ({"usr/lib64/libnvidia-ml.so.550.54.15": ""}, "550.54.15"),
        ({}, None),
    ],
)  # fmt: skip
def test_the_version_of_a_driver_is_found_also_if_it_is_not_loaded(tmp_path: Path, files: dict[str, str], version: str | None) -> None:
    for name, text in {"usr/bin/nvidia-smi": "", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    unknown = _system.Unknown()
    found = _driver.host_driver(Host(str(tmp_path)), unknown)
    assert (found["present"], found["kind"], found["version"]) == (True, "datacenter", version)
    assert found["branch"] == (None if version is None else int(version[:3]))
    assert ("host_driver.version" in unknown.reasons) is (version is None)


@pytest.mark.parametrize(
    ("maker", "virtual"), [("QEMU", True), ("VMware, Inc.", True), ("Amazon EC2", True), ("Example Inc.", False), (None, None)]
)
def test_where_the_cpu_does_not_say_so_the_maker_tells_a_vm(tmp_path: Path, facts, maker: str | None, virtual: bool | None) -> None:
    facts(HostSpec())
    (tmp_path / "host/proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    vendor = tmp_path / "host/sys/class/dmi/id/sys_vendor"
    if maker is None:
        vendor.unlink()
    else:
        vendor.write_text(f"{maker}\n")
    found = _node.read(Host(str(tmp_path / "host")))
    assert found["host"]["virtualised"] is virtual
    assert ("host.virtualised" in found["unknown"]) is (virtual is None)


def test_8_gpus_with_16_virtual_functions_are_read_quickly(tmp_path: Path) -> None:
    gpus = [Gpu(f"0000:{bus:02x}:00.0", driver="nvidia", vfs=16) for bus in range(0x11, 0x91, 0x10)]
    tree.build(tmp_path / "host", HostSpec(gpus, cmdline="intel_iommu=on"))
    best = min(timed(tmp_path / "host") for _ in range(3))
    assert best <= 0.5


def timed(root: Path) -> float:
    """Seconds of this process's own time, in the kernel and out of it: what others do on the machine does not count."""
    began = time.process_time()
    assert len(_node.read(Host(str(root)))["gpus"]) == 8
    return time.process_time() - began


def test_reboot_forgets_what_lives_in_the_kernel_only(tmp_path: Path) -> None:
    root = tmp_path / "host"
    tree.build(root, tree.LAB_HOSTS["gpu-vgpu-0"])
    before = _node.read(Host(str(root)))
    tree.reboot(root)
    after = _node.read(Host(str(root)))
    assert after["host"]["boot_id"] != before["host"]["boot_id"]
    assert [gpu["vgpu"]["backend"] for gpu in after["gpus"]] == ["none", "none"]
    tree.start_vgpu_manager(root)
    assert [gpu["vgpu"]["backend"] for gpu in _node.read(Host(str(root)))["gpus"]] == ["mdev", "mdev"]


def test_mended_firmware_takes_effect_with_the_next_boot(tmp_path: Path) -> None:
    root = tmp_path / "host"
    tree.build(root, tree.LAB_HOSTS["gpu-refused-0"])
    tree.mend_firmware(root)
    assert not _node.read(Host(str(root)))["firmware"]["dmar"]
    tree.reboot(root)
    found = _node.read(Host(str(root)))
    assert (found["firmware"]["dmar"], found["iommu"]["enabled"]) == (True, True)


def test_pci_names_come_from_nvidias_block() -> None:
    text = "1002  AMD\n\t2236  Other\n"
    text += "10de  NVIDIA Corporation\n\t2236  GA102GL [A10]\n\t\t10de 1482  A10\n\t20b5  GA100 [A100]\n1234  Next\n\t2236  Wrong\n"
    assert _gpus.model_names(text) == {"2236": "GA102GL [A10]", "20b5": "GA100 [A100]"}


@pytest.mark.parametrize(("comm", "expected"), [("qemu-system-x86", True), ("qemu-kvm", True), ("qemu-ga", False), ("bash", False)])
def test_what_is_a_vm(comm: str, expected: bool) -> None:
    assert _holders.is_qemu(comm) is expected


def test_the_drivers_list_of_creatable_types_is_read_without_its_heading() -> None:
    assert _pci.creatable("ID    : vGPU Name\n1561  : NVIDIA RTX Pro 6000 Blackwell DC-1-24Q\n 592 : NVIDIA A10-4Q\n\n") == [
        ("1561", "NVIDIA RTX Pro 6000 Blackwell DC-1-24Q"),
        ("592", "NVIDIA A10-4Q"),
    ]
