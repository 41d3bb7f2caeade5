# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _holders, _pci, _system
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Opened
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from tests.hosts import tree

GPU = "0000:41:00.0"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tree.build(tmp_path / "host", tree.HostSpec(tree.a10s(driver="vfio-pci"), cmdline="intel_iommu=on"))
    return Host(str(tmp_path / "host"))


def opens(host: Host, pid: int, name: str, comm: str = "qemu-system-x86", cmdline: bytes = b"") -> None:
    """A process that has this open."""
    directory = Path(host.root, f"proc/{pid}/fd")
    directory.mkdir(parents=True, exist_ok=True)
    Path(host.root, f"proc/{pid}/comm").write_text(f"{comm}\n")
    Path(host.root, f"proc/{pid}/cmdline").write_bytes(cmdline)
    (directory / str(len(os.listdir(directory)) + 3)).symlink_to(name)


def holders(host: Host, address: str = GPU) -> list[_holders.Holder] | None:
    function = next(f for f in _pci.functions(host) if f.address == address)
    return _holders.holders_of(host, function, Opened(host))


def group(host: Host, address: str = GPU) -> str:
    return (host.link(f"/sys/bus/pci/devices/{address}/iommu_group") or "").rpartition("/")[2]


def test_nobody_holds_an_idle_device(host: Host) -> None:
    opens(host, 9, "/dev/null", comm="sh")
    opens(host, 10, "/dev/vfio/vfio", comm="virtqemud")
    assert holders(host) == []


@pytest.mark.parametrize("name", ["/dev/vfio/{group}", "/dev/dri/card1", "/dev/dri/renderD129", "/dev/nvidia3", "/dev/vfio/devices/vfio7"])
def test_each_node_of_a_device_is_looked_for(host: Host, name: str) -> None:
    path = Path(host.root, "sys/bus/pci/devices", GPU).resolve()
    for below, number, node in (
        ("drm/card1", "226:1", "dri/card1"),
        ("drm/renderD129", "226:129", "dri/renderD129"),
        ("vfio-dev/vfio7", "511:7", ""),
    ):
        (path / below).mkdir(parents=True)
        (path / below / "dev").write_text(f"{number}\n")
        (path / below / "uevent").write_text(f"MAJOR=1\nDEVNAME={node}\n" if node else "MAJOR=1\n")
    information = Path(host.root, f"proc/driver/nvidia/gpus/{GPU}/information")
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA A10\nDevice Minor: \t 3\n")
    opens(host, 4711, name.format(group=group(host)), comm="python3")
    assert [(holder.pid, holder.comm) for holder in holders(host) or []] == [(4711, "python3")]
    assert holders(host, "0000:a1:00.0") == []


def test_a_vm_is_named_and_nothing_else_of_its_arguments(host: Host) -> None:
    line = b"/usr/bin/qemu-kvm\0-name\0guest=team-a_train,debug-threads=on\0-object\0secret,id=s0,data=hunter2\0"
    opens(host, 4711, f"/dev/vfio/{group(host)}", comm="qemu-kvm", cmdline=line)
    assert list(map(str, holders(host) or [])) == ["process 4711 (qemu-kvm, VM team-a_train)"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"qemu\0-name\0plain\0", "plain"),
        (b"qemu\0-name\0guest=a,b=c\0", "a"),
        (b"qemu\0-m\0512\0", None),
        (b"", None),
        (b"qemu\0-name", None),
    ],
)
def test_the_guest_s_name(line: bytes, name: str | None) -> None:
    assert _holders.guest_name(line) == name


def test_a_vgpu_on_a_function_counts_as_the_function_s(tmp_path: Path) -> None:
    gpu = tree.Gpu(GPU, driver="nvidia", vfs=2, active={0: 593})
    tree.build(tmp_path / "host", tree.HostSpec([gpu], cmdline="intel_iommu=on"))
    host = Host(str(tmp_path / "host"))
    vf = next(f for f in _pci.functions(host) if f.parent == GPU and _pci.mdevs_on(host, f))
    uuid = _pci.mdevs_on(host, vf)[0]
    group = os.path.basename(host.link(f"{vf.path}/{uuid}/iommu_group") or "")
    opens(host, 4711, f"/dev/vfio/{group}", comm="qemu-kvm")
    assert [holder.pid for holder in holders(host, vf.address) or []] == [4711]
    others = [f.address for f in _pci.functions(host) if f.parent == GPU and f != vf]
    assert [holders(host, other) for other in others] == [[]]


def test_a_vfio_device_without_a_name_counts_against_every_vfio_function(host: Host) -> None:
    opens(host, 4711, "anon_inode:[vfio-device]")
    assert [holder.pid for holder in holders(host) or []] == [4711]
    opens(host, 4711, f"/dev/vfio/{group(host, '0000:a1:00.0')}")  # now it is known which one
    assert holders(host) == []
    assert [holder.pid for holder in holders(host, "0000:a1:00.0") or []] == [4711]


def test_devices_are_known_by_number_whatever_their_path(host: Host) -> None:
    # A real character device stands for the node: its number, not its name, is what counts.
    number = Host("/").device_number("/dev/null")
    Path(host.root, f"sys/class/vfio/{group(host)}").mkdir(parents=True)
    Path(host.root, f"sys/class/vfio/{group(host)}/dev").write_text(f"{number}\n")
    opens(host, 4711, "/var/lib/pod/dev/renamed")
    real = {("/var/lib/pod/dev/renamed", number)}
    assert holders(host) == []

    class Numbered(Host):
        def open_devices(self, pid: int) -> list[tuple[str, str | None]]:
            return [(name, dict(real).get(name)) for name, _none in super().open_devices(pid)]

    assert [holder.pid for holder in holders(Numbered(host.root)) or []] == [4711]


def test_our_own_open_device_is_seen_with_its_number() -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        assert ("/dev/null", Host("/").device_number("/dev/null")) in Host("/").open_devices(os.getpid())
    finally:
        os.close(descriptor)
    assert Host("/").device_number("/etc/passwd") is None


@pytest.mark.parametrize(
    ("comm", "why"), [("bash", "processes of a container"), (None, "processes of a container"), ("missing", "shows no process")]
)
def test_without_the_host_s_processes_who_holds_is_unknown(host: Host, comm: str | None, why: str) -> None:
    opens(host, 4711, f"/dev/vfio/{group(host)}")
    if comm == "missing":
        (Path(host.root, "proc/1")).rename(Path(host.root, "proc/one"))
    elif comm is None:
        Path(host.root, "proc/2/comm").unlink()
    else:
        Path(host.root, "proc/2/comm").write_text(f"{comm}\n")
    assert holders(host) is None
    assert why in (Opened(host).unknown or "")
    unknown = _system.Unknown()
    assert _system.qemu(host, unknown) is None
    assert why in unknown.reasons["qemu"]


def test_a_process_that_cannot_be_seen_makes_it_unknown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(host, 4711, "/dev/null")

    class Closed(Host):
        def open_devices(self, pid: int) -> list[tuple[str, str | None]]:
            if pid == 4711:
                raise HostError(f"/proc/{pid}/fd", "Permission denied")
            return super().open_devices(pid)

    closed = Closed(host.root)
    assert "read as root" in (Opened(closed).unknown or "")
    (Path(host.root, "proc/4711/comm")).unlink()  # it ended while we looked
    assert Opened(closed).unknown is None
