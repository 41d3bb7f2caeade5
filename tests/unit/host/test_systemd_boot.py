# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of a host that boots with systemd-boot, and what kernel-install is asked for."""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _bls, _systemd_boot
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._boot_provider import ProgramChange
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import boot

RELEASE = "6.1.0"


def loader(root: Path) -> _systemd_boot.SystemdBoot:
    host = Host(str(root))
    return _systemd_boot.SystemdBoot(host, Commands(host))


def entry(
    root: Path, name: str = f"id-{RELEASE}", text: str = f"version {RELEASE}\nlinux /id/linux\ninitrd /id/initrd\noptions ro\n"
) -> None:
    boot.write(root, f"efi/loader/entries/{name}.conf", text)


@pytest.mark.parametrize("program", ["usr/bin/kernel-install", "bin/kernel-install", "usr/sbin/kernel-install"])
def test_kernel_install_is_run_from_where_it_is(tmp_path: Path, program: str) -> None:
    boot.write(tmp_path, program, "")
    assert loader(tmp_path).read().program == f"/{program}"


def test_a_host_without_kernel_install_is_told_where_it_belongs(tmp_path: Path) -> None:
    assert loader(tmp_path).read().program == "/usr/bin/kernel-install"


@pytest.mark.parametrize(
    "image",
    [
        f"lib/modules/{RELEASE}/vmlinuz",
        f"usr/lib/modules/{RELEASE}/vmlinuz",
        f"boot/vmlinuz-{RELEASE}",
        f"lib/modules/{RELEASE}/vmlinux",
        f"boot/vmlinux-{RELEASE}",
    ],
)
def test_a_kernel_s_image_is_found_where_distributions_put_it(tmp_path: Path, image: str) -> None:
    entry(tmp_path)
    boot.write(tmp_path, image, "")
    assert loader(tmp_path).read().images == {RELEASE: f"/{image}"}


def test_an_entry_is_read_with_its_files_on_the_partition_that_it_is_on(tmp_path: Path) -> None:
    entry(tmp_path, text=f"version {RELEASE}\nlinux /id/linux\ninitrd /id/initrd /id/missing\noptions ro\n")
    entry(tmp_path, "by-hand", "linux /vmlinuz-5.15\noptions ro quiet\n")
    boot.write(tmp_path, "efi/id/linux", "12345")
    boot.write(tmp_path, "efi/id/initrd", "123")
    boot.write(tmp_path, "efi/vmlinuz-5.15", "1")
    menu = loader(tmp_path)
    seen = menu.read()
    found = {one.name: one for one in menu.entries(seen)}
    assert (found[f"id-{RELEASE}"].kernel, found[f"id-{RELEASE}"].initrds) == (
        "/efi/id/linux",
        ("/efi/id/initrd", "/efi/id/missing"),
    )
    assert [(one.release, one.arguments) for one in found.values()] == [(RELEASE, ("ro",)), ("5.15", ("ro", "quiet"))]
    assert menu.default(seen) == found[f"id-{RELEASE}"]
    assert menu.room(seen) == ("/efi", (4 << 20) + 8)  # the largest entry, and four more MiB


def test_a_host_without_entries_has_no_room_to_ask_for_but_a_little(tmp_path: Path) -> None:
    menu = loader(tmp_path)
    seen = menu.read()
    assert (menu.entries(seen), menu.default(seen), menu.room(seen)) == ([], None, ("/boot", 4 << 20))


def test_only_unified_images_are_told_of(tmp_path: Path) -> None:
    for name in ("lab-6.1.efi", "notes.txt"):
        boot.write(tmp_path, f"efi/EFI/Linux/{name}", "")
    assert loader(tmp_path).read().unified == ("lab-6.1.efi",)


# The plan


def seen(options: str | None, cmdline: str | None, **more: t.Any) -> _systemd_boot.Seen:
    text = f"version {RELEASE}\nlinux /id/linux\noptions {options}\n"
    fragment = _bls.parsed(f"/efi/loader/entries/id-{RELEASE}.conf", text) if options is not None else None
    values: dict[str, t.Any] = {"root": "/efi", "fragments": (fragment,) if fragment else (), "default": f"id-{RELEASE}", "unified": ()}
    values |= {"images": {RELEASE: "/lib/modules/image"}, "sizes": (), "program": "/usr/bin/kernel-install", "vendor": None}
    return _systemd_boot.Seen(**{**values, "cmdline": cmdline, **more})


def test_what_is_made_says_which_command_does_it_and_what_it_changes() -> None:
    plan = _systemd_boot.make_plan(seen("ro systemd.machine_id=id initrd=\\x token=secret", "ro token=secret\n"), ["iommu=pt"], [])
    file, program = plan.changes
    assert (file.target, file.action, file.before, file.after) == (
        "file /etc/kernel/cmdline",
        "edit",
        "ro token=secret\n",
        "ro token=secret iommu=pt\n",
    )
    assert isinstance(program, ProgramChange)
    assert program.command == ("/usr/bin/kernel-install", "add", RELEASE, "/lib/modules/image")
    # What kernel-install and the boot loader add stays at the end, and no value is shown that may be a secret.
    assert program.after.startswith("ro token=(not shown) iommu=pt ") and "secret" not in f"{program.before}{program.after}"
    assert (program.target, program.action) == (f"entry id-{RELEASE}", "install")


def test_without_a_file_one_is_written_only_with_an_entry_to_make() -> None:
    made = _systemd_boot.make_plan(seen("ro", None), ["iommu=pt"], [])
    assert [(change.target, change.action, change.before) for change in made.changes] == [
        ("file /etc/kernel/cmdline", "write", None),
        (f"entry id-{RELEASE}", "install", "ro"),
    ]
    assert not _systemd_boot.make_plan(seen("ro iommu=pt", None), ["iommu=pt"], []).changes
    assert not _systemd_boot.make_plan(seen("ro iommu=pt", None, vendor="ro iommu=pt\n"), ["iommu=pt"], []).changes


def test_a_vendor_s_file_counts_only_where_the_site_has_none() -> None:
    plan = _systemd_boot.make_plan(seen("ro site", "ro site\n", vendor="ro vendor\n"), ["iommu=pt"], [])
    assert plan.changes[0].after == "ro site iommu=pt\n" and not plan.blockers
    named = _systemd_boot.make_plan(seen("ro amd_iommu=off", None, vendor="ro amd_iommu=off\n"), ["intel_iommu=on", "amd_iommu=on"], [])
    assert not named.changes and "/usr/lib/kernel/cmdline line 1" in named.blockers[0].problem


@pytest.mark.parametrize(("default", "expected"), [(f"id-{RELEASE}", "first"), ("id-6.0", "second"), ("gone", "first")])
def test_the_entry_of_the_next_boot_gives_the_arguments_or_the_first_one(default: str, expected: str) -> None:
    one = seen("ro first", None, default=default, images={RELEASE: "/lib/modules/image", "6.0": "/lib/modules/older"})
    other = _bls.parsed("/efi/loader/entries/id-6.0.conf", "version 6.0\nlinux /x\noptions ro second\n")
    plan = _systemd_boot.make_plan(dataclasses.replace(one, fragments=(*one.fragments, other)), ["iommu=pt"], [])
    assert plan.changes[0].after == f"ro {expected} iommu=pt\n" and not plan.blockers
    alone = _systemd_boot.make_plan(seen("ro first", None, default=None), ["iommu=pt"], [])
    assert alone.changes[0].after == "ro first iommu=pt\n"


def test_an_argument_that_the_file_has_itself_is_not_taken_for_an_addition() -> None:
    plan = _systemd_boot.make_plan(seen("ro systemd.machine_id=id", "ro systemd.machine_id=id\n"), ["iommu=pt"], [])
    assert plan.changes[1].after.count("systemd.machine_id") == 1 and not plan.blockers


@pytest.mark.parametrize("name", ["arch", "id-6.1", f"id{RELEASE}"])
def test_an_entry_of_another_name_is_not_kernel_install_s(name: str) -> None:
    by_hand = _bls.parsed(f"/efi/loader/entries/{name}.conf", f"version {RELEASE}\nlinux /x\noptions ro\n")
    plan = _systemd_boot.make_plan(seen("ro", "ro\n", fragments=(by_hand,), default=name), ["iommu=pt"], [])
    assert not plan.changes and "was not made by kernel-install" in plan.blockers[0].problem


def test_nothing_asked_for_is_nothing_to_do_even_without_entries() -> None:
    plan = _systemd_boot.make_plan(seen(None, None), [], [])
    assert not plan.changes and not plan.blockers
