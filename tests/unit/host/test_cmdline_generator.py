# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel_cmdline where it runs update-grub itself: a tree that passes for the machine, and a generator that the tree plays."""

from __future__ import annotations

import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from ansible_collections.gpufleet.kubevirt.plugins.modules import kernel_cmdline
from tests.hosts import tree

DROP_IN = "etc/default/grub.d/60-gpufleet.cfg"


class Ended(Exception):
    """A module has ended, with this result."""


class RealHost(Host):
    """A tree that says that it is the machine itself; its files are still those of the tree."""

    is_real = True  # type: ignore[assignment]

    def _real(self, path: str, last: bool = True) -> str:
        return self.root + self.resolve(path, last)

    def exists(self, path: str) -> bool:
        return Path(self._real(path)).exists()


class Module:
    """What the module needs of Ansible."""

    def __init__(self, root: Path) -> None:
        self.root, self.check_mode, self.runs = root, False, 0
        self.params: dict[str, t.Any] = {"present": ["intel_iommu=on"], "absent": [], "provider": "auto"}
        self.code = 0  #: how the generator ends
        self.leaves_out = ""  #: a word that it does not put into its output

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        assert command == ["/usr/sbin/update-grub"]
        self.runs += 1
        if self.code == 0:
            config = self.root / "boot/grub/grub.cfg"
            line = tree.grub_arguments(self.root).replace(self.leaves_out, "")
            config.write_text(re.sub(r"(?m)^(\tlinux\t.* ro ).*$", lambda match: match.group(1) + line, config.read_text()))
        return self.code, "", "cannot write: no space left"

    def warn(self, warning: str) -> None:
        raise AssertionError(warning)

    def fail_json(self, **result: t.Any) -> t.NoReturn:
        raise Ended({"failed": True, **result})

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        raise Ended({"failed": False, **result})

    def run(self) -> dict[str, t.Any]:
        step = kernel_cmdline.Cmdline(self, RealHost(str(self.root)))
        with pytest.raises(Ended) as ended:
            _change.run(self, kernel_cmdline.DOING, step.observe, step.plan, step.apply, step.result, step.verify)
        return ended.value.args[0]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    tree.build(tmp_path / "host", tree.HostSpec(cmdline="intel_iommu=off"))
    monkeypatch.setattr(kernel_cmdline, "generator_blockers", list)
    return Module(tmp_path / "host")


def actions(result: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(change["action"], change["target"]) for change in result["changes"]]


def test_the_generator_runs_once_and_only_if_something_differs(module: Module) -> None:
    module.check_mode = True
    checked = module.run()
    assert module.runs == 0 and not (module.root / DROP_IN).exists()
    module.check_mode = False
    first = module.run()
    assert not first["failed"], first
    assert actions(first) == actions(checked) == [("write", f"file /{DROP_IN}"), ("generate", "file /boot/grub/grub.cfg")]
    assert (first["reboot_required"], first["pending"], module.runs) == (True, [], 1)
    assert "intel_iommu=on" in (module.root / "boot/grub/grub.cfg").read_text()
    second = module.run()
    assert (second["failed"], second["changed"], second["reboot_required"], module.runs) == (False, False, True, 1)


def test_a_generator_that_failed_is_told_with_its_words_and_run_again_next_time(module: Module) -> None:
    module.code = 1
    failed = module.run()
    assert failed["failed"] and "no space left" in failed["msg"]
    assert actions(failed) == [("write", f"file /{DROP_IN}")]
    module.code = 0
    again = module.run()
    assert not again["failed"] and actions(again) == [("generate", "file /boot/grub/grub.cfg")]


def test_what_the_generator_left_out_is_found_by_reading_back(module: Module) -> None:
    module.leaves_out = "intel_iommu=on"
    result = module.run()
    assert result["failed"] and "did not take" in result["msg"]


def test_a_default_entry_without_its_kernel_is_a_failure(module: Module) -> None:
    (module.root / f"boot/initrd.img-{tree.KERNEL}").unlink()
    result = module.run()
    assert result["failed"] and "initrd.img" in result["msg"] and "before you reboot" in result["msg"]


def test_another_writer_during_the_run_is_found(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = module.run_command

    def interfering(command: list[str]) -> tuple[int, str, str]:
        (module.root / "etc/default/grub.d/10-other.cfg").write_text('GRUB_CMDLINE_LINUX="iommu=off"\n')
        return ran(command)

    monkeypatch.setattr(module, "run_command", interfering)
    result = module.run()
    assert result["failed"] and "10-other.cfg line 1" in result["msg"]


def test_nothing_is_written_while_the_generator_could_not_run(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cmdline, "generator_blockers", lambda: [_change.Blocker("/boot", "it is full", "Make room")])
    result = module.run()
    assert result["failed"] and "it is full" in result["msg"] and module.runs == 0
    assert not (module.root / DROP_IN).exists()


def test_a_package_manager_at_work_is_seen_by_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert kernel_cmdline.lock_problem(str(lock)) is None
    lock.touch()
    assert kernel_cmdline.lock_problem(str(lock)) is None
    script = f"import fcntl; f = open({str(lock)!r}, 'rb+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        found = kernel_cmdline.lock_problem(str(lock))
        holder.communicate("\n", timeout=10)
    assert found and "package manager" in found.problem
    directory = kernel_cmdline.lock_problem(str(tmp_path))
    assert directory and "cannot be told" in directory.problem


@pytest.mark.parametrize(("free", "problems"), [(1, 1), (1 << 20, 0)])
def test_a_full_boot_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, problems: int) -> None:
    generator = tmp_path / "update-grub"
    monkeypatch.setattr(kernel_cmdline._grub, "GENERATOR", str(generator))
    monkeypatch.setattr(kernel_cmdline, "LOCKS", ())
    assert "not there" in kernel_cmdline.generator_blockers()[0].problem
    generator.touch()
    monkeypatch.setattr(kernel_cmdline.os, "statvfs", lambda path: type("Space", (), {"f_bavail": free, "f_frsize": 4096})())
    assert len(kernel_cmdline.generator_blockers()) == problems
