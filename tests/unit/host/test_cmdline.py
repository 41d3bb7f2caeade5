# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _boot_provider, _bootloader, _cmdline, _grub, _grub_files
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_provider import ProgramChange
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import boot, tree

DROP_IN = "etc/default/grub.d/60-gpufleet.cfg"

keys = st.sampled_from(["ro", "quiet", "console", "iommu", "intel_iommu", "xintel_iommu", "pci", "foo.bar", "vfio-pci.ids"])
values = st.sampled_from([None, "on", "off", "pt", "tty0", "ttyS0,115200", '"a b"', "on,sm_on", "10de:2236,10de:1aef"])
tokens = st.builds(lambda key, value: key if value is None else f"{key}={value}", keys, values)
lines = st.lists(tokens, max_size=8)
wishes = st.lists(st.sampled_from(["intel_iommu=on", "iommu=pt", "console=ttyS1", "nomodeset", "pci=realloc"]), max_size=3, unique=True)


@pytest.mark.parametrize(
    ("line", "wanted", "expected"),
    [
        ("intel_iommu=on", "intel_iommu=on", True),
        ("intel_iommu=on,sm_on", "intel_iommu=on", True),
        ("intel_iommu=sm_on", "intel_iommu=on", False),
        ("xintel_iommu=on", "intel_iommu=on", False),
        ("intel_iommu=on intel_iommu=off", "intel_iommu=on", False),
        ("intel_iommu=off quiet intel_iommu=on", "intel_iommu=on", True),
        ("intel-iommu=on", "intel_iommu=on", True),
        ("intel_iommu=on,off", "intel_iommu=on", False),
        ("console=tty0 console=ttyS0", "console=tty0", True),
        ("quiet", "quiet", True),
        ("quiet=1", "quiet", False),
        ("", "quiet", False),
        ('ro "dyndbg=file a.c +p"', 'dyndbg="file a.c +p"', True),  # as GRUB hands it to the kernel
    ],
)
def test_arguments_are_compared_as_parsed(line: str, wanted: str, expected: bool) -> None:
    assert _cmdline.satisfied(_cmdline.split(line), wanted) is expected


def test_quotes_keep_blanks_together() -> None:
    assert _cmdline.split('ro dyndbg="file a.c +p" quiet') == ["ro", 'dyndbg="file a.c +p"', "quiet"]


@pytest.mark.parametrize(
    "token", ["a b", "", "=x", 'a="b', "a=$(reboot)", "a=`reboot`", "a='b'", "a=b\n", "a=b;reboot", "a=b|c", "a=\u00e9"]
)
def test_what_is_no_single_argument_is_refused(token: str) -> None:
    assert _cmdline.problem(token)


@given(lines, wishes)
def test_what_is_added_does_what_is_wanted_and_adding_again_adds_nothing(line: list[str], wanted: list[str]) -> None:
    own = _cmdline.extended([], wanted, line)
    assert all(_cmdline.satisfied([*line, *own], token) for token in wanted)
    assert set(own) <= set(wanted)
    assert _cmdline.extended(own, wanted, line) == own


@given(lines, st.lists(tokens, max_size=2))
def test_removing_keeps_every_other_argument_in_its_place(line: list[str], unwanted: list[str]) -> None:
    left = _cmdline.split(_cmdline.without(" ".join(line), unwanted))
    assert left == [token for token in line if token not in unwanted]


@given(st.text(alphabet=' \tab"=', max_size=20), st.lists(st.sampled_from(["a", "b", "a=b", "ab"]), max_size=2))
def test_removing_leaves_the_spelling_of_the_rest(line: str, unwanted: list[str]) -> None:
    left = _cmdline.without(line, unwanted)
    if not set(unwanted) & set(_cmdline.split(line)):
        assert left == line
    if line[:1] == " " and _cmdline.split(left):
        assert left[:1] == " "  # what stands before may be put right in front of it


@pytest.mark.parametrize(
    ("line", "wanted", "expected"),
    [
        ("iommu=off", ["intel_iommu=on"], ["iommu=off"]),
        ("iommu=pt,off", ["intel_iommu=on"], ["iommu=pt,off"]),
        ("amd_iommu=off", ["iommu=pt"], ["amd_iommu=off"]),
        ("amd_iommu=off", ["intel_iommu=on"], []),
        ("intel_iommu=off", ["intel_iommu=on"], []),  # the last word wins
        ("iommu=off", ["iommu=off"], []),
        ("iommu=off", ["quiet"], []),
    ],
)
def test_words_that_nothing_takes_back(line: str, wanted: list[str], expected: list[str]) -> None:
    assert _cmdline.undoing(_cmdline.split(line), wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["intel_iommu=on", "intel_iommu=on,sm_on"], []),
        (["intel_iommu=on,sm_on", "intel_iommu=on"], []),
        (["console=tty0", "console=ttyS0"], []),
        (["intel_iommu=on", "intel_iommu=sm_on"], ["intel_iommu=on"]),
    ],
)
def test_wishes_that_contradict_each_other_are_found(wanted: list[str], expected: list[str]) -> None:
    assert _cmdline.contradictions(wanted) == expected


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "host"
    tree.build(path, tree.HostSpec(cmdline='ro_key="a b" intel_iommu=off', cmdline_default="quiet console=tty0 console=ttyS0"))
    return path


@given(line=lines, default=lines, wanted=wishes)
def test_grub_files_give_every_other_argument_its_value_and_order(line: list[str], default: list[str], wanted: list[str]) -> None:
    """Read by a real shell, the files say what they said before, followed by what was added."""
    pairs = zip(_grub_files.VARIABLES, (line, default))
    before = {_grub.MAIN: "".join(f"{name}={quoted(words)}\n" for name, words in pairs)}
    plan = _grub.make_plan(_grub.Files(before, None), wanted, [])
    if any(blocker.target.startswith("argument") for blocker in plan.blockers):
        assert _cmdline.undoing([*line, *default], wanted)
        return
    assert not plan.blockers
    after = dict(before)
    for change in plan.changes:
        if not isinstance(change, ProgramChange):
            after[change.target.removeprefix("file ")] = change.after
    made = _grub.line_of(after)
    assert made[: len(line) + len(default)] == [*line, *default]
    assert all(_cmdline.satisfied(made, token) for token in wanted)
    again = _grub.make_plan(_grub.Files(after, f"\tlinux /boot/vmlinuz-1 ro {' '.join(made)}\n"), wanted, [])
    assert not again.changes and not again.blockers


def grub(root: Path) -> _grub.Grub:
    host = Host(str(root))
    return _grub.Grub(host, Commands(host))


def quoted(words: list[str]) -> str:
    text = " ".join(words).replace('"', '\\"')
    return f'"{text}"'


def test_our_reading_of_grubs_files_is_the_shells(root: Path) -> None:
    (root / "etc/default/grub.d/50-cloud.cfg").write_text(
        'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS1"  # a comment\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT} $GRUB_CMDLINE_LINUX x=\\"1 2\\""\n'
        "GRUB_TIMEOUT=`echo 1`\nexport GRUB_CMDLINE_LINUX=plain\n#GRUB_CMDLINE_LINUX=no\n"
    )
    ours = _grub.line_of(grub(root).read().texts)
    assert " ".join(ours) == tree.grub_arguments(root)
    assert ours[0] == "plain"


@pytest.mark.parametrize(
    "line",
    [
        'GRUB_CMDLINE_LINUX="$(cat /x)"',
        'GRUB_CMDLINE_LINUX="`cat /x`"',
        "if true; then GRUB_CMDLINE_LINUX=a; fi",
        'GRUB_CMDLINE_LINUX="$OTHER"',
        'GRUB_CMDLINE_LINUX+=" a"',  # the shell that reads it may not know +=
    ],
)
def test_what_only_a_shell_can_work_out_is_refused_by_line(root: Path, run_module, line: str) -> None:
    (root / "etc/default/grub.d/50-x.cfg").write_text(f"# first\n{line}\n")
    result = run_module("kernel_cmdline", {"host_root": str(root), "present": ["intel_iommu=on"]})
    assert result["failed"]
    assert "/etc/default/grub.d/50-x.cfg line 2" in result["msg"]
    assert not (root / DROP_IN).exists()


def test_from_wish_to_running_kernel(root: Path, run_module) -> None:
    arguments = {"host_root": str(root), "present": ["intel_iommu=on", "iommu=pt"]}
    before = {path: path.read_bytes() for path in (root / "etc").rglob("*") if path.is_file()}
    checked = run_module("kernel_cmdline", arguments, check=True)
    assert {path: path.read_bytes() for path in (root / "etc").rglob("*") if path.is_file()} == before
    done = run_module("kernel_cmdline", arguments)
    assert not done["failed"]
    assert done["changes"] == checked["changes"]
    assert [(change["target"], change["action"]) for change in done["changes"]] == [(f"file /{DROP_IN}", "write")]
    assert done["reboot_required"] and done["pending"] == ["update-grub"]
    again = run_module("kernel_cmdline", arguments)
    assert not again["changed"]
    assert again["reboot_required"]  # until it was rebooted
    tree.reboot(root)
    running = (root / "proc/cmdline").read_text()
    assert (
        running.split("ro ", 1)[1].split("\n")[0] == 'ro_key="a b" intel_iommu=off quiet console=tty0 console=ttyS0 intel_iommu=on iommu=pt'
    )
    after = run_module("kernel_cmdline", arguments)
    assert (after["changed"], after["reboot_required"], after["pending"]) == (False, False, [])


def test_a_running_argument_needs_neither_file_nor_reboot(tmp_path: Path, run_module) -> None:
    tree.build(tmp_path / "h", tree.LAB_HOSTS["gpu-vgpu-0"])
    result = run_module("kernel_cmdline", {"host_root": str(tmp_path / "h"), "present": ["intel_iommu=on"]})
    assert (result["changed"], result["reboot_required"]) == (False, False)


def test_absent_removes_the_word_where_it_stands_and_nothing_else(root: Path, run_module) -> None:
    main = root / "etc/default/grub"
    before = main.read_text()
    result = run_module("kernel_cmdline", {"host_root": str(root), "absent": ["intel_iommu=off", "console=tty0"]})
    assert not result["failed"], result
    assert main.read_text() == before.replace(" intel_iommu=off", "").replace("console=tty0 ", "")
    assert result["reboot_required"]
    assert not run_module("kernel_cmdline", {"host_root": str(root), "absent": ["intel_iommu=off", "console=tty0"]})["changed"]


def test_a_word_that_nothing_takes_back_is_named_with_file_and_line(root: Path, run_module) -> None:
    main = root / "etc/default/grub"
    main.write_text(main.read_text().replace("quiet", "quiet iommu=off"))
    arguments = {"host_root": str(root), "present": ["intel_iommu=on"]}
    result = run_module("kernel_cmdline", arguments)
    assert result["failed"]
    number = next(i for i, line in enumerate(main.read_text().splitlines(), 1) if "iommu=off" in line and "DEFAULT" in line)
    assert f"/etc/default/grub line {number}" in result["msg"]
    assert not (root / DROP_IN).exists()
    mended = run_module("kernel_cmdline", {**arguments, "absent": ["iommu=off"]})
    assert not mended["failed"]
    tree.reboot(root)
    assert tree.iommu_is_on(tree.HostSpec(), (root / "proc/cmdline").read_text())


def test_a_later_file_that_undoes_it_is_a_failure(root: Path, run_module) -> None:
    (root / "etc/default/grub.d/99-last.cfg").write_text("GRUB_CMDLINE_LINUX_DEFAULT=quiet\n")
    result = run_module("kernel_cmdline", {"host_root": str(root), "present": ["intel_iommu=on"]})
    assert result["failed"]
    assert "undoes it" in result["msg"]
    assert not (root / DROP_IN).exists()


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"run/ostree-booted": ""}, "ostree", "Run: rpm-ostree kargs --append-if-missing=intel_iommu=on --delete-if-present=quiet"),
        ({"run/ostree-booted": "", "usr/sbin/grubby": ""}, "ostree", "rpm-ostree kargs"),
        ({"run/ostree-booted": "", "usr/bin/bootc": ""}, "bootc", 'kargs = ["intel_iommu=on"]'),
        ({"etc/os-release": "ID=rhcos\n"}, "openshift", '  kernelArguments:\n    - "intel_iommu=on"\n'),
        ({"etc/os-release": 'ID="rhel"\nOPENSHIFT_VERSION="4.19"\n'}, "openshift", "kind: MachineConfig"),
        ({"etc/kernel/proxmox-boot-uuids": ""}, "proxmox", "proxmox-boot-tool refresh"),
        ({"etc/default/grub": None}, "unknown", "intel_iommu=on"),
    ],
)
def test_other_boot_loaders_are_refused_with_what_to_do(
    root: Path, run_module, files: dict[str, str | None], kind: str, words: str
) -> None:
    for name, text in files.items():
        if text is None:
            (root / name).unlink()
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    assert _bootloader.provider(Host(str(root))) == kind
    before = boot.snapshot(root)
    arguments = {"host_root": str(root), "present": ["intel_iommu=on"], "absent": ["quiet"]}
    for provider in ("auto",) if kind == "unknown" else ("auto", "grub", "grubby", "systemd_boot"):
        result = run_module("kernel_cmdline", {**arguments, "provider": provider})
        assert result["failed"] and result["provider"] == kind
        assert words in result["msg"]
    assert boot.snapshot(root) == before
    (root / "proc/cmdline").write_text("ro intel_iommu=on\n")
    assert not run_module("kernel_cmdline", arguments)["failed"]  # it is on already, whoever did that


@pytest.mark.parametrize(
    "arguments",
    [
        {"present": ["a b"]},
        {"present": ["iommu=pt"], "absent": ["iommu=pt"]},
        {"present": ["intel_iommu=on", "intel_iommu=sm_on"]},
        {"host_root": "/no/such/root"},
    ],
)
def test_bad_input_is_refused(run_module, arguments) -> None:
    result = run_module("kernel_cmdline", arguments)
    assert result["failed"]
    assert "Traceback" not in result["msg"]


def test_a_host_that_is_asked_for_nothing_is_left_alone_whatever_its_files_say(root: Path, run_module) -> None:
    (root / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX="$(cat /x)"\n')
    (root / "boot/grub/grub.cfg").write_text("blscfg\n")
    result = run_module("kernel_cmdline", {"host_root": str(root)})
    assert (result["failed"], result["changed"], result["reboot_required"], result["pending"]) == (False, False, False, [])
    assert not _grub.make_plan(grub(root).read(), [], []).changes


def test_files_that_only_a_shell_works_out_do_for_who_set_the_arguments_himself(root: Path, run_module) -> None:
    (root / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX="$(cat /x)"\n')
    (root / "boot/grub/grub.cfg").write_text("\tlinux\t/boot/vmlinuz-1 ro intel_iommu=on\n")
    result = run_module("kernel_cmdline", {"host_root": str(root), "present": ["intel_iommu=on"]})
    assert (result["failed"], result["changed"], result["configured"]) == (False, False, None)
    assert "only a shell" in json.dumps(result["warnings"])


@pytest.mark.parametrize(
    "text",
    [
        'if [ -e /x ]; then\n  GRUB_CMDLINE_LINUX="a"\nfi\n',
        'for i in 1 2; do\nGRUB_CMDLINE_LINUX="a"\ndone\n',
        '[ -e /x ] && {\nGRUB_CMDLINE_LINUX="a"\n}\n',
    ],
)
def test_an_assignment_that_may_not_be_run_is_not_taken_for_one_that_is(text: str) -> None:
    with pytest.raises(_grub.NotComputable, match="line 2"):
        _grub.line_of({_grub.MAIN: text})


def test_an_assignment_after_a_condition_counts() -> None:
    text = 'if [ -e /x ]; then\n  OTHER=1\nfi\nif true; then OTHER=2; fi\nGRUB_CMDLINE_LINUX="a"\n'
    assert _grub.line_of({_grub.MAIN: text}) == ["a"]


def test_a_quoted_argument_can_be_removed(root: Path, run_module) -> None:
    result = run_module("kernel_cmdline", {"host_root": str(root), "absent": ['ro_key="a b"']})
    assert not result["failed"], result
    assert 'GRUB_CMDLINE_LINUX="intel_iommu=off"\n' in (root / "etc/default/grub").read_text()


def test_entries_of_other_systems_do_not_count() -> None:
    own = "### BEGIN /etc/grub.d/10_linux ###\n\tlinux\t/boot/vmlinuz-1 ro intel_iommu=on\n### END /etc/grub.d/10_linux ###\n"
    others = "### BEGIN /etc/grub.d/20_memtest86+ ###\n\tlinux16\t/boot/memtest86+.bin\n### END /etc/grub.d/20_memtest86+ ###\n"
    assert _grub.generated_has(_grub.Files({}, own + others), ["intel_iommu=on"], [])
    assert not _grub.generated_has(_grub.Files({}, own.replace("=on", "=off") + others), ["intel_iommu=on"], [])
    assert not _grub.generated_has(_grub.Files({}, own.replace("ro ", "ro iommu=off ")), ["intel_iommu=on"], [])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({_grub.MAIN: "GRUB_DEFAULT=0\n"}, "6.1"),
        ({_grub.MAIN: ""}, "6.1"),
        ({_grub.MAIN: "GRUB_DEFAULT=0\n", "/etc/default/grub.d/x.cfg": 'GRUB_DEFAULT="saved"\n'}, None),
    ],
)
def test_the_next_kernel_is_only_named_where_it_can_be_told(root: Path, texts: dict[str, str], expected: str | None) -> None:
    entry = grub(root).default(_grub.Files(texts, "linux /boot/vmlinuz-6.1 ro\nlinux /boot/vmlinuz-5.9 ro\n"))
    assert (entry.release if entry else None) == expected


def test_another_kernel_with_the_next_boot_is_said(root: Path, run_module) -> None:
    assert run_module("kernel_cmdline", {"host_root": str(root)})["kernel_change"] is None
    config = root / "boot/grub/grub.cfg"
    config.write_text(config.read_text().replace(tree.KERNEL, "5.15.0-999-generic"))
    assert run_module("kernel_cmdline", {"host_root": str(root)})["kernel_change"] == "5.15.0-999-generic"


@pytest.mark.parametrize("kernel", ["/boot/vmlinuz-1", "/vmlinuz-1", "/@/boot/vmlinuz-1"])
def test_the_files_of_the_first_entry_must_be_there(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-1").touch()
    (tmp_path / "boot/ucode.img").touch()
    loader = grub(tmp_path)
    files = _grub.Files({}, f"\tlinux\t{kernel} ro\n\tinitrd\t/boot/ucode.img /boot/initrd.img-1\n")
    assert [problem.target for problem in _boot_provider.missing_files(loader, files)] == ["file /boot/initrd.img-1"]
    (tmp_path / "boot/initrd.img-1").touch()
    assert not _boot_provider.missing_files(loader, files)
    assert _boot_provider.missing_files(loader, _grub.Files({}, ""))


def test_a_reboot_is_due_while_the_running_kernel_has_a_word_that_nothing_takes_back(root: Path, run_module) -> None:
    (root / "proc/cmdline").write_text("ro iommu=off intel_iommu=on\n")
    assert run_module("kernel_cmdline", {"host_root": str(root), "present": ["intel_iommu=on"]})["reboot_required"]


def test_systemd_boot_is_recognised_beside_grubs_files(root: Path) -> None:
    variable = root / "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    for name, kind in (("GRUB 2.12", "grub"), ("systemd-boot 252", "systemd_boot")):
        variable.write_bytes(bytes([6, 0, 0, 0]) + f"{name}\0".encode("utf-16-le"))
        assert _bootloader.provider(Host(str(root))) == kind
    (root / "usr/sbin/grubby").touch()  # it is there, but does not manage what boots this host
    assert _bootloader.provider(Host(str(root))) == "systemd_boot"


def test_files_of_grub_without_debians_generator_are_not_written(root: Path) -> None:
    (root / "usr/sbin/update-grub").unlink()
    assert _bootloader.provider(Host(str(root))) == "unknown"


def test_of_a_key_that_may_repeat_every_argument_counts_and_of_another_one_the_last() -> None:
    repeat = (
        "blacklist console earlyprintk initcall_blacklist modprobe.blacklist module_blacklist pci rd.driver.blacklist rd.luks.uuid "
        "vfio_pci.ids vfio-pci.ids"
    )
    for key in repeat.split():
        assert _cmdline.satisfied([f"{key}=a", f"{key}=b"], f"{key}=a"), key
    assert not _cmdline.satisfied(["intel_iommu=on", "intel_iommu=off"], "intel_iommu=on")


def test_an_off_that_stays_spoils_what_rests_on_it() -> None:
    spoilt = {
        "iommu=off": ["iommu=pt", "intel_iommu=on", "amd_iommu=on"],
        "amd_iommu=off": ["iommu=pt", "amd_iommu=on"],
        "intel_iommu=off": [],
    }
    for word, wanted in spoilt.items():
        for argument in ("iommu=pt", "intel_iommu=on", "amd_iommu=on", "quiet"):
            assert _cmdline.undoing([word], [argument]) == ([word] if argument in wanted else []), (word, argument)


@pytest.mark.parametrize(
    ("token", "values"),
    [("a=x,bx", ["x", "bx"]), ('"a=b,c"', ["b", "c"]), ('a="b,c"', ["b", "c"]), ("a=", [""]), ("a", [])],
)
def test_values_are_read_without_their_quotes(token: str, values: list[str]) -> None:
    assert _cmdline.values_of(token) == values


@pytest.mark.parametrize(("stands", "asked"), [("a=b", '"a=b"'), ('"a=b"', "a=b"), ('a="b c"', '"a=b c"'), ("a=b", "a=b")])
def test_an_argument_is_found_however_it_is_quoted(stands: str, asked: str) -> None:
    assert _cmdline.holds(["quiet", stands], [asked])
    assert not _cmdline.holds(["quiet", f"{stands}c"], [asked])


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("quiet", "quiet"),
        ("intel_iommu=on", "intel_iommu=on"),
        ("vfio-pci.ids=10de:2236", "vfio-pci.ids=10de:2236"),
        ("token=secret=x", "token=(not shown)"),
        ("ds=nocloud;s=http://u:p@h", "ds=(not shown)"),
    ],
)
def test_a_value_is_shown_only_where_the_key_is_known_to_be_harmless(argument: str, shown: str) -> None:
    assert _cmdline.shown(argument) == shown


@pytest.mark.parametrize(
    ("token", "words"),
    [('a="b c"', None), ("a b", "not one boot argument"), ('a="b', "not one boot argument"), ("", "not one boot argument")],
)
def test_what_is_not_one_argument_is_refused(token: str, words: str | None) -> None:
    found = _cmdline.problem(token)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize(
    ("token", "wanted", "expected"),
    [
        ("a=x", "b=x", False),
        ("a", "a", True),
        ("a=x", "a", False),
        ("a=x,y", "a=y", True),
        ("a=off", "a=on", False),
        ("a=on,off", "a=on", False),
        ("a=off", "a=off", True),
    ],
)
def test_an_argument_covers_what_it_says_at_least(token: str, wanted: str, expected: bool) -> None:
    assert _cmdline.covers(token, wanted) is expected
