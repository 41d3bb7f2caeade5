# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot entries as files: what is in them, which is the next one, and what grubby and kernel-install are asked for."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import (
    _bls,
    _bootloader,
    _cmdline,
    _grub,
    _grub_files,
    _grubby,
    _systemd_boot,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_provider import Entry, ProgramChange
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import boot, boot_commands

keys = st.sampled_from(["ro", "quiet", "console", "iommu", "intel_iommu", "intel-iommu", "pci", "foo.bar", "vfio-pci.ids"])
values = st.sampled_from([None, "on", "off", "pt", "tty0", "ttyS0,115200", "on,sm_on", "10de:2236,10de:1aef"])
tokens = st.builds(lambda key, value: key if value is None else f"{key}={value}", keys, values)
lines = st.lists(tokens, min_size=1, max_size=8)
wishes = st.lists(st.sampled_from(["intel_iommu=on", "iommu=pt", "console=ttyS1", "nomodeset", "pci=realloc"]), max_size=3, unique=True)
unwanted = st.lists(st.sampled_from(["quiet", "console=tty0", "iommu=off", "intel_iommu=off"]), max_size=2, unique=True)


def files_after(texts: t.Mapping[str, str], plan: Plan) -> dict[str, str]:
    after = dict(texts)
    for change in plan.changes:
        if not isinstance(change, ProgramChange):
            assert after.get(change.target.removeprefix("file ")) == change.before
            after[change.target.removeprefix("file ")] = change.after
    return after


def projections(line: list[str], present: list[str], absent: list[str]) -> tuple[list[str], list[str]]:
    """What must stay: the arguments of other keys in their order, and those of repeatable keys in theirs."""
    asked = {_cmdline.key_of(token) for token in present}
    left = [token for token in line if token not in absent]
    repeated = [token for token in left if _cmdline.key_of(token) in asked and _cmdline.key_of(token) in _cmdline.REPEATABLE]
    return [token for token in left if _cmdline.key_of(token) not in asked], [token for token in repeated if token not in present]


@given(first=lines, second=lines, present=wishes, absent=unwanted)
def test_with_grubby_only_what_is_asked_for_differs_and_a_second_plan_is_empty(
    first: list[str], second: list[str], present: list[str], absent: list[str]
) -> None:
    """Entries are changed by the stand-in's own reading of grubby(8), not by the plan's."""
    if set(present) & set(absent):
        return
    texts = {_grubby.CMDLINE: " ".join(first) + "\n", _grub_files.MAIN: f'GRUB_CMDLINE_LINUX="{" ".join(second)}"\n'}
    entries = tuple(Entry(f"e{n}", f"/boot/vmlinuz-{n}", tuple(line)) for n, line in enumerate((first, second)))
    seen = _grubby.Seen(entries, "e0", texts, " ".join(second), "/usr/sbin/grubby", "/usr/bin/grub2-editenv")
    plan = _grubby.make_plan(seen, present, absent)
    if plan.blockers:
        assert not plan.changes
        undone = [word for line in (first, second) for word in _cmdline.undoing([w for w in line if w not in absent], present)]
        with_value = any(word.startswith("quiet=") for line in (first, second) for word in line)
        assert undone or with_value, plan.blockers
        return
    commands = {change.target: change.command for change in plan.changes if isinstance(change, ProgramChange)}
    after = []
    for entry in entries:
        given_ = dict(word.lstrip("-").split("=", 1) for word in commands.get(f"entry {entry.kernel}", ())[1:])
        line = boot_commands.changed(list(entry.arguments), given_.get("remove-args", "").split(), given_.get("args", "").split())
        after.append(Entry(entry.name, entry.kernel, tuple(line)))
        assert not _cmdline.wanting(line, present, absent)
        assert projections(line, present, absent) == projections(list(entry.arguments), present, absent)
        if f"entry {entry.kernel}" not in commands:
            assert not _cmdline.wanting(entry.arguments, present, absent)
    options = commands.get(f"kernelopts in {_grubby.ENVIRONMENT}", ("", "", "", f"kernelopts={seen.kernelopts}"))[3].partition("=")[2]
    again = _grubby.Seen(tuple(after), "e0", files_after(texts, plan), options, seen.grubby, seen.editenv)
    assert projections(_cmdline.split(options), present, absent) == projections(second, present, absent)
    second_plan = _grubby.make_plan(again, present, absent)
    assert not second_plan.changes and not second_plan.blockers
    for words in (
        lambda files: _cmdline.split(files[_grubby.CMDLINE]),
        lambda files: _grub_files.line_of({_grub_files.MAIN: files[_grub_files.MAIN]}),
    ):
        assert projections(words(again.texts), present, absent) == projections(words(texts), present, absent)
        assert not _cmdline.wanting(words(again.texts), present, absent)


@given(line=lines, present=wishes, absent=unwanted, written=st.booleans())
def test_with_systemd_boot_only_what_is_asked_for_differs_and_a_second_plan_is_empty(
    line: list[str], present: list[str], absent: list[str], written: bool
) -> None:
    if set(present) & set(absent):
        return
    text = "\n ".join(line) + "\n" if written else None
    seen = systemd_seen([" ".join(line)], cmdline=text)
    plan = _systemd_boot.make_plan(seen, present, absent)
    if plan.blockers:
        assert _cmdline.undoing([word for word in line if word not in absent], present) and not plan.changes
        return
    texts = files_after({_systemd_boot.CMDLINE: text} if text is not None else {}, plan)
    made = any(isinstance(change, ProgramChange) for change in plan.changes)
    after = _cmdline.split(texts[_systemd_boot.CMDLINE]) if made else line
    assert not _cmdline.wanting(after, present, absent)
    assert _cmdline.others(after, present, absent) == _cmdline.others(line, present, absent)
    assert after[: len([word for word in line if word not in absent])] == [word for word in line if word not in absent]
    again = _systemd_boot.make_plan(systemd_seen([" ".join(after)], cmdline=texts.get(_systemd_boot.CMDLINE)), present, absent)
    assert not again.changes and not again.blockers


def systemd_seen(options: list[str], cmdline: str | None, vendor: str | None = None, **more: t.Any) -> _systemd_boot.Seen:
    releases = [f"6.{len(options) - number}.0" for number in range(len(options))]
    found = tuple(
        fragment
        for release, line in zip(releases, options)
        for fragment in [
            _bls.parsed(
                f"/efi/loader/entries/id-{release}.conf",
                f"version {release}\nlinux /id/{release}/linux\noptions {line} systemd.machine_id=id\n",
            )
        ]
        if fragment
    )
    images = {release: f"/lib/modules/{release}/vmlinuz" for release in releases}
    values: dict[str, t.Any] = {
        "root": "/efi",
        "fragments": found,
        "default": found[0].name if found else None,
        "unified": (),
        "images": images,
    }
    return _systemd_boot.Seen(**{**values, "cmdline": cmdline, "vendor": vendor, "sizes": (), "program": "/usr/bin/kernel-install", **more})


def programs(plan: Plan) -> list[str]:
    return [change.line for change in plan.changes if isinstance(change, ProgramChange)]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (systemd_seen([], cmdline="ro\n"), ("no entry below /efi/loader/entries", "Mount the EFI system partition")),
        (systemd_seen([], cmdline="ro\n", unified=("lab-6.1.efi",)), ("unified kernel images (lab-6.1.efi)", "make the images anew")),
        (systemd_seen(["ro"], cmdline="ro\n", images={}), ("release 6.1.0 has no kernel image", "/efi/loader/entries/id-6.1.0.conf")),
        (
            systemd_seen(["ro mine=1"], cmdline="ro\n"),
            ("differ in more than what is asked for: mine=(not shown)", "kernel-install add 6.1.0"),
        ),
        (systemd_seen(["ro"], cmdline="ro yours=1\n"), ("differ in more than what is asked for: yours=(not shown)",)),
        (systemd_seen(["a b"], cmdline="b a\n"), ("differ in more than what is asked for: a, b",)),
    ],
)
def test_an_entry_that_kernel_install_would_spoil_is_refused(seen: _systemd_boot.Seen, words: tuple[str, ...]) -> None:
    plan = _systemd_boot.make_plan(seen, ["intel_iommu=on"], [])
    assert not plan.changes and len(plan.blockers) == 1
    assert all(word in str(plan.blockers[0]) for word in words), plan.blockers[0]


def test_an_entry_that_is_not_of_kernel_install_stops_only_if_it_may_be_the_next_one() -> None:
    by_hand = _bls.parsed("/efi/loader/entries/arch.conf", "linux /vmlinuz-linux\noptions ro\n")
    seen = systemd_seen(["ro"], cmdline="ro\n")
    for default, stops in (("id-6.1.0", False), ("arch", True), (None, True)):
        both = systemd_seen(["ro"], cmdline="ro\n", fragments=(*seen.fragments, by_hand), default=default)
        plan = _systemd_boot.make_plan(both, ["intel_iommu=on"], [])
        told = [str(blocker) for blocker in plan.blockers] if stops else plan.warnings
        assert "/efi/loader/entries/arch.conf was not made by kernel-install" in told[0]
        assert bool(plan.changes) is not stops


def test_without_a_file_the_arguments_of_the_next_entry_are_kept_for_new_ones() -> None:
    plan = _systemd_boot.make_plan(systemd_seen(["root=/dev/vda2 ro initrd=x"], cmdline=None), ["iommu=pt"], [])
    assert plan.changes[0].after == "root=/dev/vda2 ro iommu=pt\n"
    vendor = _systemd_boot.make_plan(systemd_seen(["root=/dev/vda2 ro"], cmdline=None, vendor="root=/dev/vda2 ro\n"), ["iommu=pt"], [])
    assert vendor.changes[0].after == "root=/dev/vda2 ro iommu=pt\n"
    empty = _systemd_boot.make_plan(systemd_seen(["root=/dev/vda2 ro"], cmdline="\n"), ["iommu=pt"], [])
    assert "root=/dev/vda2" in empty.changes[0].after


def test_only_the_entries_that_fall_short_are_made_anew() -> None:
    plan = _systemd_boot.make_plan(systemd_seen(["ro iommu=pt", "ro"], cmdline="ro iommu=pt\n"), ["iommu=pt"], [])
    assert programs(plan) == ["kernel-install add 6.1.0 /lib/modules/6.1.0/vmlinuz"]
    assert len(plan.changes) == 1


ENTRY = "title {0}\nversion {1}\nsort-key {2}\nlinux /{0}\noptions ro\n"


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([], "lab-6.10"),  # newest by number, not by letter
        (["lab-6.9"], "lab-6.9"),
        (["lab-6.9.conf"], "lab-6.9"),
        (["LAB-*"], "lab-6.10"),
        (["none-*", "zz*"], "zz"),
        (["none-*"], "lab-6.10"),
        (["auto-windows"], None),
        (["other.efi"], None),
        (["@saved"], None),
    ],
)
def test_the_next_entry_is_the_one_that_systemd_boot_takes(wishes: list[str], expected: str | None) -> None:
    texts = {
        "zz": "linux /zz\n",  # without a sort key: after those with one
        "lab-6.9": ENTRY.format("a", "6.9", "lab"),
        "lab-6.10": ENTRY.format("b", "6.10", "lab"),
        "lab-6.11~rc1": ENTRY.format("c", "6.10~rc1", "lab"),
        "lab-6.12+0-3": ENTRY.format("d", "6.12", "lab"),  # all its attempts have failed
        "old": ENTRY.format("e", "7", "old"),
    }
    found = [fragment for name, text in texts.items() for fragment in [_bls.parsed(f"/efi/loader/entries/{name}.conf", text)] if fragment]
    found.sort(key=_bls.Fragment.newest_first, reverse=True)
    assert [fragment.name for fragment in found] == ["lab-6.10", "lab-6.11~rc1", "lab-6.9", "old", "zz", "lab-6.12"]
    assert _bls.systemd_default(found, wishes) == expected


def test_who_says_which_entry_is_next_is_read_from_the_firmware_first(tmp_path: Path) -> None:
    boot.systemd_boot(tmp_path, "quiet")
    new, old = (f"{boot.MACHINE}-{release}" for release in boot.RELEASES)
    variables = tmp_path / "sys/firmware/efi/efivars"

    def configured() -> list[str] | None:
        return _bootloader.configured(Host(str(tmp_path)))

    entry = boot.entry_file(tmp_path, boot.RELEASES[1])
    boot_commands.set_options(entry, "ro old")
    assert configured() != ["ro", "old"]
    (tmp_path / "efi/loader/loader.conf").write_text(f"timeout 3\ndefault {old}.conf\n")
    assert configured() == ["ro", "old"]
    for name, value in (("LoaderEntryDefault", f"{new}.conf"), ("LoaderEntryOneShot", f"{old}.conf")):
        (variables / f"{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f").write_bytes(bytes(4) + f"{value}\0".encode("utf-16-le"))
        assert (configured() == ["ro", "old"]) is (name == "LoaderEntryOneShot")


def test_an_entry_without_a_linux_kernel_is_none() -> None:
    assert _bls.parsed("/efi/loader/entries/windows.conf", "title Windows\nefi /EFI/Microsoft/bootmgfw.efi\n") is None
    assert _bls.parsed("/efi/loader/entries/x.conf", "# linux /no\n") is None


def test_what_grubby_prints_is_read(tmp_path: Path) -> None:
    text = (
        'index=0\nkernel="/boot/vmlinuz-6.1"\nargs="ro dyndbg="file a.c +p" crashkernel=1G-4G:192M,4G-64G:256M $tuned_params"\n'
        'root="/dev/mapper/rhel-root"\ninitrd="/boot/initramfs-6.1.img $tuned_initrd"\ntitle="Lab (6.1)"\nid="abc-6.1"\n'
        "index=1\nnon linux entry\n"
        'index=2\nkernel=/boot/vmlinuz-0-rescue-abc\nargs="ro"\ninitrd=/boot/initramfs-0-rescue-abc.img\ntitle=Rescue\n'
    )
    first, second = _grubby.parsed_info(text)
    assert first.arguments == ("ro", 'dyndbg="file a.c +p"', "crashkernel=1G-4G:192M,4G-64G:256M", "$tuned_params")
    assert (first.name, first.kernel, first.initrds, first.release) == ("abc-6.1", "/boot/vmlinuz-6.1", ("/boot/initramfs-6.1.img",), "6.1")
    assert (second.name, second.arguments, second.release) == ("Rescue", ("ro",), "0-rescue-abc")


def grubby_seen(*options: str, **more: t.Any) -> _grubby.Seen:
    entries = tuple(Entry(f"e{n}", f"/boot/vmlinuz-{n}", tuple(_cmdline.split(line))) for n, line in enumerate(options))
    values: dict[str, t.Any] = {"texts": {}, "kernelopts": None, "grubby": "/usr/sbin/grubby", "editenv": "/usr/bin/grub2-editenv"}
    return _grubby.Seen(entries, "e0", **{**values, **more})


def test_grubby_is_run_for_the_kernels_that_fall_short_and_for_no_other() -> None:
    plan = _grubby.make_plan(grubby_seen("ro iommu=pt quiet", "ro quiet", "ro"), ["iommu=pt"], ["quiet"])
    assert programs(plan) == [
        "grubby --update-kernel=/boot/vmlinuz-0 --remove-args=quiet",
        'grubby --update-kernel=/boot/vmlinuz-1 --remove-args=quiet --args="iommu=pt"',
        'grubby --update-kernel=/boot/vmlinuz-2 --args="iommu=pt"',
    ]
    assert not _grubby.make_plan(grubby_seen("ro iommu=pt", "iommu=pt"), ["iommu=pt"], ["quiet"]).changes


@pytest.mark.parametrize(
    ("line", "present", "absent", "words"),
    [
        ("ro quiet quiet=1", [], ["quiet"], "grubby would also take quiet=(not shown) away"),
        ("ro", ['dyndbg="file a.c +p"'], [], "grubby takes arguments apart at blanks, and dyndbg=(not shown) has quotes or blanks"),
        ('ro dyndbg="a b"', [], ['dyndbg="a b"'], "grubby takes arguments apart at blanks"),
    ],
)
def test_what_grubby_cannot_do_cleanly_is_refused(line: str, present: list[str], absent: list[str], words: str) -> None:
    plan = _grubby.make_plan(grubby_seen(line), present, absent)
    assert not plan.changes and words in str(plan.blockers[0]) and "grubby --update-kernel=/boot/vmlinuz-0" in str(plan.blockers[0])


def test_two_entries_of_one_kernel_that_need_different_things_are_not_mixed_up() -> None:
    entries = (Entry("a", "/boot/vmlinuz-1", ("intel_iommu=on,sm_on", "ro")), Entry("b", "/boot/vmlinuz-1", ("ro",)))
    seen = grubby_seen(texts={})
    plan = _grubby.make_plan(_grubby.Seen(entries, "a", {}, None, seen.grubby, seen.editenv), ["intel_iommu=on"], [])
    assert programs(plan) == ['grubby --update-kernel=/boot/vmlinuz-1 --args="intel_iommu=on"']


def test_a_host_without_entries_is_refused() -> None:
    assert "no entry" in str(_grubby.make_plan(grubby_seen(), ["iommu=pt"], []).blockers[0])


def test_kernels_to_come_get_the_arguments_too() -> None:
    texts = {
        _grubby.CMDLINE: "root=/dev/vda2 ro\n",
        _grub_files.MAIN: "GRUB_CMDLINE_LINUX='ro'\nGRUB_CMDLINE_LINUX_DEFAULT=\"iommu=nopt\"\n",
    }
    plan = _grubby.make_plan(grubby_seen("ro iommu=pt", texts=texts, kernelopts="ro"), ["iommu=pt"], [])
    after = files_after(texts, plan)
    assert after[_grubby.CMDLINE] == "root=/dev/vda2 ro iommu=pt\n"
    assert (
        after[_grub_files.MAIN] == "GRUB_CMDLINE_LINUX='ro'\nGRUB_CMDLINE_LINUX_DEFAULT=\"iommu=nopt iommu=pt\"\n"
    )  # where it has the last word
    assert programs(plan) == ['grub2-editenv /boot/grub2/grubenv set "kernelopts=ro iommu=pt"']


def test_a_file_that_is_empty_is_left_so_because_a_kernel_needs_more_than_our_arguments() -> None:
    plan = _grubby.make_plan(grubby_seen("ro", texts={_grubby.CMDLINE: "\n"}), ["iommu=pt"], [])
    assert [change.target for change in plan.changes] == ["entry /boot/vmlinuz-0"]


def test_a_grub_file_that_only_a_shell_works_out_is_a_warning_once_all_entries_are_right() -> None:
    texts = {_grub_files.MAIN: 'GRUB_CMDLINE_LINUX="$(x)"\n'}
    assert _grubby.make_plan(grubby_seen("ro", texts=texts), ["iommu=pt"], []).blockers
    plan = _grubby.make_plan(grubby_seen("ro iommu=pt", texts=texts), ["iommu=pt"], [])
    assert not plan.blockers and "only a shell" in plan.warnings[0]


@pytest.mark.parametrize(
    ("saved", "expected"), [(None, "b-6.10"), ("a-6.9", "a-6.9"), ("Old", "a-6.9"), ("1", "a-6.9"), ("7", None), ("gone", None)]
)
def test_grubs_environment_names_the_next_entry(saved: str | None, expected: str | None) -> None:
    texts = {"a-6.9": "title Old\nlinux /vmlinuz-6.9\n", "b-6.10": "title New\nlinux /vmlinuz-6.10\n"}
    found = [fragment for name, text in texts.items() for fragment in [_bls.parsed(f"/x/{name}.conf", text)] if fragment]
    found.sort(key=_bls.Fragment.by_name, reverse=True)
    assert _bls.grub_default(found, saved) == expected


def test_options_of_grubs_environment_are_read_into_the_entries_that_name_them(tmp_path: Path) -> None:
    boot.grubby(tmp_path, "quiet intel_iommu=on", kernelopts=True)
    assert _bootloader.configured(Host(str(tmp_path))) == [*boot.ROOT.split(), "quiet", "intel_iommu=on"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('GRUB_CMDLINE_LINUX=""\n', 'GRUB_CMDLINE_LINUX="a=\\"b c\\""\n'),
        ("GRUB_CMDLINE_LINUX=\n", 'GRUB_CMDLINE_LINUX="a=\\"b c\\""\n'),
        ("GRUB_CMDLINE_LINUX=x # why\n", 'GRUB_CMDLINE_LINUX="x a=\\"b c\\"" # why\n'),
        ("GRUB_CMDLINE_LINUX='x'\n", "GRUB_CMDLINE_LINUX='x a=\"b c\"'\n"),
        ("# GRUB_CMDLINE_LINUX=x", '# GRUB_CMDLINE_LINUX=x\nGRUB_CMDLINE_LINUX="a=\\"b c\\""\n'),
        ("GRUB_CMDLINE_LINUX=x\nGRUB_CMDLINE_LINUX=y\n", 'GRUB_CMDLINE_LINUX=x\nGRUB_CMDLINE_LINUX="y a=\\"b c\\""\n'),
    ],
)
def test_an_argument_is_appended_to_the_last_assignment_however_it_is_quoted(text: str, expected: str) -> None:
    made = _grub_files.appended(text, "GRUB_CMDLINE_LINUX", ['a="b c"'])
    assert made == expected
    assert _grub_files.line_of({_grub_files.MAIN: made})[-1] == 'a="b c"'


@pytest.mark.parametrize("word", ["single", "recovery"])
def test_a_recovery_entry_of_grub_is_not_asked_for_arguments(word: str) -> None:
    text = (
        f"\tlinux /vmlinuz-6.1 root=/dev/vda1 ro quiet\n\tinitrd /initrd.img-6.1\n}}\n\tlinux /vmlinuz-6.1 root=/dev/vda1 ro {word}\n}}\n"
    )
    assert [entry.arguments for entry in _grub.entries(text)] == [("root=/dev/vda1", "ro", "quiet")]
