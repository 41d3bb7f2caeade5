# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _at_work, _disk, _initramfs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands, Ended
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from ansible_collections.gpufleet.kubevirt.plugins.modules import kernel_modules
from tests.hosts import tree
from tests.hosts.commands import FakeCommands

OWN, LOAD = "etc/modprobe.d/gpufleet.conf", "etc/modules-load.d/gpufleet.conf"
IMAGE = f"boot/initrd.img-{tree.KERNEL}"
KEPT = f"{IMAGE}.gpufleet-kept"
FIRST = "0000:41:00.0"
ASKED = {"load": ["vfio-pci", "vfio_iommu_type1"], "load_if_present": ["mdev"], "block": ["nouveau", "nova_core"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree.build(tmp_path / "host", tree.HostSpec(tree.a10s(driver="nouveau", boot_driver="nouveau")))
    return tmp_path / "host"


@pytest.fixture
def asked(root: Path) -> dict[str, t.Any]:
    return {**ASKED, "host_root": str(root)}


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    """The tree is a machine: its commands run."""
    commands = FakeCommands(root)
    monkeypatch.setattr(kernel_modules, "Commands", lambda host, in_root: commands)
    monkeypatch.setattr(_initramfs, "_SPARE", 0)
    return commands


def actions(result: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(change["action"], change["target"]) for change in result["changes"]]


def test_a_tree_gets_its_files_and_says_what_is_pending(root: Path, asked, run_module) -> None:
    checked = run_module("kernel_modules", asked, check=True)
    assert not (root / OWN).exists() and not (root / LOAD).exists()
    first = run_module("kernel_modules", asked)
    assert not first["failed"], first
    assert actions(first) == actions(checked) == [("write", f"file /{LOAD}"), ("write", f"file /{OWN}")]
    assert [change["reason"] for change in first["changes"]] == ["modules to load at boot", "modules that must not load, and options"]
    assert (root / LOAD).read_text().splitlines()[1:] == ["vfio-pci", "vfio_iommu_type1", "mdev"]
    assert (root / OWN).read_text().splitlines()[1:] == ["blacklist nouveau", "blacklist nova_core"]
    command = [f"/usr/sbin/update-initramfs -u -k {tree.KERNEL}"]
    assert first["pending"] == checked["pending"] == command
    assert (first["reboot_required"], first["reboot_reasons"][0]) == (True, f"nouveau holds {FIRST}")
    second = run_module("kernel_modules", asked)
    assert (second["changed"], second["pending"], second["reboot_required"]) == (False, command, True)
    tree.reboot(root)
    after = run_module("kernel_modules", asked)
    assert (after["changed"], after["pending"], after["reboot_required"], after["not_loaded"]) == (False, [], False, [])


def test_a_module_that_a_kernel_lacks_is_loaded_only_if_it_may_be_missing(tmp_path: Path, run_module) -> None:
    tree.build(tmp_path / "host", tree.HostSpec(mdev=False))
    asked = {**ASKED, "host_root": str(tmp_path / "host")}
    assert not run_module("kernel_modules", asked)["failed"]
    assert "mdev" not in (tmp_path / "host" / LOAD).read_text()
    result = run_module("kernel_modules", {**asked, "load": ["mdev"]})
    assert result["failed"] and "linux-modules-extra" in result["msg"]
    (tmp_path / f"host/lib/modules/{tree.KERNEL}/modules.dep").unlink()
    assert not run_module("kernel_modules", {**asked, "load": ["mdev"]})["failed"]  # what it has is not known


def test_a_module_that_is_built_in_counts_as_loaded(root: Path, asked, run_module) -> None:
    asked = {**asked, "load": ["vfio-pci", "vfio"], "load_if_present": []}
    (root / f"lib/modules/{tree.KERNEL}/modules.builtin").write_text("kernel/drivers/vfio/vfio.ko\n")
    assert run_module("kernel_modules", asked)["not_loaded"] == []
    (root / "sys/module/vfio").rmdir()
    (root / "sys/module/vfio_pci").rmdir()
    assert run_module("kernel_modules", asked)["not_loaded"] == ["vfio-pci"]


def test_an_image_under_an_unusual_name_is_told(root: Path, asked, machine, run_module) -> None:
    (root / IMAGE).rename(root / "boot/initrd")
    result = run_module("kernel_modules", asked)
    assert not result["failed"] and tree.KERNEL in result["warnings"][0]
    assert "warnings" not in run_module("kernel_modules", {**asked, "block": []})


def test_the_image_is_built_once_the_old_one_kept_and_dropped_after_the_boot(root: Path, asked, machine, run_module) -> None:
    before = (root / IMAGE).read_text()
    checked = run_module("kernel_modules", asked, check=True)
    assert not machine.built() and not (root / KEPT).exists()
    first = run_module("kernel_modules", asked)
    assert not first["failed"], first
    assert actions(first) == actions(checked)
    assert actions(first)[-1] == ("rebuild", f"image /{IMAGE}")
    assert machine.built() == [["/usr/sbin/update-initramfs", "-u", "-k", tree.KERNEL]]
    assert (root / KEPT).read_text() == before and first["pending"] == []
    second = run_module("kernel_modules", asked)
    assert (second["failed"], second["changed"], second["reboot_required"], len(machine.built())) == (False, False, True, 1)
    (root / "proc/stat").write_text("cpu 1\nbtime 99999999999\n")  # booted since
    third = run_module("kernel_modules", asked)
    assert actions(third) == [("remove", f"file /{KEPT}")] and not (root / KEPT).exists()
    assert not run_module("kernel_modules", asked)["changed"]


def test_an_image_without_any_of_the_modules_is_left_alone(root: Path, asked, machine, run_module) -> None:
    (root / IMAGE).write_text("usr/lib/modules/x/kernel/nvme.ko\n")
    result = run_module("kernel_modules", asked)
    assert result["changed"] and not machine.built()


def test_a_blacklist_that_is_newer_than_the_image_is_found(root: Path, asked, machine, run_module) -> None:
    run_module("kernel_modules", asked)
    os.utime(root / IMAGE, (0, 0))
    (root / KEPT).write_text("the last one that booted")
    result = run_module("kernel_modules", asked)
    assert actions(result) == [("rebuild", f"image /{IMAGE}")] and len(machine.built()) == 2
    assert (root / KEPT).read_text() == "the last one that booted"
    os.utime(root / OWN, (99999999999, 99999999999))
    result = run_module("kernel_modules", asked)
    assert result["failed"] and "clock" in result["msg"]


def test_a_generic_image_is_told_from_a_good_one(root: Path, asked, machine, run_module) -> None:
    machine.generic = True
    for _ in range(2):  # and is not forgotten
        result = run_module("kernel_modules", asked)
        assert result["failed"] and "modprobe.blacklist=nouveau,nova_core" in result["msg"] and "holds nouveau. " in result["msg"]
    (root / "etc/default/grub.d/60-x.cfg").write_text('GRUB_CMDLINE_LINUX="modprobe.blacklist=nouveau,nova_core"\n')
    assert not run_module("kernel_modules", asked)["failed"]  # the argument does it, with the next boot


@pytest.mark.parametrize(
    ("answer", "words"),
    [(Ended(1, "No space left on device", 9), "No space left"), (Ended(None, "", 4711), "still runs as process 4711")],
)
def test_a_builder_that_fails_is_told_with_its_words(root: Path, asked, machine, run_module, answer: Ended, words: str) -> None:
    machine.answers["update-initramfs"] = answer
    result = run_module("kernel_modules", asked)
    assert result["failed"] and words in result["msg"] and KEPT in result["msg"]
    assert actions(result) == [("write", f"file /{LOAD}"), ("write", f"file /{OWN}")]
    machine.answers.clear()
    again = run_module("kernel_modules", asked)
    assert not again["failed"] and actions(again) == [("rebuild", f"image /{IMAGE}")]


def test_dracut_builds_and_lists_where_it_is_what_there_is(root: Path, asked, machine, run_module) -> None:
    for name in ("usr/sbin/update-initramfs", "usr/bin/lsinitramfs"):
        (root / name).unlink()
    for name in ("usr/bin/dracut", "usr/bin/lsinitrd"):
        (root / name).touch()
    result = run_module("kernel_modules", asked)
    assert not result["failed"], result
    assert machine.built() == [["/usr/bin/dracut", "--force", f"/{IMAGE}", tree.KERNEL]]
    assert not run_module("kernel_modules", asked)["changed"]


def test_without_a_builder_nothing_is_written_unless_the_image_is_left_to_others(root: Path, asked, machine, run_module) -> None:
    (root / "usr/sbin/update-initramfs").unlink()
    result = run_module("kernel_modules", asked)
    assert result["failed"] and "neither update-initramfs nor dracut" in result["msg"] and not (root / OWN).exists()
    result = run_module("kernel_modules", {**asked, "initramfs": "never"})
    assert not result["failed"] and result["pending"] == [f"build /{IMAGE}"] and not machine.built()


def test_nothing_is_written_while_a_package_manager_is_at_work(root: Path, asked, machine, run_module) -> None:
    (root / "proc/77").mkdir()
    (root / "proc/77/comm").write_text("dnf\n")
    result = run_module("kernel_modules", asked)
    assert result["failed"] and "process 77: dnf is at work" in result["msg"]
    assert not (root / OWN).exists() and not machine.built()


def test_a_boot_partition_without_room_is_refused(root: Path, asked, machine, run_module, monkeypatch) -> None:
    monkeypatch.setattr(_disk, "free", lambda host, directory: 1 << 20)
    monkeypatch.setattr(_initramfs, "_SPARE", 32 << 20)
    result = run_module("kernel_modules", asked)
    assert result["failed"] and "Remove old kernels" in result["msg"] and not (root / OWN).exists()


def test_images_of_older_kernels_are_what_one_falls_back_to(root: Path, asked, machine, run_module) -> None:
    for release in ("5.15.0-9-generic", "5.15.0-200-generic"):
        (root / f"lib/modules/{release}").mkdir()
        (root / f"boot/initrd.img-{release}").write_text((root / IMAGE).read_text())
    machine.answers["update-initramfs"] = Ended(1, "not now", 1)
    result = run_module("kernel_modules", asked)
    assert [command[-1] for command in machine.built()] == [tree.KERNEL, "5.15.0-200-generic"]  # one's failure does not stop the other
    assert result["failed"]


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("etc/modprobe.d/local.conf", "# x\nblacklist vfio_pci\n", "/etc/modprobe.d/local.conf line 2"),
        ("usr/lib/modprobe.d/dist.conf", "install vfio-pci /bin/false\n", "/usr/lib/modprobe.d/dist.conf line 1"),
        ("proc/cmdline", "ro modprobe.blacklist=vfio-pci\n", "/proc/cmdline"),
    ],
)
def test_a_line_of_somebody_else_that_contradicts_is_named(root: Path, asked, run_module, path: str, text: str, words: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    result = run_module("kernel_modules", asked)
    assert result["failed"] and words in result["msg"] and result["foreign"][0]["file"] == f"/{path}"
    assert not (root / LOAD).exists()


def test_a_file_that_is_hidden_does_not_count(root: Path, asked, run_module) -> None:
    for directory, text in (("usr/lib/modprobe.d", "blacklist vfio-pci\n"), ("etc/modprobe.d", "")):
        (root / directory).mkdir(parents=True, exist_ok=True)
        (root / directory / "dist.conf").write_text(text)
    assert not run_module("kernel_modules", asked)["failed"]


def test_devices_that_somebody_else_gives_to_vfio_by_id_are_reported(root: Path, asked, run_module) -> None:
    (root / "etc/modprobe.d").mkdir(parents=True, exist_ok=True)
    (root / "etc/modprobe.d/site.conf").write_text("options vfio-pci ids=10de:2236\n")
    result = run_module("kernel_modules", asked)
    assert not result["failed"]
    assert result["foreign"] == [{"file": "/etc/modprobe.d/site.conf", "line": 1, "text": "options vfio-pci ids=10de:2236"}]
    assert "site.conf line 1" in result["warnings"][0]


def test_only_a_blocked_module_that_holds_a_gpu_asks_for_a_reboot(root: Path, asked, run_module) -> None:
    tree.bind(root, None)
    assert not run_module("kernel_modules", asked)["reboot_required"]
    tree.bind(root, "NovaCore")
    result = run_module("kernel_modules", asked)
    assert (result["reboot_required"], result["reboot_reasons"][0]) == (True, f"nova_core holds {FIRST}")
    assert not run_module("kernel_modules", {**asked, "block": ["nouveau"]})["reboot_required"]


def test_absent_removes_our_files_and_only_those(root: Path, asked, machine, run_module) -> None:
    untouched = run_module("kernel_modules", {"host_root": str(root), "state": "absent"})
    assert not untouched["changed"] and not machine.ran
    run_module("kernel_modules", asked)
    (root / "etc/modprobe.d/other.conf").write_text("blacklist nouveau\n")
    result = run_module("kernel_modules", {**asked, "state": "absent"})
    assert not result["failed"], result
    assert [action for action, _target in actions(result)] == ["remove", "remove", "rebuild"]
    assert not (root / OWN).exists() and not (root / LOAD).exists() and (root / "etc/modprobe.d/other.conf").exists()
    assert not run_module("kernel_modules", {**asked, "state": "absent"})["changed"]


@pytest.mark.parametrize(
    ("marks", "target", "words"),
    [
        (["run/ostree-booted"], "initramfs", "rpm-ostree initramfs-etc"),
        (["run/ostree-booted", "usr/bin/bootc"], "initramfs", "bootc upgrade"),
        (["etc/os-release"], "file system", "MachineConfig"),
    ],
)
def test_systems_that_are_images_are_refused_with_what_to_do(
    root: Path, asked, run_module, marks: list[str], target: str, words: str
) -> None:
    for mark in marks:
        (root / mark).parent.mkdir(parents=True, exist_ok=True)
        (root / mark).write_text("ID=rhcos\n")
    result = run_module("kernel_modules", asked)
    assert result["failed"] and words in result["msg"] and not (root / OWN).exists()
    assert [blocker["target"] for blocker in result["blockers"]] == [target]


@pytest.mark.parametrize(
    "wrong",
    [
        {"load": ["vfio pci"]},
        {"load": ["nouveau"]},
        {"options": [{"module": "vfio-pci", "value": "ids=10de:2236"}]},
        {"host_root": "/no/such/root"},
    ],
)
def test_bad_input_is_refused_before_anything_is_read(asked, run_module, wrong) -> None:
    result = run_module("kernel_modules", {**asked, **wrong})
    assert result["failed"] and result["msg"].startswith("Setting the kernel modules: ")


def test_a_file_that_cannot_be_written_stops_before_the_image(root: Path, asked, machine, run_module, monkeypatch) -> None:
    def fails(self, path, text, mode=None):
        raise HostError(path, "Read-only file system")

    monkeypatch.setattr(Host, "write_text", fails)
    result = run_module("kernel_modules", asked)
    assert result["failed"] and "Read-only file system" in result["msg"] and not machine.built()


def test_a_lock_that_is_held_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "var/lib/dpkg/lock"
    lock.parent.mkdir(parents=True)
    host = Host(str(tmp_path))
    assert not _at_work.at_work(host)
    lock.touch()
    assert not _at_work.at_work(host)
    script = f"import fcntl; f = open({str(lock)!r}, 'rb+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        found = _at_work.at_work(host)
        holder.communicate("\n", timeout=20)
    assert [blocker.target for blocker in found] == ["file /var/lib/dpkg/lock"]


def test_programs_run_without_a_shell_and_are_not_killed_when_their_time_is_over(tmp_path: Path) -> None:
    commands = Commands(Host("/"))
    ended = commands.run([sys.executable, "-c", "import os, sys; print('$HOME', os.environ['LC_ALL']); sys.exit(3)"], 60)
    assert (ended.code, ended.output) == (3, "$HOME C\n")
    assert "ended with 3: $HOME C" in ended.problem("it", 60)
    assert "cannot be started" in commands.run(["/no/such/program"], 5).output
    slow = commands.run([sys.executable, "-c", f"import time; time.sleep(1); open({str(tmp_path / 'done')!r}, 'w')"], 0)
    assert slow.code is None and "still runs" in slow.problem("it", 0)
    os.waitpid(slow.pid, 0)
    assert (tmp_path / "done").exists()
    assert not Commands(Host(str(tmp_path))).can_run
    assert Commands(Host(str(tmp_path)), "chroot").can_run
