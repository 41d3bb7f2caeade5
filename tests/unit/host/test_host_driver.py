# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _driver_packages, _initramfs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Ended
from ansible_collections.gpufleet.kubevirt.plugins.modules import host_driver
from tests.hosts import tree
from tests.hosts.commands import FakeCommands

STATUS = "var/lib/dpkg/status"
IMAGE = f"boot/initrd.img-{tree.KERNEL}"
DRIVER = {"nvidia-driver-580-server": "amd64", "libnvidia-compute-580-server": "amd64", "nvidia-dkms-580-server": "amd64"}
OTHERS = {"openssh-server": "amd64", "nvidia-container-toolkit": "amd64", "linux-image-6.8.0-1010-nvidia": "amd64"}
OWNED = "/etc/modprobe.d/nvidia-graphics-drivers.conf"

PARTS = [
    "nvidia-driver-580",
    "nvidia-driver-580-server-open",
    "nvidia-driver",
    "nvidia-driver-cuda",
    "nvidia-driver-libs",
    "nvidia-headless-580",
    "nvidia-dkms-580",
    "nvidia-kernel-common-580",
    "nvidia-kernel-open-dkms",
    "nvidia-utils-580",
    "nvidia-compute-utils-580",
    "nvidia-firmware-580-580.95.05",
    "nvidia-open",
    "nvidia-open-580",
    "nvidia-persistenced",
    "nvidia-modprobe",
    "nvidia-settings",
    "nvidia-smi",
    "nvidia-alternative",
    "nvidia-fabricmanager-580",
    "nvidia-fabric-manager",
    "nvidia-vgpu-ubuntu-580",
    "NVIDIA-vGPU-rhel",
    "NVIDIA-Linux-x86_64",
    "libnvidia-compute-580",
    "libnvidia-ml1",
    "libcuda1",
    "libnvcuvid1",
    "libxnvctrl0",
    "libegl-nvidia0",
    "xserver-xorg-video-nvidia-580",
    "xorg-x11-drv-nvidia-cuda",
    "linux-modules-nvidia-580-generic",
    "linux-objects-nvidia-580-6.8.0-40-generic",
    "linux-signatures-nvidia-6.8.0-40-generic",
    "firmware-nvidia-gsp",
    "cuda-drivers",
    "cuda-drivers-580",
    "kmod-nvidia",
    "kmod-nvidia-open-dkms",
    "akmod-nvidia",
    "dkms-nvidia",
    "nvidia-kmod-common",
    "nvidia-libXNVCtrl",
    "nvidia-imex",
]
NO_PARTS = [
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container1",
    "libnvidia-container-tools",
    "nvidia-container-runtime",
    "nvidia-docker2",
    "nvidia-cuda-toolkit",
    "cuda-toolkit-12-6",
    "cuda",
    "cuda-compat-12-6",
    "libcudnn9-cuda-12",
    "datacenter-gpu-manager",
    "datacenter-gpu-manager-4-core",
    "linux-image-6.8.0-1010-nvidia",
    "linux-modules-6.8.0-1010-nvidia",
    "linux-modules-extra-6.8.0-1010-nvidia",
    "linux-nvidia",
    "linux-image-nvidia",
    "linux-modules-nvidia-fs-6.8.0-1010-nvidia",
    "firmware-nvidia-graphics",
    "libnvidia-egl-wayland1",
    "nvidia-mlnx-ofed-all",
    "libcudart12",
    "xserver-xorg-video-nouveau",
    "openssh-server",
    "kernel-core",
]


@pytest.mark.parametrize(("names", "part"), [(PARTS, True), (NO_PARTS, False)])
def test_which_packages_are_a_driver(names: list[str], part: bool) -> None:
    assert [name for name in names if _driver_packages.Package(name, "", "", "installed", ()).is_driver is not part] == []


def test_dpkgs_status_file() -> None:
    text = (
        "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\nConffiles:\n /etc/a.conf 0123\n /etc/b.conf 0 obsolete\n"
        "Description: x\n more\n .\n Package: not one\n\nPackage: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 2\n\n"
        "Package: c\nStatus: purge ok not-installed\nArchitecture: amd64\n\n"
    )
    assert [tuple(package) for package in _driver_packages.dpkg(text)] == [
        ("a", "amd64", "1.0", "installed", ("/etc/a.conf", "/etc/b.conf")),
        ("b", "all", "2", "config-files", ()),
    ]


def test_what_apt_would_do_beside_is_found() -> None:
    text = "NOTE: simulation\nPurg nvidia-driver-580 [1]\nPurg libcuda1:i386 [1]\nRemv cuda [12]\nInst nvidia-driver-590 (1 x)\nConf x\n"
    assert _driver_packages.apt_side_effects(text, {"nvidia-driver-580", "libcuda1"}) == ["remove cuda", "install nvidia-driver-590"]


# ------------------------------------------------------------------ on a host with dpkg


class Debian(FakeCommands):
    """A tree whose package manager works: what it purges is gone, with its files, and its trigger builds the initramfs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.beside = ""  #: what else a simulation would do
        self.trigger = True
        self.leaves: set[str] = set()  #: packages that stay

        self.more = {"apt-get": self.apt, "systemctl": self.systemctl, "dkms": self.dkms}

    def apt(self, command: list[str]) -> Ended:
        names = [word.partition(":")[0] for word in command[command.index("purge") + 1 :]]
        assert "APT::Get::AutomaticRemove=false" in command
        if "--simulate" in command:
            return Ended(0, "".join(f"Purg {name} [1]\n" for name in names) + self.beside, 1)
        write_status(self.root, {k: v for k, v in {**OTHERS, **DRIVER}.items() if k not in names or k in self.leaves})
        files_go(self.root)
        if self.trigger:
            without_driver(self.root)
        return Ended(0, "", 1)

    def systemctl(self, command: list[str]) -> Ended:
        assert command[1:] == ["stop", "nvidia-persistenced.service"]
        (self.root / "proc/900/fd/3").unlink()
        return Ended(0, "", 1)

    def dkms(self, command: list[str]) -> Ended:
        assert command[1:] == ["remove", "-m", "nvidia", "-v", "580.95.05", "--all"]
        shutil.rmtree(self.root / "var/lib/dkms/nvidia/580.95.05")
        return Ended(0, "", 1)

    def acted(self) -> list[str]:
        """The commands that change something, by their first words."""
        reading = ("lsinitramfs", "--simulate", "--query", "--test")
        return [" ".join(command[:2]) for command in self.ran if not any(word in " ".join(command[:3]) for word in reading)]


def write_status(root: Path, packages: dict[str, str]) -> None:
    blocks = [
        f"Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: 1\n"
        + (f"Conffiles:\n {OWNED} 0123456789\n" if name.startswith("nvidia-driver") else "")
        for name, arch in packages.items()
    ]
    (root / STATUS).parent.mkdir(parents=True, exist_ok=True)
    (root / STATUS).write_text("\n".join(blocks))


def files_go(root: Path) -> None:
    """What the scripts of the packages take away."""
    for path in ("usr/bin/nvidia-smi", OWNED.lstrip("/")):
        (root / path).unlink(missing_ok=True)
    shutil.rmtree(root / "var/lib/dkms/nvidia")


def without_driver(root: Path) -> None:
    image = root / IMAGE
    image.write_text("".join(line for line in image.read_text().splitlines(keepends=True) if "nvidia" not in line))


def holder(root: Path, pid: int, comm: str, device: str) -> None:
    (root / f"proc/{pid}/fd").mkdir(parents=True)
    (root / f"proc/{pid}/comm").write_text(f"{comm}\n")
    (root / f"proc/{pid}/fd/3").symlink_to(device)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    spec = tree.HostSpec(tree.a10s(driver="nvidia"), cmdline="intel_iommu=on", host_driver="580.95.05", modules=["nvidia"])
    spec.initramfs = ["nvme", "nvidia", "nvidia_drm"]
    tree.build(root, spec)
    write_status(root, {**OTHERS, **DRIVER})
    for path in ("usr/bin/apt-get", OWNED.lstrip("/"), "dev/nvidiactl", "dev/nvidia0"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("blacklist nouveau\n")
    return root


@pytest.fixture
def debian(root: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    commands = Debian(root)
    monkeypatch.setattr(host_driver, "Commands", lambda host, in_root: commands)
    monkeypatch.setattr(_initramfs, "_SPARE", 0)
    return commands


@pytest.fixture
def remove(root: Path, run_module):
    def run(check: bool = False, **params: t.Any) -> dict[str, t.Any]:
        return run_module("host_driver", {"host_root": str(root), **params}, check=check)

    return run


def actions(result: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(change["action"], change["target"]) for change in result["changes"]]


def test_a_driver_is_removed_as_check_mode_has_listed_it(root: Path, debian: Debian, remove) -> None:
    checked = remove(check=True)
    assert not debian.acted() and (root / "usr/bin/nvidia-smi").exists()
    first = remove()
    assert not first["failed"], first
    expected = [("purge", f"package {name}") for name in DRIVER] + [("rebuild", f"image /{IMAGE}")]
    assert actions(first) == actions(checked) == expected
    assert [package["name"] for package in checked["packages"]] == list(DRIVER) and first["packages"] == []
    assert debian.acted() == ["/usr/bin/apt-get --assume-yes"]  # its own trigger has built the image
    assert "nvidia" in (root / f"{IMAGE}.gpufleet-kept").read_text()
    assert first["reboot_required"] and "580.95.05" in first["reboot_reasons"][0]
    second = remove()
    assert (second["failed"], second["changed"], second["reboot_required"]) == (False, False, True)
    (root / "run/nvidia/driver").mkdir(parents=True)
    assert not remove()["reboot_required"]  # now it is a driver container's


def test_an_image_that_no_trigger_has_built_is_built(root: Path, debian: Debian, remove) -> None:
    debian.trigger = False

    def build(command: list[str]) -> Ended:
        without_driver(root)
        return Ended(0, "", 1)

    debian.more["update-initramfs"] = build
    assert not remove()["failed"]
    assert debian.acted() == ["/usr/bin/apt-get --assume-yes", "/usr/sbin/update-initramfs -u"]


def test_an_image_that_keeps_the_driver_is_said(root: Path, debian: Debian, remove) -> None:
    debian.trigger = False
    debian.more["update-initramfs"] = lambda command: Ended(0, "", 1)
    result = remove()
    assert result["failed"] and "the driver is still in it" in result["msg"]


def test_the_drivers_own_daemon_is_stopped_first(root: Path, debian: Debian, remove) -> None:
    holder(root, 900, "nvidia-persiste", "/dev/nvidia0")
    checked = remove(check=True)
    result = remove()
    assert not result["failed"], result
    assert actions(result) == actions(checked) and actions(result)[0] == ("stop", "unit nvidia-persistenced.service")
    assert debian.acted()[0] == "/usr/bin/systemctl stop"


def test_a_daemon_that_does_not_let_go_stops_it(root: Path, debian: Debian, remove) -> None:
    holder(root, 900, "nvidia-persiste", "/dev/nvidia0")
    debian.more["systemctl"] = lambda command: Ended(0, "", 1)  # one in a container is no unit of the host's
    result = remove()
    assert result["failed"] and "no package was removed" in result["msg"] and len(debian.acted()) == 1


@pytest.mark.parametrize(
    ("comm", "device"), [("python3", "/dev/nvidiactl"), ("qemu-system-x86", "/dev/vfio/28"), ("nv-hostengine", "/dev/nvidia0")]
)
def test_nothing_is_removed_while_a_process_holds_a_gpu(root: Path, debian: Debian, remove, comm: str, device: str) -> None:
    if "vfio" in device:
        group = (root / "sys/bus/pci/devices/0000:41:00.0/iommu_group").resolve().name
        device = f"/dev/vfio/{group}"
    holder(root, 4711, comm, device)
    result = remove()
    assert result["failed"] and f"process 4711 ({comm}) has {device} open" in result["msg"]
    assert not result["changed"] and not debian.acted()


def test_nothing_is_removed_where_holders_cannot_be_seen(root: Path, debian: Debian, remove) -> None:
    (root / "proc/2/comm").write_text("bash\n")
    result = remove()
    assert result["failed"] and "who holds them is not known" in result["msg"] and not debian.acted()


@pytest.mark.parametrize(("owner", "failed"), [("host", True), ("operator", False)])
def test_the_vgpu_manager_of_a_host_that_owns_its_devices_stays(root: Path, debian: Debian, remove, owner: str, failed: bool) -> None:
    for name in ("nvidia-vgpud", "nvidia-vgpu-mgr"):
        (root / "usr/bin" / name).touch()
    apt = debian.apt

    def purge(command: list[str]) -> Ended:
        for name in ("nvidia-vgpud", "nvidia-vgpu-mgr") if "--simulate" not in command else ():
            (root / "usr/bin" / name).unlink()
        return apt(command)

    debian.more["apt-get"] = purge
    result = remove(owner=owner)
    assert result["failed"] is failed
    assert not failed or ("vGPU manager" in result["msg"] and not debian.acted())


def test_a_datacenter_driver_of_a_host_that_owns_its_devices_can_be_removed(debian: Debian, remove) -> None:
    assert not remove(owner="host")["failed"]


@pytest.mark.parametrize(
    ("beside", "words"), [("Remv cuda [12]\n", "also remove cuda"), ("Inst xserver-xorg-video-nouveau (1 x)\n", "also install xserver")]
)
def test_what_else_would_happen_is_refused_by_name(debian: Debian, remove, beside: str, words: str) -> None:
    debian.beside = beside
    result = remove()
    assert result["failed"] and words in result["msg"] and not debian.acted()


def test_a_package_manager_that_would_not_is_told_with_its_words(debian: Debian, remove) -> None:
    debian.answers["apt-get"] = Ended(100, "E: dpkg was interrupted, run dpkg --configure -a", 1)
    result = remove()
    assert result["failed"] and "dpkg --configure -a" in result["msg"] and not result["changed"]


def test_a_package_manager_at_work_is_waited_for(root: Path, debian: Debian, remove) -> None:
    (root / "proc/77/fd").mkdir(parents=True)
    (root / "proc/77/comm").write_text("dpkg\n")
    result = remove()
    assert result["failed"] and "dpkg is at work" in result["msg"] and not debian.acted()


def test_a_removal_that_takes_too_long_is_left_running_and_said(debian: Debian, remove) -> None:
    apt = debian.apt
    debian.more["apt-get"] = lambda command: apt(command) if "--simulate" in command else Ended(None, "", 4242)
    result = remove()
    assert result["failed"] and "still runs as process 4242" in result["msg"]


def test_a_package_that_stays_is_found_by_reading_back(debian: Debian, remove) -> None:
    debian.leaves = {"nvidia-dkms-580-server"}
    result = remove()
    assert result["failed"] and "package nvidia-dkms-580-server: it is still there" in result["msg"]
    assert ("purge", "package nvidia-driver-580-server") in actions(result)


def test_a_driver_without_a_package_is_left_to_its_installer(root: Path, debian: Debian, remove) -> None:
    write_status(root, OTHERS)
    result = remove()
    assert result["failed"] and "nvidia-uninstall" in result["msg"] and "/usr/bin/nvidia-smi" in result["msg"] and not debian.acted()


def test_leftovers_of_a_driver_go_and_other_settings_stay(root: Path, debian: Debian, remove) -> None:
    debian.more["update-initramfs"] = lambda command: without_driver(root) or Ended(0, "", 1)
    write_status(root, OTHERS)
    (root / "usr/bin/nvidia-smi").unlink()
    (root / "var/lib/dkms/nvidia/580.95.05").mkdir(parents=True, exist_ok=True)
    ours = {
        OWNED: "blacklist nouveau\n",
        "/etc/modprobe.d/nvidia-installer.conf": "# x\nblacklist nouveau\noptions nvidia_drm modeset=1\n",
        "/etc/modules-load.d/nvidia.conf": "nvidia\nnvidia-uvm\n",
    }
    others = {
        "/etc/modprobe.d/nvidia-mixed.conf": "blacklist nouveau\noptions kvm x=1\n",
        "/etc/modprobe.d/site.conf": "blacklist nouveau\n",
    }
    for path, text in {**ours, **others}.items():
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text(text)
    checked = remove(check=True)
    result = remove()
    assert not result["failed"], result
    assert actions(result) == actions(checked)
    assert set(actions(result)) == {
        ("remove", "dkms nvidia/580.95.05"),
        ("rebuild", f"image /{IMAGE}"),
        *(("remove", f"file {path}") for path in ours),
    }
    assert all((root / path.lstrip("/")).exists() for path in others)
    assert not remove()["changed"]


def test_a_host_without_a_driver_is_left_alone(tmp_path: Path, run_module) -> None:
    tree.build(tmp_path / "host", tree.HostSpec(tree.a10s()))
    result = run_module("host_driver", {"host_root": str(tmp_path / "host")})
    assert (result["failed"], result["changed"], result["reboot_required"], result["pending"]) == (False, False, False, [])


def test_a_tree_runs_nothing_and_says_what_is_pending(root: Path, remove) -> None:
    result = remove()
    assert (result["failed"], result["changed"]) == (False, False), result
    assert result["pending"][0].endswith(
        "purge nvidia-driver-580-server:amd64 libnvidia-compute-580-server:amd64 nvidia-dkms-580-server:amd64"
    )
    assert (root / "usr/bin/nvidia-smi").exists()


# ------------------------------------------------------------------ on a host with rpm


@pytest.fixture
def fedora(root: Path, debian: Debian) -> Debian:
    (root / STATUS).unlink()
    for path in ("usr/bin/rpm", "usr/bin/dnf"):
        (root / path).touch()
    installed = ["kmod-nvidia-open-dkms\tx86_64\t580.95.05-1.el9", "nvidia-container-toolkit\tx86_64\t1.18.0-1"]

    def rpm(command: list[str]) -> Ended:
        if "--file" in command:
            return Ended(0 if command[-1] == OWNED else 1, "", 1)
        if "--test" in command:
            return Ended(0, "", 1)
        return Ended(0, "".join(f"{line}\n" for line in installed), 1)

    def dnf(command: list[str]) -> Ended:
        assert command[1:] == [
            "--assumeyes",
            "--setopt=clean_requirements_on_remove=False",
            "remove",
            "kmod-nvidia-open-dkms-580.95.05-1.el9.x86_64",
        ]
        del installed[0]
        files_go(root)
        without_driver(root)
        return Ended(0, "", 1)

    debian.more.update({"rpm": rpm, "dnf": dnf})
    return debian


def test_a_driver_of_rpms_is_removed(fedora: Debian, remove) -> None:
    checked = remove(check=True)
    result = remove()
    assert not result["failed"], result
    assert actions(result) == actions(checked) == [("remove", "package kmod-nvidia-open-dkms"), ("rebuild", f"image /{IMAGE}")]
    assert not remove()["changed"]


def test_what_depends_on_the_driver_stops_it(fedora: Debian, remove) -> None:
    rpm = fedora.more["rpm"]
    fedora.more["rpm"] = lambda command: (
        Ended(1, "error: Failed dependencies: nvidia is needed by (installed) cuda", 1) if "--test" in command else rpm(command)
    )
    result = remove()
    assert result["failed"] and "needed by (installed) cuda" in result["msg"] and not fedora.acted()


def test_packages_that_cannot_be_read_stop_it(fedora: Debian, remove) -> None:
    fedora.more["rpm"] = lambda command: Ended(1, "error: cannot open Packages database", 1)
    result = remove()
    assert result["failed"] and "cannot open Packages database" in result["msg"] and not fedora.acted()
