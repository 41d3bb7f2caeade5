# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _cmdline, _initramfs, _modprobe, _modprobe_wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._modprobe import Directive
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._modprobe_wish import Wish

names = st.sampled_from(["vfio-pci", "vfio_pci", "nouveau", "nova_core", "kvm-intel", "mdev"])
values = st.sampled_from(["a=1", "b=2 c", "nested=1"])
wishes = st.builds(
    Wish,
    st.lists(names, max_size=3).map(tuple),
    st.lists(names, max_size=3).map(tuple),
    st.lists(st.tuples(names, values), max_size=2).map(tuple),
)


@given(wishes)
def test_what_we_write_says_what_was_wished_when_it_is_read(wish: Wish) -> None:
    lines = _modprobe.directives(_modprobe.OWN, _modprobe_wish.own_text(wish) or "")
    assert {line.module for line in lines if line.verb == "blacklist"} == set(wish.block)
    assert {(line.module, line.rest) for line in lines if line.verb == "options"} == set(wish.options)
    assert {_modprobe.canonical(line.module) for line in lines} == wish.concerns
    assert (_modprobe_wish.own_text(wish) is None) == (not wish.block and not wish.options)


@given(wishes)
def test_a_wish_does_not_contradict_itself_once_it_is_allowed(wish: Wish) -> None:
    lines = _modprobe.directives(_modprobe.OWN, _modprobe_wish.own_text(wish) or "")
    blacklists = [line for line in lines if line.verb == "blacklist"]
    if not _modprobe_wish.problems(wish):
        assert not _modprobe_wish.contradicting(wish, blacklists)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blacklist nouveau\n", [Directive("f", 1, "blacklist", "nouveau", "")]),
        ("# blacklist nouveau\n\n  options  kvm  a=1  b=2 \n", [Directive("f", 3, "options", "kvm", "a=1  b=2")]),
        ("options kvm \\\n a=1\nblacklist x", [Directive("f", 1, "options", "kvm", "a=1"), Directive("f", 3, "blacklist", "x", "")]),
        ("install vfio-pci /bin/false", [Directive("f", 1, "install", "vfio-pci", "/bin/false")]),
        ("blacklist\n", []),
    ],
)
def test_lines_of_modprobes_files(text: str, expected: list[Directive]) -> None:
    assert _modprobe.directives("f", text) == expected


WISH = Wish(load=("vfio-pci",), block=("nouveau",), options=(("kvm_intel", "nested=1"),))


@pytest.mark.parametrize(
    ("line", "contradicts"),
    [
        ("blacklist vfio-pci", True),
        ("blacklist vfio_pci", True),
        ("blacklist nouveau", False),
        ("blacklist vfio-pci-core", False),
        ("install vfio-pci /bin/false", True),
        ("install vfio_pci /usr/bin/true", True),
        ("install vfio_pci :", True),
        ("install vfio-pci /sbin/modprobe --ignore-install vfio-pci", False),
        ("options kvm-intel nested=0", True),
        ("options kvm-intel nested=1 ept=1", False),
        ("options kvm-intel ept=0", False),
        ("options vfio-pci ids=10de:2236", False),
        ("softdep nouveau pre: vfio-pci", False),
    ],
)
def test_lines_of_others_that_contradict(line: str, contradicts: bool) -> None:
    found = _modprobe_wish.contradicting(WISH, _modprobe.directives("/etc/modprobe.d/other.conf", f"\n{line}\n"))
    assert bool(found) is contradicts
    for _line, blocker in found:
        assert "/etc/modprobe.d/other.conf line 2" in blocker.problem


def test_a_claim_on_all_devices_of_an_id_is_found() -> None:
    lines = _modprobe.directives("f", "options vfio-pci ids=10de:2236\noptions vfio-pci disable_vga=1\noptions other ids=1\n")
    assert [line.line for line in _modprobe.claims(lines)] == [1]


@pytest.mark.parametrize(
    ("token", "modules"),
    [
        ("modprobe.blacklist=vfio-pci,nouveau", ["vfio-pci", "nouveau"]),
        ("rd.driver.blacklist=nouveau", ["nouveau"]),
        ("module-blacklist=x", ["x"]),
        ("blacklist=x", []),
        ("modprobe.blacklist=", []),
    ],
)
def test_boot_arguments_that_block_modules(token: str, modules: list[str]) -> None:
    assert [line.module for line in _modprobe.from_arguments(_cmdline.blocking(["quiet", token]))] == modules


@pytest.mark.parametrize(
    "wish",
    [
        Wish(load=("vfio pci",)),
        Wish(load=("",)),
        Wish(block=("../x",)),
        Wish(load=("vfio-pci",), block=("vfio_pci",)),
        Wish(options=(("kvm", "a=1\nblacklist ext4"),)),
        Wish(options=(("kvm", ""),)),
        Wish(options=(("kvm", "a=1 \\"),)),
        Wish(options=(("vfio_pci", "disable_vga=1 ids=10de:2236"),)),
    ],
)
def test_what_cannot_be_wished_for(wish: Wish) -> None:
    assert _modprobe_wish.problems(wish)


def test_what_can_be_wished_for() -> None:
    assert not _modprobe_wish.problems(WISH)
    assert not _modprobe_wish.problems(Wish(options=(("vfio-pci", "disable_vga=1 nointxmask=1"),)))


@pytest.mark.parametrize(
    ("older", "newer"),
    [("5.15.0-9-generic", "5.15.0-119-generic"), ("5.14.0-427.el9", "5.14.0-503.el9"), ("6.1.0-9-amd64", "6.12.0-1-amd64")],
)
def test_releases_are_compared_by_their_numbers(older: str, newer: str) -> None:
    assert _initramfs.version_key(older) < _initramfs.version_key(newer)


def test_what_is_in_an_image_is_read_from_both_listers() -> None:
    paths = (
        "usr/lib/modules/6.1/kernel/a/nouveau.ko.xz\nusr/lib/modules/6.1/kernel/b/vfio-pci.ko\n"
        "etc/modprobe.d/gpufleet.conf\nusr/lib/modules/x.komodo\n"
    )
    lines = (
        "Image: /boot/initramfs-6.1.img: 42M\n========\nVersion: dracut-057\n\n"
        "drwxr-xr-x   3 root     root            0 Jan  1  1970 etc/modprobe.d\n"
        "-rw-r--r--   1 root     root           93 Jan  1  1970 etc/modprobe.d/gpufleet.conf\n"
        "-rw-r--r--   1 root     root           93 Jan  1  1970 usr/lib/modules/6.1/kernel/a/nouveau.ko.xz\n"
        "lrwxrwxrwx   1 root     root           93 Jan  1  1970 usr/lib/modules/6.1/kernel/vfio-pci.ko -> ../b/other.ko\n"
    )
    for text in (paths, lines):
        modules, files = _initramfs.listed(text)
        assert modules == {"nouveau", "vfio_pci"}
        assert files == {"/etc/modprobe.d/gpufleet.conf"}


NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("modules", "files", "own", "written", "differs"),
    [
        ({"nouveau"}, {_modprobe.OWN}, True, 50.0, False),
        ({"nouveau"}, {_modprobe.OWN}, True, 150.0, True),  # a stale blacklist
        ({"nouveau"}, {_modprobe.OWN}, True, None, True),  # yet to be written
        ({"nouveau"}, set(), True, 50.0, True),  # newer, and built without it
        ({"nvme"}, set(), True, 150.0, False),  # nothing in it to block
        (None, None, True, 150.0, True),  # nobody can look inside: its time tells
        (None, None, True, 50.0, False),
        ({"nouveau"}, {_modprobe.OWN}, False, None, True),  # still blocks what is no longer to be blocked
        ({"nouveau"}, {"/etc/modprobe.d/other.conf"}, False, None, False),
        (None, None, False, None, False),
    ],
)
def test_whether_an_image_is_another_than_the_wish_needs(modules, files, own: bool, written: float | None, differs: bool) -> None:
    def frozen(found):
        return None if found is None else frozenset(found)

    image = _initramfs.Image("6.1", "/boot/initrd.img-6.1", 100.0, 1, frozen(modules), frozen(files))
    assert _initramfs.differs(image, frozenset({"nouveau"}), own, written) is differs


@pytest.mark.parametrize(
    ("built", "runs", "booted", "gone"),
    [
        (100.0, True, 200.0, True),
        (100.0, True, 50.0, False),  # the running kernel came from the image that is kept
        (100.0, False, 200.0, False),  # another kernel has booted
        (100.0, True, None, False),
        (None, False, None, True),  # its kernel is gone
    ],
)
def test_when_a_kept_image_is_no_longer_needed(built: float | None, runs: bool, booted: float | None, gone: bool) -> None:
    assert bool(_initramfs.outlived([_initramfs.Kept("/boot/x.gpufleet-kept", built, runs)], booted)) is gone
