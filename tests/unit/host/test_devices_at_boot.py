# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import (
    _at_boot,
    _boot_loop,
    _commands,
    _persist,
    _sriov_host,
    _vfs_at_boot,
    _vgpus_at_boot,
)
from tests.hosts import kernel_vgpu, tree
from tests.hosts.vgpu_node import A, B, Node, build, gpu, said

UNIT = Path("etc/systemd/system/gpufleet-devices.service")
ENTRIES = Path("etc/gpufleet/devices.json")
CODE = Path("usr/local/lib/gpufleet")
PROGRAMS = (_vfs_at_boot, _vgpus_at_boot)
PF = {"address": A, "count": "max"}

Make = t.Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path, reacting: t.Any, run_module: t.Any, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(**more: t.Any) -> Node:
        build(tmp_path / "host", **more)
        host = reacting("mdev_create", str(tmp_path / "host"))
        monkeypatch.setattr("ansible_collections.gpufleet.kubevirt.plugins.modules.sriov_vfs.Host", lambda root: host)
        monkeypatch.setattr(_sriov_host, "_SETTLE", 0.0)
        return Node(host, run_module, tmp_path / "host")

    return make


def entries(host: Node) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads((host.root / ENTRIES).read_text())
    return found


def reboot(host: Node, functions: bool = False) -> None:
    """vGPUs are gone, and virtual functions too unless they have been made again already (``functions``); the driver has come up."""
    for address in (A, B):
        path = host.host.resolve(f"/sys/bus/pci/devices/{address}")
        for device in list(kernel_vgpu.board(host.host, path).vgpus):
            where = f"/sys/bus/mdev/devices/{device}/remove"
            vendor = f"/sys/bus/pci/devices/{device}/nvidia/current_vgpu_type"
            host.host.write_kernel(*((where, "1") if host.host.exists(where.rpartition("/")[0]) else (vendor, "0")))
        if not functions:
            kernel_vgpu.set_functions(host.host, path, 0)
    host.host.written.clear()


def boot(host: Node, wait: float = 0) -> int:
    """What the unit does, with both programs in this process, so that they act on a tree with a kernel."""
    attempts = [functools.partial(_at_boot.attempt, host.host, program.KIND, program.make) for program in PROGRAMS]
    return _boot_loop.told(_boot_loop.until_there(attempts, wait))


@pytest.mark.parametrize("backend", ["mdev", "vendor_vfio"])
def test_what_was_persisted_is_made_again_at_boot(node: Make, backend: str) -> None:
    host = node(backend=backend)
    before = host.snapshot()
    wish = [gpu(("A10-4Q", 6)), gpu(("A10-12Q", 2), address=B)]
    sriov = {"method": "sysfs", "persist": "boot"}
    checked = host.vfs(PF, {"address": B}, check=True, **sriov)
    assert host.snapshot() == before
    assert checked["changes"] == host.vfs(PF, {"address": B}, **sriov)["changes"]
    made = host.run(*wish, persist="boot")
    assert not made["failed"], made
    devices = [entry["devices"] for entry in made["gpus"]]
    for again in (host.run(*wish, persist="boot"), host.vfs(PF, {"address": B}, **sriov)):
        assert not again["failed"] and not again["changed"]
    reboot(host)
    assert host.counts() == {}
    assert boot(host) == 0
    assert host.counts() == {A: {"NVIDIA A10-4Q": 6}, B: {"NVIDIA A10-12Q": 2}}
    assert [entry["devices"] for entry in host.run(*wish, persist="boot")["gpus"]] == devices  # same UUIDs, nothing to change
    host.host.written.clear()
    assert boot(host) == 0 and not host.host.written


def test_only_root_reads_the_entries_and_the_unit_holds_what_starts_pods(node: Make) -> None:
    host = node()
    made = host.run(gpu(("A10-4Q", 6)), persist="boot")
    assert (host.root / ENTRIES).stat().st_mode & 0o777 == 0o600
    assert (host.root / UNIT).stat().st_mode & 0o777 == 0o644
    unit = (host.root / UNIT).read_text()
    before = re.findall(r"^Before=(.*)$", unit, re.MULTILINE)[0].split()
    assert before == ["kubelet.service", "k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service"]
    assert "Type=oneshot" in unit and "After=local-fs.target systemd-modules-load.service" in unit
    for name in ["multi-user.target", *before]:
        link = host.root / f"etc/systemd/system/{name}.wants/gpufleet-devices.service"
        assert os.readlink(link) == "/etc/systemd/system/gpufleet-devices.service"
        assert name in re.findall(r"^WantedBy=(.*)$", unit, re.MULTILINE)[0].split()
    limit = int(re.findall(r"TimeoutStartSec=(\d+)", unit)[0])
    assert limit > _boot_loop.WAIT
    assert made["pending"] == ["systemctl daemon-reload"]
    assert not [path for path, _text in host.host.written if "systemd" in path]


def test_on_the_host_itself_systemd_is_told_once(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    host = node()
    calls: list[list[str]] = []

    def run(arguments: t.Sequence[str], timeout: float) -> _commands.Ended:
        calls.append(list(arguments))
        return _commands.Ended(0, "", 99)

    monkeypatch.setattr(_commands.Commands, "__init__", lambda self, host: setattr(self, "can_run", True))
    monkeypatch.setattr(_commands.Commands, "run", lambda self, arguments, timeout: run(arguments, timeout))
    for _again in range(2):
        assert host.run(gpu(("A10-4Q", 1)), persist="boot")["pending"] == []
    assert calls == [["systemctl", "daemon-reload"]]
    monkeypatch.setattr(_commands.Commands, "run", lambda self, arguments, timeout: _commands.Ended(1, "no bus", 99))
    (host.root / UNIT).write_text("old\n")
    failed = host.run(gpu(("A10-4Q", 1)), persist="boot")
    assert failed["failed"] and "no bus" in said(failed)


def test_the_copy_of_the_code_runs_by_itself(node: Make, tmp_path: Path) -> None:
    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", *arguments[:1], str(host.root / CODE / program), "--root", str(host.root), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={}, check=False)

    host = node()
    host.vfs(PF, method="sysfs", persist="boot")
    host.run(gpu(("A10-4Q", 6)), persist="boot")
    # Isolated, Python does not put a program's directory on its path: nothing of this checkout can be meant by mistake.
    for kind in ("sriov_vfs", "mdev_create"):
        alone = run(f"{kind}/attempt.py", "-I")
        assert alone.returncode == 1 and "No module named 'ansible_collections'" in alone.stderr
    done = run("boot.py", "-u", "--wait", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((host.root / CODE).rglob("__pycache__"))
    # And it says what is missing, virtual functions first: a tree is no kernel, so it cannot make one.
    reboot(host)
    done = run("boot.py", "-u", "--wait", "0")
    function, vgpu = done.stderr.splitlines()
    assert done.returncode == 1 and function.startswith(f"missing: function {A}: ")
    assert vgpu.startswith(f"missing: GPU {A}: ") and "without virtual functions" in vgpu
    # A program that breaks is named, and does not keep the other one from its work.
    (host.root / CODE / "sriov_vfs/attempt.py").write_text("raise SystemError('spoilt')\n")
    broken, same = run("boot.py", "-u", "--wait", "0").stderr.splitlines()
    assert "sriov_vfs/attempt.py ended with 1: SystemError: spoilt" in broken and same == vgpu
    (host.root / CODE / "sriov_vfs/attempt.py").unlink()
    assert "sriov_vfs/attempt.py ended with 2: " in run("boot.py", "-u", "--wait", "0").stderr
    for text in ("{", "[]"):
        (host.root / ENTRIES).write_text(text)
        assert "missing: /etc/gpufleet/devices.json: cannot be understood" in run("boot.py", "-u", "--wait", "0").stderr


def test_the_copy_takes_nothing_that_needs_ansible_or_the_cluster(node: Make) -> None:
    for program, not_its in zip(PROGRAMS, ("vgpu_plan", "sriov")):
        files = _persist.code_files(program.KIND, program.__name__)
        assert f"/{CODE}/{program.KIND}/ansible_collections/gpufleet/kubevirt/plugins/module_utils/_change.py" in files
        assert not [path for path in files if "_cluster" in path or path.endswith(f"/_{not_its}.py")]
        for text in files.values():
            assert not re.search(r"^\s*(from|import) (ansible|kubernetes)\b", text, re.MULTILINE)


def test_code_that_differs_is_written_anew_and_what_is_too_much_goes(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 1)), persist="boot")
    ours = host.root / CODE / "mdev_create/ansible_collections/gpufleet/kubevirt/plugins/module_utils"
    wanted = (ours / "_change.py").read_text()
    (ours / "_change.py").write_text("old\n")
    (ours / "_host/_older.py").write_text("left by another version\n")
    changed = host.run(gpu(("A10-4Q", 1)), persist="boot")
    assert [change["target"] for change in changed["changes"]] == ["directory /usr/local/lib/gpufleet/mdev_create"]
    assert (ours / "_change.py").read_text() == wanted and not (ours / "_host/_older.py").exists()


def test_the_last_entry_that_goes_takes_everything_with_it(node: Make) -> None:
    host = node()
    before = set(host.snapshot())
    host.vfs(PF, method="sysfs", persist="boot")
    host.run(gpu(("A10-4Q", 1)), gpu(("A10-4Q", 2), address=B), persist="boot")
    assert set(entries(host)["mdev_create"]) == {A, B}
    host.run({"address": A}, state="absent", persist="boot")
    assert set(entries(host)["mdev_create"]) == {B} and (host.root / UNIT).exists()
    host.run({"address": B}, state="absent", persist="boot")
    assert sorted(path.name for path in (host.root / CODE).iterdir()) == ["boot.py", "sriov_vfs"] and (host.root / UNIT).exists()
    host.vfs({"address": A, "count": "0"}, method="sysfs", persist="boot")
    left = {path for path in set(host.snapshot()) - before if not path.startswith("sys/")}
    assert not left and not (host.root / CODE).exists() and not (host.root / "etc/gpufleet").exists()
    assert not (host.root / "etc/systemd/system/kubelet.service.wants").exists()


def test_code_that_no_entry_needs_goes_with_the_next_run_and_the_other_program_stays(node: Make) -> None:
    host = node()
    host.vfs(PF, method="sysfs", persist="boot")
    left = host.root / CODE / "mdev_create/ansible_collections/gpufleet/kubevirt/plugins/module_utils/_change.py"
    left.parent.mkdir(parents=True)
    left.write_text("left by a run that was killed\n")
    cleared = host.run(gpu(("A10-4Q", 1)))
    assert [change["target"] for change in cleared["changes"][1:]] == ["directory /usr/local/lib/gpufleet/mdev_create"]
    assert sorted(path.name for path in (host.root / CODE).iterdir()) == ["boot.py", "sriov_vfs"] and boot(host) == 0
    assert not host.run(gpu(("A10-4Q", 1)))["changed"]


def test_persist_none_forgets_this_device_only(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 1)), gpu(("A10-4Q", 2), address=B), persist="boot")
    forgotten = host.run(gpu(("A10-4Q", 1)))
    assert [change["target"] for change in forgotten["changes"]] == [f"boot entry mdev_create {A}"]
    assert set(entries(host)["mdev_create"]) == {B}


def test_present_adds_to_what_is_persisted_and_absent_takes_out_of_it(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-2Q", 2)), persist="boot")
    host.run(gpu(("NVIDIA A10-2B", 1)), state="present", persist="boot")
    assert [(e["type"], e["count"]) for e in entries(host)["mdev_create"][A]["types"]] == [("NVIDIA A10-2B", 1), ("A10-2Q", 2)]
    host.run({"address": A, "types": [{"type": "NVIDIA A10-2Q"}]}, state="absent", persist="boot")
    assert [e["type"] for e in entries(host)["mdev_create"][A]["types"]] == ["NVIDIA A10-2B"]


def test_an_entry_of_devices_that_could_not_be_made_is_not_written(node: Make) -> None:
    host = node()
    host.host.fault(r".*/0000:41:00\.4/.*/create", 28)
    failed = host.run(gpu(("A10-4Q", 1)), gpu(("A10-4Q", 1), address=B), persist="boot")
    assert failed["failed"] and "could not be made" in said(failed) and set(entries(host)["mdev_create"]) == {B}


# At boot


def test_it_waits_for_a_driver_that_starts_slowly(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    host = node()
    host.vfs(PF, method="sysfs", persist="boot")
    host.run(gpu(("A10-4Q", 6)), persist="boot")
    reboot(host)
    driver = host.root / f"{host.host.resolve(f'/sys/bus/pci/devices/{A}')[1:]}/driver"
    target = os.readlink(driver)
    driver.unlink()
    naps: list[float] = []

    def starts(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            driver.symlink_to(target)

    monkeypatch.setattr(_boot_loop.time, "sleep", starts)
    assert boot(host, wait=60) == 0 and len(naps) == 3
    assert host.counts() == {A: {"NVIDIA A10-4Q": 6}}


def test_it_gives_up_and_names_what_is_missing_while_the_rest_is_made(node: Make, capsys: pytest.CaptureFixture[str]) -> None:
    host = node()
    host.vfs(PF, {"address": B}, method="sysfs", persist="boot")
    host.run(gpu(("A10-4Q", 6)), gpu(("A10-4Q", 6), address=B), persist="boot")
    reboot(host)
    os.unlink(host.root / f"{host.host.resolve(f'/sys/bus/pci/devices/{A}')[1:]}/driver")
    assert boot(host) == 1
    told = capsys.readouterr().err
    assert f"missing: function {A}: it has no driver" in told and f"missing: GPU {A}: it cannot make vGPUs" in told and B not in told
    assert host.counts() == {B: {"NVIDIA A10-4Q": 6}}


def test_a_gpu_at_another_address_is_not_touched(node: Make, capsys: pytest.CaptureFixture[str]) -> None:
    host = node()
    host.vfs(PF, method="sysfs", persist="boot")
    host.run(gpu(("A10-4Q", 6)), persist="boot")
    reboot(host)
    tree._write(host.root, f"{host.host.resolve(f'/sys/bus/pci/devices/{A}')[1:]}/device", "0x20b5\n")
    assert boot(host) == 1 and not host.host.written
    assert f"function {A}: it is 10DE:20B5, and was 10DE:2236" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["uninitialized\n", "", "0123", "z" * 32, "0123456789abcdef" * 3, None])
def test_without_a_machine_id_no_mediated_device_is_made_at_boot_either(
    node: Make, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 1)), persist="boot")
    reboot(host, functions=True)
    (host.root / "etc/machine-id").unlink()
    if text is not None:
        (host.root / "etc/machine-id").write_text(text)
    assert boot(host) == 1 and not host.host.written and host.counts() == {}
    assert f"missing: GPU {A}: the host has no machine id" in capsys.readouterr().err
    assert "no machine id" in said(host.run(gpu(("A10-4Q", 1)), persist="boot"))


def test_it_removes_nothing_at_boot(node: Make) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 2)), persist="boot")
    kept = entries(host)
    host.run(gpu(("A10-8Q", 2)))
    tree._write(host.root, str(ENTRIES), json.dumps(kept))
    host.host.written.clear()
    assert boot(host) == 1 and not host.host.written and host.counts() == {A: {"NVIDIA A10-8Q": 2}}


def test_killed_between_any_two_writes_of_the_files_it_converges(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    host = node()
    host.run(gpu(("A10-4Q", 1)))
    write, link = host.host.write_text, host.host.make_link
    for survives in (0, 1, 2, 5, 20, 24, 27):
        left = [survives]

        def once(left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1

        monkeypatch.setattr(host.host, "write_text", lambda *args, once=once: (once(), write(*args)))
        monkeypatch.setattr(host.host, "make_link", lambda *args, once=once: (once(), link(*args)))
        with contextlib.suppress(KeyboardInterrupt):
            host.run(gpu(("A10-4Q", 1)), persist="boot")
        monkeypatch.setattr(host.host, "write_text", write)
        monkeypatch.setattr(host.host, "make_link", link)
        assert not host.run(gpu(("A10-4Q", 1)), persist="boot")["failed"]
        assert not host.run(gpu(("A10-4Q", 1)), persist="boot")["changed"]
        assert not host.run(gpu(("A10-4Q", 1)))["failed"] and not (host.root / UNIT).exists() and not (host.root / CODE).exists()


# Refusals


def mdevctl(host: Node) -> None:
    tree._write(host.root, "etc/mdevctl.d/0000:41:00.4/6b0c4b9e-9a3e-5b0e-8a5e-4d8a3b6a1f10", '{"start": "auto"}')


def site_unit(host: Node) -> None:
    tree._write(host.root, "etc/systemd/system/vgpu.service", "[Service]\nExecStart=/usr/lib/nvidia/sriov-manage -e ALL\n")


def site_program(host: Node) -> None:
    tree._write(host.root, "etc/systemd/system/vgpu.service", "[Service]\nExecStart=/bin/sh /usr/local/bin/vgpu.sh\n")
    tree._write(host.root, "usr/local/bin/vgpu.sh", "echo 4 > /sys/bus/pci/devices/0000:41:00.0/sriov_numvfs\n")


def drop_in(host: Node) -> None:
    tree._write(
        host.root, "etc/systemd/system/nvidia-vgpud.service.d/vf.conf", "[Service]\nExecStartPost=/usr/lib/nvidia/sriov-manage -e ALL\n"
    )


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        (mdevctl, "mdevctl (/etc/mdevctl.d/0000:41:00.4)"),
        (site_unit, "/etc/systemd/system/vgpu.service"),
        (site_program, "/etc/systemd/system/vgpu.service"),
        (drop_in, "/etc/systemd/system/nvidia-vgpud.service.d/vf.conf"),
    ],
)
@pytest.mark.parametrize("persist", ["none", "boot"])
def test_persistence_by_somebody_else_is_refused_by_name(node: Make, prepare: t.Callable[[Node], None], named: str, persist: str) -> None:
    host = node(vfs=4)
    prepare(host)
    before = host.snapshot()
    for refused in (host.run(gpu(("A10-4Q", 1)), persist=persist), host.vfs({"address": A, "count": "2"}, method="sysfs", persist=persist)):
        assert refused["failed"] and named in said(refused)
    assert host.snapshot() == before and not host.host.written


def test_units_that_mean_other_devices_or_only_speak_of_them_are_none_of_it(node: Make) -> None:
    host = node()
    units = host.root / "etc/systemd/system"
    (units / "nic.service").write_text("[Service]\nExecStart=/bin/sh -c 'echo 4 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs'\n")
    (units / "notes.service").write_text("# not with sriov-manage\n[Service]\nExecStart=/bin/true\n")
    (units / "masked.service").symlink_to("/dev/null")
    assert not host.run(gpu(("A10-4Q", 1)), persist="boot")["failed"]
    assert not host.run(gpu(("A10-4Q", 1)), persist="boot")["failed"]  # nor is our own unit


def test_a_file_of_entries_that_is_not_ours_is_not_overwritten(node: Make) -> None:
    host = node()
    for text in ("{", '{"version": 9}', "[]", '{"version": 1, "sriov_vfs": 1}'):
        tree._write(host.root, str(ENTRIES), text)
        refused = host.run(gpu(("A10-4Q", 1)), persist="boot")
        assert refused["failed"] and "/etc/gpufleet/devices.json" in said(refused) and not host.host.written
        assert (host.root / ENTRIES).read_text() == text
        assert boot(host) == 1


def test_a_host_without_systemd_is_refused(node: Make) -> None:
    host = node()
    (host.root / "etc/systemd/system").rmdir()
    (host.root / "etc/systemd").rmdir()
    assert "no systemd" in said(host.run(gpu(("A10-4Q", 1)), persist="boot")) and not host.host.written


def test_a_host_on_which_the_device_manager_runs_has_two_owners(node: Make) -> None:
    host = node()
    tree._write(host.root, "proc/812/comm", "nvidia-k8s-vgpu\n")
    (host.root / "proc/812/fd").mkdir()
    refused = host.run(gpu(("A10-4Q", 1)))
    assert "device manager runs on it (process 812)" in said(refused) and not host.host.written


def test_sent_to_a_target_the_module_has_all_of_its_code_with_it(tmp_path: Path) -> None:
    build(tmp_path / "host", active={0: 593})
    arguments = {"host_root": str(tmp_path / "host"), "gpus": [gpu(("A10-4Q", 1))], "persist": "boot"}
    done = subprocess.run(
        # The controller is always the development environment's Python; the target is the one that runs this test.
        [
            os.environ.get("GPUFLEET_PYTHON", sys.executable),
            "-m",
            "ansible",
            "adhoc",
            "localhost",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-m",
            "gpufleet.kubevirt.mdev_create",
        ]
        + ["-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "HOME": str(tmp_path),
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path, text in _persist.code_files(_vgpus_at_boot.KIND, _vgpus_at_boot.__name__).items():
        assert (tmp_path / "host" / path[1:]).read_text() == text, path


@pytest.mark.parametrize(
    ("real", "ours", "unit"),
    [
        (True, "/usr/bin/python3.11", "/usr/bin/python3.11"),
        (True, "/home/ansible/venv/bin/python", "/usr/bin/python3"),  # a user's own may be gone at the next boot
        (False, "/usr/bin/python3.11", "/usr/bin/python3"),  # it is the controller's, not the tree's
    ],
)
def test_the_unit_starts_a_python_that_is_there_at_boot(monkeypatch: pytest.MonkeyPatch, real: bool, ours: str, unit: str) -> None:
    class Some:
        is_real = real

    monkeypatch.setattr(sys, "executable", ours)
    assert _persist.python_for(Some()) == unit  # type: ignore[arg-type]
