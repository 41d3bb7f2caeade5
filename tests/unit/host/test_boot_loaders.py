# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel_cmdline with every boot loader, programs run: what is the same for all of them."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _bootloader, _disk
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands, Ended
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from tests.hosts import boot, boot_commands, tree

KINDS = sorted(boot.BUILDERS)
#: What each boot loader's files are, that one run changes.
FILES = {"grub": "etc/default/grub.d/60-gpufleet.cfg", "grubby": "etc/kernel/cmdline", "systemd_boot": "etc/kernel/cmdline"}
PROGRAM = {"grub": "usr/sbin/update-grub", "grubby": "usr/sbin/grubby", "systemd_boot": "usr/bin/kernel-install"}
LINE = "quiet console=tty0 console=ttyS0,115200 intel_iommu=off"


class Node:
    """A host tree with one boot loader, and the module on it."""

    def __init__(self, root: Path, kind: str, run_module: t.Any) -> None:
        self.root, self.kind, self.run_module = root, kind, run_module
        boot.BUILDERS[kind](root, LINE)

    def run(
        self, *present: str, absent: t.Sequence[str] = (), check: bool = False, programs: bool = True, **more: t.Any
    ) -> dict[str, t.Any]:
        arguments = {"host_root": str(self.root), "present": list(present), "absent": list(absent), **more}
        arguments["run_in_root"] = "chroot" if programs else "never"
        result: dict[str, t.Any] = self.run_module("kernel_cmdline", arguments, check=check)
        return result

    def line(self) -> list[str]:
        """The arguments of the next boot, as the boot loader itself reads them."""
        if self.kind == "grub":
            text = (self.root / "boot/grub/grub.cfg").read_text()
            return text.split("\tlinux\t")[1].splitlines()[0].split()[1:]
        fields = boot_commands.fields(boot.entry_file(self.root))
        return fields["options"].split()

    def boot(self) -> None:
        (self.root / "proc/cmdline").write_text(" ".join(self.line()) + "\n")

    def refused(self, *words: str, **arguments: t.Any) -> dict[str, t.Any]:
        """The module fails with these words, a remedy, and a tree in which nothing has changed; that result."""
        before = boot.snapshot(self.root)
        result = self.run("intel_iommu=on", **arguments)
        assert result["failed"] and not result.get("changed"), result
        assert "Traceback" not in result["msg"]
        for word in words:
            assert word in result["msg"], result["msg"]
        assert boot.snapshot(self.root) == before
        assert not boot_commands.calls(self.root)
        return result


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of a tree are stand-ins, in this process."""

    def run(self: Commands, command: t.Sequence[str], seconds: int) -> Ended:
        assert self._prefix[0] == "chroot" and seconds > 0
        code, output = boot_commands.run([self._prefix[1], *command])
        return Ended(code, output, 1)

    monkeypatch.setattr(Commands, "run", run)


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path, run_module: t.Any, commands: None) -> Node:
    return Node(tmp_path / "host", request.param, run_module)


every_boot_loader = pytest.mark.parametrize("node", KINDS, indirect=True)


@every_boot_loader
def test_from_wish_to_running_kernel(node: Node) -> None:
    assert _bootloader.provider(Host(str(node.root))) == node.kind
    before, line = boot.snapshot(node.root), node.line()
    checked = node.run("intel_iommu=on", "iommu=pt", check=True)
    assert boot.snapshot(node.root) == before and not boot_commands.calls(node.root)
    done = node.run("intel_iommu=on", "iommu=pt")
    assert not done["failed"], done
    assert done["changes"] == checked["changes"] and done["changes"] and done["provider"] == node.kind
    assert (done["reboot_required"], done["pending"], done["kernel_change"]) == (True, [], None)
    after = node.line()
    assert after[-1] == "iommu=pt" or after[-1].startswith("systemd.machine_id=")
    kept = [word for word in line if not word.startswith(("intel_iommu=", "systemd.machine_id="))]
    assert [word for word in after if word in kept] == kept
    assert "intel_iommu=on" in after and after.index("intel_iommu=on") > after.index("quiet")

    ran = boot_commands.calls(node.root)
    assert ran
    again = node.run("intel_iommu=on", "iommu=pt")
    assert (again["failed"], again["changed"], again["reboot_required"]) == (False, False, True)
    assert boot_commands.calls(node.root) == ran  # programs run only on change
    node.boot()
    booted = node.run("intel_iommu=on", "iommu=pt")
    assert (booted["failed"], booted["changed"], booted["reboot_required"]) == (False, False, False)


@every_boot_loader
def test_without_its_programs_files_are_written_and_the_rest_is_pending(node: Node) -> None:
    checked = node.run("intel_iommu=on", check=True, programs=False)
    done = node.run("intel_iommu=on", programs=False)
    assert not done["failed"], done
    assert done["changes"] == checked["changes"] and done["pending"] == checked["pending"]
    expected = {
        "grub": ["update-grub"],
        "grubby": [f'grubby --update-kernel=/boot/vmlinuz-{release} --args="intel_iommu=on"' for release in boot.RELEASES],
        "systemd_boot": [f"kernel-install add {release} /lib/modules/{release}/vmlinuz" for release in boot.RELEASES],
    }
    assert sorted(done["pending"]) == sorted(expected[node.kind])
    assert "intel_iommu=on" in (node.root / FILES[node.kind]).read_text()
    assert not (node.root / boot_commands.LOG).exists()  # not even one that only asks
    again = node.run("intel_iommu=on", programs=False)
    assert (again["changed"], again["pending"]) == (False, done["pending"])


@every_boot_loader
def test_absent_removes_a_word_everywhere_and_nothing_else(node: Node) -> None:
    line = node.line()
    done = node.run(absent=["console=tty0", "intel_iommu=off"])
    assert not done["failed"], done
    assert node.line() == [word for word in line if word not in ("console=tty0", "intel_iommu=off")]
    source = (node.root / ("etc/default/grub" if node.kind == "grub" else "etc/kernel/cmdline")).read_text()
    assert "console=tty0" not in source and "quiet console=ttyS0,115200" in source
    assert not node.run(absent=["console=tty0", "intel_iommu=off"])["changed"]


@every_boot_loader
def test_an_argument_that_may_repeat_is_added_beside_the_others(node: Node) -> None:
    done = node.run("console=ttyS1")
    assert not done["failed"], done
    consoles = [word for word in node.line() if word.startswith("console=")]
    assert consoles == ["console=tty0", "console=ttyS0,115200", "console=ttyS1"]
    assert not node.run("console=ttyS1")["changed"]


@every_boot_loader
def test_a_word_that_nothing_takes_back_is_named_by_place_and_goes_only_if_it_is_listed(node: Node) -> None:
    boot.BUILDERS[node.kind](node.root, "quiet amd_iommu=off iommu=off")
    source = "etc/default/grub" if node.kind == "grub" else "etc/kernel/cmdline"
    number = next(i for i, line in enumerate((node.root / source).read_text().splitlines(), 1) if "iommu=off" in line)
    node.refused("iommu=off stands in ", f"/{source} line {number}", "takes it back", "option absent")
    done = node.run("intel_iommu=on", absent=["iommu=off"])
    assert not done["failed"], done
    assert "iommu=off" not in node.line() and "amd_iommu=off" in node.line()


@every_boot_loader
def test_a_program_that_fails_is_told_with_its_words_and_run_again_next_time(node: Node) -> None:
    boot_commands.fault(node.root, fails=1)
    failed = node.run("intel_iommu=on")
    assert failed["failed"] and "ended with 1: cannot write: no space left" in failed["msg"]
    boot_commands.fault(node.root)
    again = node.run("intel_iommu=on")
    assert not again["failed"] and "intel_iommu=on" in node.line()


@every_boot_loader
def test_what_a_program_left_out_is_found_by_reading_back(node: Node) -> None:
    boot_commands.fault(node.root, leaves_out="intel_iommu=on")
    result = node.run("intel_iommu=on")
    assert result["failed"] and "did not take" in result["msg"] and "do not reboot" in result["msg"]


@pytest.mark.parametrize("node", ["grubby", "systemd_boot"], indirect=True)
def test_an_argument_that_a_program_lost_is_found_by_reading_back(node: Node) -> None:
    boot_commands.fault(node.root, drops="quiet")
    result = node.run("intel_iommu=on")
    assert result["failed"] and "nobody asked about were changed: quiet" in result["msg"] and "before you reboot" in result["msg"]


@pytest.mark.parametrize("node", ["systemd_boot"], indirect=True)
def test_an_entry_that_lost_its_initrd_is_found_by_reading_back(node: Node) -> None:
    boot_commands.fault(node.root, no_initrd=True)
    result = node.run("intel_iommu=on")
    assert result["failed"] and "it had an initrd before and has none now" in result["msg"] and "do not reboot" in result["msg"]


@every_boot_loader
@pytest.mark.parametrize("part", ["kernel", "initrd"])
def test_the_files_of_the_next_boot_must_be_there(node: Node, part: str) -> None:
    release = boot.RELEASES[0]
    places = {
        "grub": {"kernel": f"boot/vmlinuz-{release}", "initrd": f"boot/initrd.img-{release}"},
        "grubby": {"kernel": f"boot/vmlinuz-{release}", "initrd": f"boot/initramfs-{release}.img"},
        "systemd_boot": {"kernel": f"efi/{boot.MACHINE}/{release}/linux", "initrd": f"efi/{boot.MACHINE}/{release}/initrd"},
    }
    assert not node.run("intel_iommu=on")["failed"]
    file = node.root / places[node.kind][part]
    file.unlink()
    result = node.run("intel_iommu=on")  # nothing is to be changed, but a reboot is due
    assert result["failed"] and file.name in result["msg"] and "before you reboot" in result["msg"]
    node.boot()
    assert not node.run("intel_iommu=on")["failed"]  # nobody is sent into a reboot


@every_boot_loader
def test_a_missing_program_is_found_before_anything_is_written(node: Node) -> None:
    if node.kind != "grubby":
        (node.root / PROGRAM[node.kind]).unlink()
        node.refused(PROGRAM[node.kind], "not there", provider=node.kind)
    else:
        boot.grubby(node.root, LINE, kernelopts=True)
        (node.root / "usr/bin/grub2-editenv").unlink()
        node.refused("grub2-editenv", "not there")


@every_boot_loader
@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"is_read_only": True}, ("mounted read-only", "remount,rw")),
        ({"free": 100 << 10}, ("0 MiB are free", "Remove old kernels")),
        ({"free": None}, ("cannot be told: Input/output error", "Mount it")),
    ],
)
def test_a_boot_file_system_that_cannot_take_it_is_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch, answers: dict[str, t.Any], words: tuple[str, str]
) -> None:
    for name, answer in answers.items():

        def said(host: Host, directory: str, answer: t.Any = answer) -> t.Any:
            assert directory == ("/efi" if node.kind == "systemd_boot" else "/boot")
            if answer is None:
                raise HostError(directory, "Input/output error")
            return answer

        monkeypatch.setattr(_disk, name, said)
    node.refused(*words)
    assert not node.run("intel_iommu=on", programs=False)["failed"]  # where no program runs, nothing is made there


def test_the_room_for_an_entry_is_that_of_its_files(
    tmp_path: Path, run_module: t.Any, commands: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "host", "systemd_boot", run_module)
    os.truncate(node.root / f"efi/{boot.MACHINE}/{boot.RELEASES[1]}/initrd", 80 << 20)
    monkeypatch.setattr(_disk, "free", lambda host, path: 80 << 20)
    node.refused("80 MiB are free, and what is to be made needs 85 MiB")


@every_boot_loader
@pytest.mark.parametrize(
    "lock", ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/rpm/.rpm.lock", "usr/lib/sysimage/rpm/.rpm.lock"]
)
def test_a_package_manager_at_work_is_named(node: Node, lock: str) -> None:
    boot.write(node.root, lock, "")
    script = f"import fcntl; f = open({str(node.root / lock)!r}, 'rb+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        try:
            node.refused(f"/{lock}: a package manager is at work", "Wait until it has ended")
        finally:
            holder.communicate("\n", timeout=10)
    assert not node.run("intel_iommu=on")["failed"]


@pytest.mark.parametrize("node", ["grubby"], indirect=True)
def test_a_reader_of_the_package_database_is_no_writer(node: Node) -> None:
    lock = node.root / "var/lib/rpm/.rpm.lock"
    boot.write(node.root, "var/lib/rpm/.rpm.lock", "")
    script = f"import fcntl; f = open({str(lock)!r}, 'rb'); fcntl.lockf(f, fcntl.LOCK_SH); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert not node.run("intel_iommu=on")["failed"]
        holder.communicate("\n", timeout=10)
    with lock.open("rb+") as file:  # and nothing of ours has locked it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("node", "program"), [("grub", "update-grub"), ("grubby", "dnf"), ("systemd_boot", "kernel-install")], indirect=["node"]
)
def test_a_program_at_work_that_no_lock_tells_of_is_named(node: Node, program: str) -> None:
    boot.write(node.root, "proc/4711/comm", f"{program}\n")
    node.refused(f"process 4711: {program} is at work")


@pytest.mark.parametrize("node", ["grub"], indirect=True)
def test_a_lock_that_cannot_be_asked_about_stops(node: Node) -> None:
    boot.write(node.root, "var/lib/dpkg/keep", "")
    os.mkfifo(node.root / "var/lib/dpkg/lock")
    node.refused("it cannot be told whether a package manager is at work", "Become root")


@every_boot_loader
@pytest.mark.parametrize("kind", ["link out of the root", "FIFO", "socket"])
def test_what_is_no_file_of_the_host_is_refused(node: Node, kind: str) -> None:
    name = {"grub": "etc/default/grub", "grubby": "etc/kernel/cmdline", "systemd_boot": "etc/kernel/cmdline"}[node.kind]
    file = node.root / name
    file.unlink()
    outside = node.root.parent / "outside"
    outside.write_text("untouched")
    if kind == "FIFO":
        os.mkfifo(file)
        node.refused(f"/{name}: is a FIFO, where a file is expected")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(file.parent)
            try:
                server.bind(file.name)
            finally:
                os.chdir(here)
        node.refused(f"/{name}: is a socket, where a file is expected")
    else:
        file.symlink_to("../../../outside")
        node.refused(f"/{name}: leads out of the root of this host")
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("node", ["grub", "grubby"], indirect=True)
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('GRUB_CMDLINE_LINUX="quiet', "no closing quotation"),
        ("GRUB_DISTRIBUTOR='Lab", "no closing quotation"),
        ('GRUB_CMDLINE_LINUX="a" extra', "only a shell"),
        ('GRUB_CMDLINE_LINUX="$(cat /x)"', "only a shell"),
    ],
)
def test_a_malformed_grub_file_is_refused_by_line(node: Node, line: str, word: str) -> None:
    (node.root / "etc/default/grub").write_text(f"# first\nGRUB_TIMEOUT=5\n{line}\n")
    node.refused("/etc/default/grub line 3", word, "Write a plain assignment there")


@every_boot_loader
def test_bytes_that_are_no_text_are_not_lost(node: Node) -> None:
    if node.kind == "grub":
        node.run(absent=["quiet"], check=True)
        (node.root / "etc/default/grub").write_bytes(b'# caf\xe9\nGRUB_CMDLINE_LINUX="intel_iommu=off"\n')
        node.refused("no UTF-8", absent=["intel_iommu=off"])
    else:
        file = node.root / "etc/kernel/cmdline"
        file.write_bytes(file.read_bytes().replace(b"quiet", b"quiet caf\xe9"))
        node.refused("no UTF-8") if node.kind == "grubby" else node.refused("differ in more than what is asked for")


@every_boot_loader
def test_the_mode_of_a_file_is_kept_and_a_copy_of_it_is_made_on_demand(node: Node) -> None:
    name = "etc/default/grub" if node.kind == "grub" else "etc/kernel/cmdline"
    file = node.root / name
    file.chmod(0o600)
    before = file.read_bytes()
    assert node.run("intel_iommu=on", absent=["console=tty0"], backup=True, check=True)["backups"] == []
    done = node.run("intel_iommu=on", absent=["console=tty0"], backup=True)
    assert not done["failed"], done
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_bytes() != before
    copies = [node.root / path.lstrip("/") for path in done["backups"]]
    copy = next(path for path in copies if path.name.startswith(f"{file.name}."))
    assert copy.name.endswith("~") and copy.read_bytes() == before and copy.stat().st_mode & 0o777 == 0o600
    assert not list(node.root.rglob("*.conf.*~")) and not list(node.root.rglob("*.cfg~"))


@every_boot_loader
def test_no_copy_is_made_unless_asked(node: Node) -> None:
    done = node.run("intel_iommu=on", absent=["console=tty0"])
    assert done["backups"] == [] and not list(node.root.rglob("*~"))


def _make_next(node: Node, release: str) -> None:
    """Another kernel becomes the one of the next boot."""
    if node.kind == "grub":
        config = node.root / "boot/grub/grub.cfg"
        config.write_text(config.read_text().replace(tree.KERNEL, release))
        boot.write(node.root, f"boot/vmlinuz-{release}", "")
        boot.write(node.root, f"boot/initrd.img-{release}", "")
    elif node.kind == "grubby":
        grubenv = node.root / "boot/grub2/grubenv"
        grubenv.write_text(f"saved_entry={boot.MACHINE}-{release}\n")
    else:
        (node.root / "efi/loader/loader.conf").write_text(f"default {boot.MACHINE}-{release}.conf\n")


@every_boot_loader
def test_another_kernel_without_headers_is_a_warning_and_with_dkms_a_refusal(node: Node) -> None:
    release = boot.RELEASES[1]
    _make_next(node, release)
    headers = node.root / f"lib/modules/{release}/build/Makefile"
    if headers.exists():
        headers.unlink()
    boot.write(node.root, "var/lib/dkms/nvidia/550.54.16/source/dkms.conf", "")
    node.refused(f"kernel {release}", "DKMS", "headers")
    boot.write(node.root, f"var/lib/dkms/nvidia/550.54.16/{release}/x86_64/module/nvidia.ko", "")
    built = node.run("intel_iommu=on", check=True)
    assert not built["failed"] and "headers are not installed" in built["warnings"][-1]
    boot.write(node.root, f"lib/modules/{release}/build/Makefile", "")
    done = node.run("intel_iommu=on")
    assert not done["failed"] and "warnings" not in done and done["kernel_change"] == release


@every_boot_loader
def test_another_kernel_is_no_matter_for_a_host_that_needs_nothing(node: Node) -> None:
    _make_next(node, boot.RELEASES[1])
    boot.write(node.root, "var/lib/dkms/nvidia/550.54.16/source/dkms.conf", "")
    (node.root / "proc/cmdline").write_text("ro quiet\n")
    result = node.run("quiet")
    assert not result["failed"] and "warnings" not in result and result["kernel_change"] == boot.RELEASES[1]


@pytest.mark.parametrize("node", ["grub"], indirect=True)
def test_another_writer_during_the_run_is_found(node: Node) -> None:
    boot_commands.fault(node.root, writes={"etc/default/grub.d/10-other.cfg": 'GRUB_CMDLINE_LINUX="iommu=off"\n'})
    result = node.run("intel_iommu=on")
    assert result["failed"] and "10-other.cfg line 1" in result["msg"]


@pytest.mark.parametrize("node", ["grub"], indirect=True)
def test_what_others_left_in_grubs_files_is_said_before_it_takes_effect(node: Node) -> None:
    (node.root / "etc/default/grub.d/50-other.cfg").write_text('GRUB_CMDLINE_LINUX_DEFAULT="nosmt token=secret"\n')
    result = node.run("intel_iommu=on", check=True)
    assert "the arguments nosmt, token" in result["warnings"][0] and "secret" not in result["warnings"][0]
    done = node.run("intel_iommu=on")
    # What others wrote comes with it: that is no damage done by the generator.
    assert "warnings" in done and not done["failed"]
    assert "warnings" not in node.run("iommu=pt")
