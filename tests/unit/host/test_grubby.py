# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of a host whose entries grubby changes, and what is changed where."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _cmdline, _grubby
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_provider import Entry, ProgramChange
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands, Ended
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import boot

CMDLINE, MAIN = "/etc/kernel/cmdline", "/etc/default/grub"


def loader(root: Path) -> _grubby.Grubby:
    host = Host(str(root))
    return _grubby.Grubby(host, Commands(host))


def entry(root: Path, name: str, text: str) -> None:
    boot.write(root, f"boot/loader/entries/{name}.conf", text)


@pytest.mark.parametrize("program", ["usr/sbin/grubby", "usr/bin/grubby", "sbin/grubby"])
@pytest.mark.parametrize("editor", ["usr/bin/grub2-editenv", "usr/sbin/grub2-editenv"])
def test_programs_are_run_from_where_they_are(tmp_path: Path, program: str, editor: str) -> None:
    seen = loader(tmp_path).read()
    assert (seen.grubby, seen.editenv) == ("/usr/sbin/grubby", "/usr/bin/grub2-editenv")
    boot.write(tmp_path, program, "")
    boot.write(tmp_path, editor, "")
    seen = loader(tmp_path).read()
    assert (seen.grubby, seen.editenv) == (f"/{program}", f"/{editor}")


def test_entries_are_read_from_their_files_where_no_program_runs(tmp_path: Path) -> None:
    new = "title New\nlinux /vmlinuz-6.2\ninitrd /initramfs-6.2.img $tuned_initrd\noptions $kernelopts quiet\n"
    entry(tmp_path, "b-6.2", new)
    entry(tmp_path, "a-6.1", "title Old\nlinux /boot/vmlinuz-6.1\noptions ro\n")
    boot.write(tmp_path, "boot/grub2/grubenv", "saved_entry=a-6.1\nkernelopts=root=/dev/vda1 ro\n")
    boot.write(tmp_path, CMDLINE[1:], "ro\n")
    menu = loader(tmp_path)
    seen = menu.read()
    newer, older = menu.entries(seen)
    assert newer == Entry("b-6.2", "/boot/vmlinuz-6.2", ("root=/dev/vda1", "ro", "quiet"), ("/boot/initramfs-6.2.img",), "6.2")
    assert older == Entry("a-6.1", "/boot/vmlinuz-6.1", ("ro",), (), "6.1") == menu.default(seen)
    assert seen.kernelopts == "root=/dev/vda1 ro"
    assert seen.texts[CMDLINE] == "ro\n" and MAIN not in seen.texts and new in seen.texts.values()
    assert menu.room(seen) == ("/boot", 2 << 20)


@pytest.mark.parametrize(
    ("said", "expected"), [("/boot/vmlinuz-6.1\n", "Old"), ("warning: x\n/boot/vmlinuz-6.1\n", "Old"), ("", None), ("/boot/other", None)]
)
def test_grubby_says_which_entries_there_are_and_which_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str | None
) -> None:
    info = 'index=0\nkernel="/boot/vmlinuz-6.2"\nargs="ro"\ntitle="New"\nindex=1\nkernel="/boot/vmlinuz-6.1"\nargs="ro"\ntitle="Old"\n'
    answers = {"--info=ALL": info, "--default-kernel": said}
    asked: list[t.Sequence[str]] = []

    def run(self: Commands, command: t.Sequence[str], seconds: int) -> Ended:
        asked.append(command)
        return Ended(0, answers[command[1]], 1)

    monkeypatch.setattr(Commands, "run", run)
    host = Host(str(tmp_path))
    menu = _grubby.Grubby(host, Commands(host, "chroot"))
    seen = menu.read()
    assert [one.name for one in menu.entries(seen)] == ["New", "Old"]
    default = menu.default(seen)
    assert (default.name if default else None) == expected
    assert asked == [["/usr/sbin/grubby", "--info=ALL"], ["/usr/sbin/grubby", "--default-kernel"]]


@pytest.mark.parametrize(
    ("lines", "name", "arguments"),
    [
        ('kernel="/boot/vmlinuz-1"\nargs="ro"\nid="x"\ntitle="y"\n', "x", ("ro",)),
        ('kernel="/boot/vmlinuz-1"\nargs="ro"\ntitle="y"\n', "y", ("ro",)),
        ("kernel=/boot/vmlinuz-1\nargs=ro\n", "/boot/vmlinuz-1", ("ro",)),
        ('kernel="/boot/vmlinuz-1"\nargs=""\n', "/boot/vmlinuz-1", ()),
        ('kernel="/boot/vmlinuz-1"\n', None, ()),
        ('args="ro"\n', None, ()),
    ],
)
def test_an_entry_of_grubby_s_list_is_named_by_what_it_says(lines: str, name: str | None, arguments: tuple[str, ...]) -> None:
    found = _grubby.parsed_info(f"index=0\n{lines}")
    assert [(one.name, one.arguments, one.initrds) for one in found] == ([(name, arguments, ())] if name else [])


# The plan


def seen(*options: str, **more: t.Any) -> _grubby.Seen:
    entries = tuple(Entry(f"e{n}", f"/boot/vmlinuz-{n}", tuple(_cmdline.split(line))) for n, line in enumerate(options))
    values: dict[str, t.Any] = {"texts": {}, "kernelopts": None, "grubby": "/usr/sbin/grubby", "editenv": "/usr/sbin/grub2-editenv"}
    return _grubby.Seen(entries, "e0", **{**values, **more})


def changed(plan: Plan) -> list[tuple[str, str, t.Any, t.Any]]:
    assert not plan.blockers, plan.blockers
    return [(change.target, change.action, change.before, change.after) for change in plan.changes]


def commands(plan: Plan) -> list[tuple[str, ...]]:
    return [change.command for change in plan.changes if isinstance(change, ProgramChange)]


def test_every_place_that_kernels_take_their_arguments_from_is_changed_and_shown() -> None:
    texts = {CMDLINE: "ro token=1\n", MAIN: 'GRUB_CMDLINE_LINUX="ro quiet"\n'}
    plan = _grubby.make_plan(seen("ro quiet token=1", texts=texts, kernelopts="ro token=1"), ["iommu=pt"], ["quiet"])
    assert changed(plan) == [
        (f"file {CMDLINE}", "edit", "ro token=1\n", "ro token=1 iommu=pt\n"),
        (f"file {MAIN}", "edit", 'GRUB_CMDLINE_LINUX="ro quiet"\n', 'GRUB_CMDLINE_LINUX="ro iommu=pt"\n'),
        ("kernelopts in /boot/grub2/grubenv", "set", "ro token=(not shown)", "ro token=(not shown) iommu=pt"),
        ("entry /boot/vmlinuz-0", "update", "ro quiet token=(not shown)", "ro token=(not shown) iommu=pt"),
    ]
    assert commands(plan) == [
        ("/usr/sbin/grub2-editenv", "/boot/grub2/grubenv", "set", "kernelopts=ro token=1 iommu=pt"),
        ("/usr/sbin/grubby", "--update-kernel=/boot/vmlinuz-0", "--remove-args=quiet", "--args=iommu=pt"),
    ]
    said = "must be there: iommu=pt; must not be there: quiet"
    assert [change.reason.rpartition(" from it; ")[2] for change in plan.changes] == [said] * 4


@pytest.mark.parametrize(
    ("main", "present", "absent", "after"),
    [
        ('GRUB_CMDLINE_LINUX="ro"\n', ["iommu=pt"], [], 'GRUB_CMDLINE_LINUX="ro iommu=pt"\n'),
        (
            'GRUB_CMDLINE_LINUX="ro"\nGRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off"\n',
            ["intel_iommu=on"],
            [],
            'GRUB_CMDLINE_LINUX="ro"\nGRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off intel_iommu=on"\n',
        ),
        (
            "GRUB_CMDLINE_LINUX=ro\nGRUB_CMDLINE_LINUX_DEFAULT=iommu=nopt\n",
            ["intel_iommu=on", "iommu=pt"],
            [],
            'GRUB_CMDLINE_LINUX=ro\nGRUB_CMDLINE_LINUX_DEFAULT="iommu=nopt intel_iommu=on iommu=pt"\n',
        ),
        ('GRUB_CMDLINE_LINUX="ro iommu=pt"\n', ["iommu=pt"], [], None),
        ('GRUB_CMDLINE_LINUX="ro quiet"\n', [], ["quiet"], 'GRUB_CMDLINE_LINUX="ro"\n'),
        ('GRUB_CMDLINE_LINUX="ro \\"a=b c\\""\n', [], ['a="b c"'], 'GRUB_CMDLINE_LINUX="ro"\n'),
        ('GRUB_CMDLINE_LINUX="console=tty0"\n', ["console=ttyS1"], [], 'GRUB_CMDLINE_LINUX="console=tty0 console=ttyS1"\n'),
    ],
)
def test_grub_s_file_is_changed_where_it_has_the_last_word(main: str, present: list[str], absent: list[str], after: str | None) -> None:
    satisfied = seen(" ".join(["ro", *present]), texts={MAIN: main})
    assert [change[3] for change in changed(_grubby.make_plan(satisfied, present, absent))] == ([after] if after else [])


STUCK = "and nothing that is appended takes it back"


@pytest.mark.parametrize(
    ("of", "places"),
    [
        (seen("ro amd_iommu=off"), "the boot loader's configuration"),
        (seen("ro amd_iommu=off", "ro amd_iommu=off"), "the boot loader's configuration"),
        (seen("ro", kernelopts="ro amd_iommu=off"), "the boot loader's configuration"),
        (seen("ro", texts={CMDLINE: "ro\namd_iommu=off\n"}), f"{CMDLINE} line 2"),
        (seen("ro", texts={MAIN: 'GRUB_CMDLINE_LINUX="amd_iommu=off"\n'}), f"{MAIN} line 1"),
        (
            seen("ro amd_iommu=off", texts={CMDLINE: "amd_iommu=off\n", MAIN: 'GRUB_CMDLINE_LINUX="amd_iommu=off"\n'}),
            f"{CMDLINE} line 1, {MAIN} line 1",
        ),
    ],
)
def test_a_word_that_nothing_takes_back_stops_once_wherever_it_stands_unless_it_is_to_go(of: _grubby.Seen, places: str) -> None:
    refused = _grubby.make_plan(of, ["amd_iommu=on"], [])
    assert not refused.changes
    assert [(b.target, b.problem) for b in refused.blockers] == [("argument amd_iommu=off", f"amd_iommu=off stands in {places}, {STUCK}")]
    taken = _grubby.make_plan(of, ["amd_iommu=on"], ["amd_iommu=off"])
    assert taken.changes and not taken.blockers


def test_an_argument_that_grub_s_file_puts_together_is_refused() -> None:
    main = 'GRUB_CMDLINE_LINUX="qui"\nGRUB_CMDLINE_LINUX="${GRUB_CMDLINE_LINUX}et"\n'
    refused = _grubby.make_plan(seen("ro quiet", texts={MAIN: main}), [], ["quiet", "other"])
    assert not refused.changes
    assert [(b.target, b.problem) for b in refused.blockers] == [
        ("argument quiet", "it is not written literally where GRUB's file sets it")
    ]


@pytest.mark.parametrize(("entries", "stops"), [(["ro"], True), (["ro iommu=pt", "ro"], True), (["ro iommu=pt"], False)])
def test_a_file_that_only_a_shell_works_out_stops_while_an_entry_falls_short(entries: list[str], stops: bool) -> None:
    plan = _grubby.make_plan(seen(*entries, texts={MAIN: 'GRUB_CMDLINE_LINUX="$(x)"\n'}), ["iommu=pt"], [])
    assert bool(plan.blockers) is stops and bool(plan.warnings) is not stops and not plan.changes


def test_entries_of_one_kernel_are_changed_together() -> None:
    entries = tuple(
        Entry(f"e{n}", "/boot/vmlinuz-0", tuple(line.split())) for n, line in enumerate(("ro quiet", "ro quiet single", "ro b"))
    )
    plan = _grubby.make_plan(_grubby.Seen(entries, "e0", {}, None, "/usr/sbin/grubby", "/x"), ["iommu=pt", "nomodeset"], ["quiet", "b"])
    assert commands(plan) == [("/usr/sbin/grubby", "--update-kernel=/boot/vmlinuz-0", "--remove-args=quiet b", "--args=iommu=pt nomodeset")]


@pytest.mark.parametrize(
    ("line", "present", "absent", "remove", "add"),
    [
        ("ro", ["iommu=pt"], [], [], ["iommu=pt"]),
        ("ro quiet quiet", [], ["quiet"], ["quiet"], []),
        # Of a key that may repeat grubby would replace the others: they are given along.
        ("console=tty0 console=tty1", ["console=ttyS1"], ["console=tty1"], ["console=tty1"], ["console=tty0", "console=ttyS1"]),
        ("console=tty0", ["console=tty0"], [], [], []),
        ("iommu=nopt", ["iommu=pt"], [], [], ["iommu=pt"]),
    ],
)
def test_grubby_is_asked_for_what_its_way_of_replacing_needs(
    line: str, present: list[str], absent: list[str], remove: list[str], add: list[str]
) -> None:
    assert _grubby.needed(line.split(), present, absent) == (remove, add)


@pytest.mark.parametrize(
    ("line", "remove", "add", "after"),
    [
        ("ro a=1 a=2 b", [], ["a=3"], "ro b a=3"),
        ("ro a=1 a=2 b", ["a=1"], [], "ro a=2 b"),
        ("ro a a=2 b", ["a"], [], "ro b"),
        ("ro b", [], [], "ro b"),
    ],
)
def test_what_grubby_makes_of_a_line(line: str, remove: list[str], add: list[str], after: str) -> None:
    assert _grubby.outcome(line.split(), remove, add) == after.split()


def test_nothing_asked_for_is_nothing_to_do_even_without_entries() -> None:
    plan = _grubby.make_plan(seen(), [], [])
    assert not plan.changes and not plan.blockers
