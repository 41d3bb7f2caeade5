# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's GRUB: which of its files are changed, how, and when the generator runs. On values; with programs it is in test_boot_loaders."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _grub
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

MAIN, DROP_IN, GENERATED = "/etc/default/grub", "/etc/default/grub.d/60-gpufleet.cfg", "/boot/grub/grub.cfg"
LATER = "/etc/default/grub.d/70-site.cfg"


def generated(*lines: str) -> str:
    return "".join(f"\tlinux\t/boot/vmlinuz-6.{n} {line}\n\tinitrd\t/boot/initrd.img-6.{n}\n}}\n" for n, line in enumerate(lines))


def files(main: str, line: str = "root=/dev/vda1 ro", **more: str) -> _grub.Files:
    others = {{"ours": DROP_IN, "later": LATER}[name]: text for name, text in more.items()}
    return _grub.Files({MAIN: f'GRUB_CMDLINE_LINUX="{main}"\n', **others}, generated(line))


def ours(arguments: str) -> str:
    return _grub.drop_in(arguments.split())


def shown(plan: Plan) -> list[tuple[str, str, str]]:
    assert not plan.blockers
    return [(change.target.removeprefix("file "), change.action, change.reason) for change in plan.changes]


GENERATE = (GENERATED, "generate", "it is made from the files above")


@pytest.mark.parametrize(
    ("seen", "present", "absent", "expected"),
    [
        (files("quiet"), ["iommu=pt"], [], [(DROP_IN, "write", "must be there: iommu=pt"), GENERATE]),
        (
            files("quiet"),
            ["iommu=pt"],
            ["quiet"],
            [(MAIN, "edit", "must not be there: quiet"), (DROP_IN, "write", "must be there: iommu=pt"), GENERATE],
        ),
        (files("quiet", ours=ours("iommu=pt")), [], ["iommu=pt"], [(DROP_IN, "remove", "must not be there: iommu=pt"), GENERATE]),
        (files("quiet", ours=ours("iommu=pt a")), [], ["a"], [(DROP_IN, "write", "must not be there: a"), GENERATE]),
        # What is written already, and only the generator has not run since.
        (files("iommu=pt"), ["iommu=pt"], [], [GENERATE]),
        (files("iommu=pt", "ro iommu=pt"), ["iommu=pt"], [], []),
        (files("quiet"), [], [], []),
        # A word that a later assignment has dropped is on no line, and its file is left alone.
        (_grub.Files({MAIN: "GRUB_CMDLINE_LINUX=quiet\nGRUB_CMDLINE_LINUX=ro\n"}, generated("ro")), [], ["quiet"], []),
    ],
)
def test_only_the_files_that_must_change_do_and_each_says_why(
    seen: _grub.Files, present: list[str], absent: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert shown(_grub.make_plan(seen, present, absent)) == expected


def test_a_file_of_ours_that_holds_nothing_any_more_goes() -> None:
    change = _grub.make_plan(files("quiet", ours=ours("iommu=pt")), [], ["iommu=pt"]).changes[0]
    assert change.before == ours("iommu=pt") and change.after is None


@pytest.mark.parametrize("stands", ['a=\\"b c\\"', '\\"a=b c\\"'])
def test_an_argument_goes_however_it_is_quoted(stands: str) -> None:
    plan = _grub.make_plan(files(f"quiet {stands}"), [], ['a="b c"'])
    assert [change.after for change in plan.changes][:1] == ['GRUB_CMDLINE_LINUX="quiet"\n']


def test_the_generator_runs_while_one_entry_falls_short() -> None:
    seen = _grub.Files({MAIN: "GRUB_CMDLINE_LINUX=iommu=pt\n"}, generated("iommu=pt", "ro"))
    assert shown(_grub.make_plan(seen, ["iommu=pt"], [])) == [GENERATE]
    never = _grub.Files({MAIN: "GRUB_CMDLINE_LINUX=iommu=pt\n"}, None)
    assert shown(_grub.make_plan(never, ["iommu=pt"], [])) == [GENERATE]


@pytest.mark.parametrize(
    ("seen", "present", "absent", "problem", "remedy"),
    [
        (
            files("ro", later="GRUB_CMDLINE_LINUX_DEFAULT=iommu=nopt\n"),
            ["iommu=pt"],
            [],
            "argument iommu=pt: a file that is read after /etc/default/grub.d/60-gpufleet.cfg undoes it",
            "Rename or correct the files in /etc/default/grub.d",
        ),
        (
            files("ro", "ro quiet", later='GRUB_CMDLINE_LINUX="${GRUB_CMDLINE_LINUX}q""uiet"\n'),
            [],
            ["quiet"],
            "file /etc/default/grub.d/70-site.cfg: only a shell can work this out: /etc/default/grub.d/70-site.cfg line 1",
            "run update-grub",
        ),
        (
            files("qui", later='GRUB_CMDLINE_LINUX="${GRUB_CMDLINE_LINUX}et"\n'),
            [],
            ["quiet"],
            "argument quiet: it is not written literally in any of GRUB's files",
            "Remove it yourself from /etc/default/grub or /etc/default/grub.d",
        ),
    ],
)
def test_what_the_files_do_not_let_be_written_is_refused(
    seen: _grub.Files, present: list[str], absent: list[str], problem: str, remedy: str
) -> None:
    plan = _grub.make_plan(seen, present, absent)
    assert not plan.changes and len(plan.blockers) == 1
    assert problem in str(plan.blockers[0]) and remedy in plan.blockers[0].remedy


def test_files_of_a_shell_do_while_the_generated_file_has_what_is_wanted_and_that_is_said() -> None:
    shell = _grub.Files({MAIN: 'GRUB_CMDLINE_LINUX="$(cat /x)"\n'}, generated("ro iommu=pt"))
    plan = _grub.make_plan(shell, ["iommu=pt"], [])
    assert not plan.changes and not plan.blockers and "/boot/grub/grub.cfg has what is wanted" in plan.warnings[0]


@pytest.mark.parametrize(
    ("main", "line", "expected"),
    [
        ("quiet", "root=/dev/vda1 ro quiet", []),
        ("quiet nosmt token=secret", "root=/dev/vda1 ro quiet", ["nosmt, token"]),
        ("rw", "root=/dev/vda1 ro", ["rw"]),
        ('a=\\"b c\\"', 'ro "a=b c"', []),
    ],
)
def test_what_others_left_in_the_files_is_named_without_its_values(main: str, line: str, expected: list[str]) -> None:
    warnings = _grub.make_plan(files(main, line), ["iommu=pt"], []).warnings
    assert [warning.rpartition("the arguments ")[2] for warning in warnings] == expected


def test_nothing_is_said_of_others_where_there_is_nothing_to_compare_with() -> None:
    assert not _grub.make_plan(_grub.Files({MAIN: "GRUB_CMDLINE_LINUX=quiet\n"}, None), ["iommu=pt"], []).warnings


# Reading


def test_an_entry_is_read_with_its_kernel_its_initrds_and_its_release() -> None:
    text = "\tlinuxefi /boot/vmlinuz-6.1 ro  quiet\n\techo x\n\tinitrdefi /boot/ucode.img /boot/initrd.img-6.1\n}\n\tlinux16 /vmlinux-5 ro\n}\n"
    first, second = _grub.entries(text)
    assert (first.name, first.kernel, first.release) == ("/boot/vmlinuz-6.1", "/boot/vmlinuz-6.1", "6.1")
    assert (first.arguments, first.initrds) == (("ro", "quiet"), ("/boot/ucode.img", "/boot/initrd.img-6.1"))
    assert (second.kernel, second.arguments, second.initrds) == ("/vmlinux-5", ("ro",), ())
    assert _grub.entries(None) == []


def loader(root: Path) -> _grub.Grub:
    host = Host(str(root))
    return _grub.Grub(host, Commands(host))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (files("a b"), ["a", "b"]),
        (_grub.Files({MAIN: 'GRUB_CMDLINE_LINUX="$(cat /x)"\n'}, None), None),
    ],
)
def test_the_arguments_of_the_next_boot_are_those_of_the_files(tmp_path: Path, seen: _grub.Files, expected: t.Any) -> None:
    assert loader(tmp_path).configured(seen) == expected


def test_the_new_file_has_room_beside_the_old_one(tmp_path: Path) -> None:
    grub = loader(tmp_path)
    assert grub.room(_grub.Files({}, "x" * 1000)) == ("/boot", (4 << 20) + 1000)
    assert grub.room(_grub.Files({}, None)) == ("/boot", 4 << 20)


def test_arguments_in_our_drop_in_are_read_as_they_were_written() -> None:
    arguments = ["iommu=pt", 'vfio.a="b c"']
    assert _grub.own_arguments(_grub.drop_in(arguments)) == arguments
    assert _grub.drop_in(arguments).endswith(' iommu=pt vfio.a=\\"b c\\""\n')
