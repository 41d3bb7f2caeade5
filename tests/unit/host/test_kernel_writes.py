# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel, _sysfs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError, KernelError, KernelTimeout


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A tree whose ``/sys`` counts as a mounted sysfs."""
    (tmp_path / "sys/bus").mkdir(parents=True)
    (tmp_path / "sys/bus/attribute").write_text("")
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(_sysfs, "_sysfs_devices", lambda: {os.stat(tmp_path / "sys").st_dev})
    return Host(str(tmp_path))


def test_a_write_reaches_the_file_and_is_not_a_replacement(host: Host) -> None:
    before = os.stat(f"{host.root}/sys/bus/attribute").st_ino
    host.write_kernel("/sys/bus/attribute", "vfio-pci")
    assert host.read_text("/sys/bus/attribute") == "vfio-pci"
    assert os.stat(f"{host.root}/sys/bus/attribute").st_ino == before


def test_a_directory_that_only_looks_like_sysfs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/attribute").write_text("old")
    with pytest.raises(HostError, match="no file of a running kernel's sysfs"):
        Host(str(tmp_path)).write_kernel("/sys/attribute", "new")
    assert (tmp_path / "sys/attribute").read_text() == "old"


def test_our_own_sysfs_is_known_as_one() -> None:
    assert os.stat("/sys").st_dev in _sysfs._sysfs_devices()
    assert os.stat("/proc").st_dev not in _sysfs._sysfs_devices()


def test_a_write_elsewhere_is_refused(host: Host) -> None:
    Path(host.root, "etc/name").write_text("old")
    Path(host.root, "sys/bus/link").symlink_to("/etc/name")
    for path in ("/etc/name", "/sys/bus/link", "/sys/../etc/name"):
        with pytest.raises(HostError):
            host.write_kernel(path, "new")
    assert Path(host.root, "etc/name").read_text() == "old"


def test_the_kernel_s_answer_is_the_error(host: Host) -> None:
    with pytest.raises(KernelError, match="/sys/bus/missing: No such file") as caught:
        host.write_kernel("/sys/bus/missing", "1")
    assert caught.value.errno == errno.ENOENT

    def busy() -> None:
        raise OSError(errno.EBUSY, "")

    with pytest.raises(OSError, match="busy") as answered:
        _kernel.detached(busy, 5)
    assert answered.value.errno == errno.EBUSY


def test_an_error_that_is_no_oserror_never_comes_back_as_success() -> None:
    def broken() -> None:
        raise ValueError

    with pytest.raises(OSError, match="Input/output"):
        _kernel.detached(broken, 5)


def test_a_write_that_blocks_is_left_alone_after_the_limit(host: Host) -> None:
    # Opening a FIFO for writing waits until somebody reads: the nearest thing to a kernel that waits for a holder.
    os.mkfifo(f"{host.root}/sys/bus/unbind")
    started = time.monotonic()
    with pytest.raises(KernelTimeout, match=r"unbind: no answer from the kernel within 0\.2 s; it may still do what was asked"):
        host.write_kernel("/sys/bus/unbind", "0000:41:00.0", timeout=0.2)
    assert time.monotonic() - started < 2
    with open(f"{host.root}/sys/bus/unbind", "rb") as late:  # the write still happens once the holder lets go
        assert late.read() == b"0000:41:00.0"


def test_a_blocked_write_keeps_no_stream_of_ours_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "unbind")
    code = (
        "import sys; from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel\n"
        "try: _kernel.write(sys.argv[1], 'x', 0.2)\n"
        "except _kernel.NoAnswer: print('left', flush=True)"
    )
    started = time.monotonic()
    # communicate() returns when the last holder of the pipe is gone, as an SSH connection does.
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "unbind")], capture_output=True, text=True, timeout=20, check=True, env=_environment()
    )
    assert done.stdout == "left\n"
    assert time.monotonic() - started < 10
    with open(tmp_path / "unbind", "rb") as late:
        assert late.read() == b"x"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a FIFO"), (lambda path: os.mknod(path, 0o140600), "a socket")])
def test_what_is_no_file_is_neither_read_nor_replaced(host: Host, make: object, kind: str) -> None:
    make(f"{host.root}/etc/thing")  # type: ignore[operator]
    started = time.monotonic()
    with pytest.raises(HostError, match=f"^/etc/thing: is {kind}, where a file is expected$"):
        host.read_text("/etc/thing")
    with pytest.raises(HostError, match=f"is {kind}"):
        host.write_text("/etc/thing", "x")
    assert time.monotonic() - started < 2
    assert not Path(host.root, "etc/thing").is_file()
    assert os.listdir(f"{host.root}/etc") == ["thing"]


def test_a_device_is_not_read_as_a_file(host: Host) -> None:
    with pytest.raises(HostError, match=r"^/dev/null: is a character device, where a file is expected$"):
        Host("/").read_text("/dev/null")


#: Seconds in which also a machine that has much else to do gets a process started.
PATIENT = 60.0


@pytest.fixture
def locked(host: Host, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Host]:
    """Two devices, of which the kernel shows nothing that lies behind the first one's lock until the test is over."""
    for name in ("first", "second"):
        Path(host.root, f"sys/bus/{name}").mkdir()
        for attribute in ("driver_override", "sriov_numvfs", "vendor"):
            Path(host.root, f"sys/bus/{name}/{attribute}").write_text(f"{attribute} of {name}\n")
    lock = Path(host.root, "lock")
    lock.touch()
    answer = _kernel._answer

    def slow(path: bytes) -> bytes:
        end = time.monotonic() + 2 * PATIENT  # should nobody be left to take the lock away
        while b"/first/" in path and lock.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return answer(path)

    monkeypatch.setattr(_kernel, "_answer", slow)
    monkeypatch.setattr(_sysfs, "_PATIENCE", 0.2)
    yield host
    lock.unlink()


def test_a_device_whose_lock_the_kernel_keeps_does_not_keep_us(locked: Host) -> None:
    with pytest.raises(
        KernelTimeout, match=r"first/driver_override: no answer from the kernel within 0\.2 s: it still does something else"
    ):
        locked.read_text("/sys/bus/first/driver_override")
    assert locked._reader is not None
    locked._reader._timeout = PATIENT  # for what must be answered; who asked the first one again would wait that long
    started = time.monotonic()
    with pytest.raises(KernelTimeout, match="first/sriov_numvfs: no answer from the kernel: it still"):
        locked.read_text("/sys/bus/first/sriov_numvfs")  # not even asked for: it is the same lock
    assert locked.is_silent("/sys/bus/first") and not locked.is_silent("/sys/bus/second")
    assert locked.read_text("/sys/bus/first/vendor") == "vendor of first\n"
    assert locked.read_text("/sys/bus/second/driver_override") == "driver_override of second\n"
    assert locked.read_text("/sys/bus/second/sriov_numvfs") == "sriov_numvfs of second\n"
    assert time.monotonic() - started < PATIENT


def test_what_lies_behind_a_lock_is_read_as_it_is_and_leaves_no_process(host: Host) -> None:
    Path(host.root, "sys/bus/uevent").write_bytes(b"DRIVER=x\nODD=\xff\n" + b"y" * 5000)
    Path(host.root, "sys/bus/sriov_numvfs").mkdir()
    assert host.read_bytes("/sys/bus/uevent") == b"DRIVER=x\nODD=\xff\n" + b"y" * 5000
    assert host.read_bytes("/sys/bus/driver_override") is None
    with pytest.raises(HostError, match="sriov_numvfs: Is a directory"):
        host.read_bytes("/sys/bus/sriov_numvfs")
    assert host.read_bytes("/sys/bus/uevent") == b"DRIVER=x\nODD=\xff\n" + b"y" * 5000
    assert host._reader is not None
    end = host._reader._end
    assert end is not None
    child = (end.peek() or (None, None, ()))[2][0]
    os.kill(child, 0)
    host._reader = None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
