# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel_log
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "name").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    return root


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("name", "inside"),
        ("/etc/name", "inside"),
        ("../etc/name", "inside"),
        ("../etc/../etc/./name", "inside"),
        ("/etc/missing", None),
        ("link", HostError),
        ("../../secret", HostError),
        ("../../../../../../../../etc/passwd", HostError),
    ],
)
def test_a_link_is_followed_inside_the_root_only(tree: Path, target: str, seen: object) -> None:
    (tree / "etc" / "link").symlink_to(target)
    host = Host(str(tree))
    if seen is HostError:
        with pytest.raises(HostError):
            host.read_text("/etc/link")
    else:
        assert host.read_text("/etc/link") == seen
        assert host.exists("/etc/link") == (seen is not None)
    assert host.link("/etc/link") == target


def test_an_absolute_link_to_a_directory_stays_inside(tree: Path) -> None:
    # Not below /dev, where tests may keep their files: inside the root, too, devices are not written to.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
        secret = Path(outside, "secret")
        secret.write_text("outside")
        (tree / "escape").symlink_to(outside)
        host = Host(str(tree))
        assert host.read_text("/escape/secret") is None
        host.write_text("/escape/secret", "written")
        assert secret.read_text() == "outside"
        assert host.read_text("/escape/secret") == "written"


def test_a_path_that_climbs_out_is_an_error(tree: Path) -> None:
    for reading in (Host(str(tree)).read_text, Host(str(tree)).names, Host(str(tree)).remove):
        with pytest.raises(HostError, match="out of the root"):
            reading("/../secret")


def test_missing_files_are_none_and_missing_directories_empty(tree: Path) -> None:
    host = Host(str(tree))
    assert host.read_bytes("/no/such/file") is None
    assert host.read_text("/etc/name/below") is None
    assert host.names("/no/such/directory") == []
    assert host.link("/etc/name") is None
    assert _kernel_log.read(host) is None


def test_other_errors_name_the_path_of_the_host(tree: Path) -> None:
    with pytest.raises(HostError, match=r"^/etc: Is a directory$") as caught:
        Host(str(tree)).read_text("/etc")
    assert caught.value.path == "/etc"


def test_a_write_keeps_mode_and_replaces_at_once(tree: Path) -> None:
    host = Host(str(tree))
    (tree / "etc" / "name").chmod(0o600)
    before = os.open(tree / "etc" / "name", os.O_RDONLY)
    host.write_text("/etc/name", "new\n")
    assert os.read(before, 10) == b"inside"  # who reads the old file goes on reading it whole
    os.close(before)
    assert (tree / "etc" / "name").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tree / "etc").iterdir()) == ["name"]
    host.write_text("/etc/deep/er", "x")
    assert (tree / "etc" / "deep" / "er").stat().st_mode & 0o777 == 0o644
    host.write_text("/etc/deep/er", "y", mode=0o600)
    assert (tree / "etc" / "deep" / "er").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match=r"/etc/name: No space left"):
        Host(str(tree)).write_text("/etc/name", "new")
    assert (tree / "etc" / "name").read_text() == "inside"
    assert [path.name for path in (tree / "etc").iterdir()] == ["name"]


@pytest.mark.parametrize("path", ["/sys/bus/pci/drivers_probe", "/proc/cmdline", "/etc/sys/x"])
def test_files_of_the_kernel_are_never_replaced(tree: Path, path: str) -> None:
    (tree / "etc" / "sys").symlink_to("/sys")
    with pytest.raises(HostError, match="file of the kernel"):
        Host(str(tree)).write_text(path, "1")
    with pytest.raises(HostError, match="file of the kernel"):
        Host(str(tree)).remove(path)


def test_a_root_that_is_no_directory_is_named(tree: Path) -> None:
    with pytest.raises(HostError, match="no directory"):
        Host(str(tree / "missing"))
    with pytest.raises(HostError, match="absolute"):
        Host("etc")


def test_remove_takes_the_link_not_what_it_points_to(tree: Path) -> None:
    (tree / "etc" / "link").symlink_to("name")
    Host(str(tree)).remove("/etc/link")
    Host(str(tree)).remove("/etc/link")
    assert sorted(path.name for path in (tree / "etc").iterdir()) == ["name"]
