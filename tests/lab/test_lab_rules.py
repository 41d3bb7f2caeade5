# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own rules, without its programs: whose directory and whose processes these are, and when something is built."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import build, faults, kubevirt, lifecycle, processes, profiles, switch
from tests.lab.layout import LabError, Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "lab")


@pytest.fixture
def made(layout: Layout):
    """A lab's directory in which nothing runs yet; afterwards nothing runs in it either."""
    layout.create({"ports": {}, "programs": "/nowhere", "faults": [], "plain": 0})
    yield layout
    processes.stop(layout, seconds=0.1)


def sleeper(layout: Layout, part: str, script: str = "import time; time.sleep(60)") -> int:
    return processes.start(layout, part, [sys.executable, "-c", script])


# --- the directory


def test_a_lab_does_not_use_a_directory_that_holds_something_else(layout: Layout) -> None:
    layout.directory.mkdir()
    (layout.directory / "thesis.txt").write_text("years of work")
    with pytest.raises(LabError, match=r"thesis\.txt.*GPUFLEET_LAB_DIR"):
        layout.create({})
    layout.remove()
    assert (layout.directory / "thesis.txt").read_text() == "years of work"


def test_a_lab_directory_is_its_owners_only(made: Layout) -> None:
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700


def test_removing_a_lab_leaves_nothing_and_follows_no_link(made: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    made.programs.symlink_to(outside)
    made.remove()
    assert not made.directory.exists()
    assert (outside / "kept").exists()


def test_after_a_failed_start_only_the_logs_are_left_and_a_next_start_takes_the_directory(made: Layout) -> None:
    (made.log / "etcd.log").write_text("why it failed")
    made.remove(keep_log=True)
    assert [p.name for p in made.directory.iterdir()] == ["log"]
    made.create({})
    assert made.is_lab()
    assert list(made.log.iterdir()) == []


def test_a_second_command_waits_for_the_first_and_then_says_so(layout: Layout) -> None:
    with layout.lock(), pytest.raises(LabError, match="Another lab command"), layout.lock(seconds=0.3):
        pass
    with layout.lock(seconds=0):
        pass


def test_commands_on_a_lab_that_is_not_there_say_how_to_start_one(layout: Layout) -> None:
    for command in (lifecycle.reset, lifecycle.admin):
        with pytest.raises(LabError, match=r"no lab in .*lab up"):
            command(layout)


# --- the processes


def test_only_this_labs_processes_are_found_and_stopped(made: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "lab2")  # its name begins like the first one's
    other.create({})
    ours, theirs = sleeper(made, "etcd"), sleeper(other, "etcd")
    try:
        assert processes.running(made) == {"etcd": [ours]}
        assert processes.stop(made, seconds=2) == ["etcd"]
        assert processes.running(made) == {}
        assert processes.running(other) == {"etcd": [theirs]}
    finally:
        processes.stop(other, seconds=2)


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(made: Layout) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as innocent:
        (made.run / "etcd.pid").write_text(f"{innocent.pid}\n")
        assert processes.stop(made, seconds=0.1) == []
        assert innocent.poll() is None
        innocent.kill()


def test_a_part_that_ignores_sigterm_is_killed(made: Layout) -> None:
    ready = made.directory / "ready"
    sleeper(
        made,
        "etcd",
        f"import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(ready)!r}).touch(); time.sleep(60)",
    )
    while not ready.exists():
        time.sleep(0.02)
    assert processes.stop(made, seconds=0.2) == ["etcd"]
    assert processes.running(made) == {}


def test_waiting_for_a_part_that_dies_shows_the_end_of_its_log_at_once(made: Layout) -> None:
    sleeper(made, "etcd", "import sys; sys.exit('listen tcp 127.0.0.1:1: bind: address already in use')")
    began = time.monotonic()
    with pytest.raises(LabError, match=r"etcd.*ended by itself[\s\S]*address already in use"):
        processes.wait(made, "etcd", lambda: "not yet", seconds=30)
    assert time.monotonic() - began < 10


def test_a_part_that_never_gets_ready_is_reported_with_what_it_answers(made: Layout) -> None:
    sleeper(made, "etcd")
    with pytest.raises(LabError, match=r"not ready after 0 s \(GET /readyz: 500\)"):
        processes.wait(made, "etcd", lambda: "GET /readyz: 500", seconds=0.2)


def test_a_missing_program_is_named(made: Layout) -> None:
    with pytest.raises(LabError, match=r"Starting etcd .*/nowhere/etcd: No such file"):
        processes.start(made, "etcd", ["/nowhere/etcd"])


def test_ports_are_free_different_and_on_loopback() -> None:
    ports = processes.free_ports([str(n) for n in range(20)])
    assert len(set(ports.values())) == 20
    for port in ports.values():
        with socket.socket() as s:
            s.bind(("127.0.0.1", port))


def test_no_free_port_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(processes.socket, "socket", Full)
    with pytest.raises(LabError, match=r"2 free ports on 127\.0\.0\.1.*Address already in use.*lab down"):
        processes.free_ports(["a", "b"])


# --- profiles


def test_ansible_reads_an_inventory_of_ours_and_finds_each_host_in_the_lab(layout: Layout) -> None:
    layout.create({"profile": "two-models"})
    profiles.write_inventory(layout, "two-models")
    program = str(Path(sys.executable).with_name("ansible-inventory"))
    done = subprocess.run(
        [program, "-i", str(profiles.inventory(layout, "two-models")), "--host", "gpu-vgpu-0"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["lab_dir"] == str(layout.directory) and Path(found["lab_checkout"]).joinpath("site.yml").is_file()
    assert "lab_dir" in found["gpufleet_kubeconfig"] and found["gpufleet_vgpu_profile"] == {"T4": "T4-8Q", "A10": "A10-12Q"}


# --- faults


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was switched on beside the record, set by set; nothing of a lab runs here."""
    sets: list[list[str]] = []
    monkeypatch.setattr(switch, "carry_out", lambda layout, names: sets.append(list(names)))
    return sets


def test_faults_are_switched_one_set_after_the_other_and_recorded(made: Layout, carried_out: list[list[str]]) -> None:
    assert switch.switch(made, ["sticky-pause", "no-nfd", "no-nfd"]) == switch.active(made) == ["no-nfd", "sticky-pause"]
    assert switch.switch(made, ["vgpu-failed"]) == switch.active(made) == ["vgpu-failed"]
    assert switch.switch(made, ["none"]) == switch.active(made) == []
    assert made.read()["plain"] == 0
    assert carried_out == [["no-nfd", "sticky-pause"], ["vgpu-failed"], []]


def test_a_fault_that_is_none_is_refused_with_the_list_and_changes_nothing(made: Layout, carried_out: list[list[str]]) -> None:
    switch.switch(made, ["no-nfd"])
    with pytest.raises(LabError, match=r"faults: gremlins is not known\. Known: none, no-nfd, .*plugin-at-0"):
        switch.switch(made, ["no-nfd", "gremlins"])
    assert switch.active(made) == ["no-nfd"] and carried_out == [["no-nfd"]]
    with pytest.raises(LabError, match="gremlins is not known"):
        lifecycle.up(made, ["gremlins"])


@pytest.mark.parametrize(
    ("name", "converged", "output", "wrong"),
    [
        ("slow-operands", True, "", None),
        ("slow-operands", False, "", "did not get over"),
        ("vgpu-failed", True, "", "in spite of"),
        ("vgpu-failed", False, "the vGPU Device Manager says failed", None),
        ("vgpu-failed", False, "something else", "did not say 'says failed'"),
        ("api-silent", True, "", None),
        ("api-silent", False, "read: EOF", None),
        ("api-silent", False, "something else", "did not say"),
    ],
)
def test_a_run_is_judged_by_the_table(name: str, converged: bool, output: str, wrong: str | None) -> None:
    found = faults.misjudged(name, converged, output)
    assert bool(found) is bool(wrong) and (wrong or "") in "".join(found)


@pytest.mark.parametrize("name", faults.FAULTS)
def test_each_fault_says_where_it_is_read_and_how_a_run_ends(name: str) -> None:
    fault = faults.FAULTS[name]
    assert fault.where in ("operand", "api", "webhook") and fault.ends in ("converges", "fails", "either")
    assert fault.source.count("/") >= 1
    assert bool(fault.says) is (fault.ends != "converges")
    assert bool(fault.rule) is (fault.where != "operand")
    assert name in faults.listing()


# --- what is left over


def test_up_explains_a_state_of_which_nothing_runs(made: Layout) -> None:
    with pytest.raises(LabError, match=r"left over.*nothing of it runs.*lab down"):
        lifecycle.up(made)


def test_up_explains_a_half_dead_lab_by_part(made: Layout) -> None:
    sleeper(made, "etcd")
    with pytest.raises(LabError, match=r"kube-apiserver does not run.*lab down"):
        lifecycle.up(made)


def test_up_finds_processes_whose_state_directory_was_deleted_and_down_stops_them(made: Layout) -> None:
    pid = sleeper(made, "kwok")
    made.remove()
    with pytest.raises(LabError, match=rf"state is gone.*kwok \(pid {pid}\).*lab down"):
        lifecycle.up(made)
    lifecycle.down(made, say=lambda _: None)
    assert processes.running(made) == {}


def test_down_without_a_lab_is_fine(layout: Layout) -> None:
    said: list[str] = []
    lifecycle.down(layout, said.append)
    assert said == [f"No lab in {layout.directory}"]


# --- the programs


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "go" / "control").mkdir(parents=True)
    (tmp_path / "go" / "control" / "go.mod").write_text(
        "module m\n\nrequire k8s.io/kubernetes v1.37.2\nrequire helm.sh/helm/v4 v4.3.1 // indirect\n"
    )
    (tmp_path / "go" / "kubevirt").mkdir()
    (tmp_path / "go" / "kubevirt" / "main.go").write_text("package main\n")
    return tmp_path / "go"


def test_the_key_changes_with_compiler_sources_and_file_names(sources: Path) -> None:
    keys = [build.key(sources, "go1.26.8"), build.key(sources, "go1.27.0")]
    (sources / "control" / "go.sum").write_text("x")
    keys.append(build.key(sources, "go1.26.8"))
    (sources / "control" / "go.sum").rename(sources / "control" / "go.sun")
    keys.append(build.key(sources, "go1.26.8"))
    assert len(set(keys)) == 4
    assert build.key(sources, "go1.26.8") == keys[-1]


@given(st.integers(1, 9), st.integers(0, 99), st.integers(0, 99))
def test_versions_are_those_of_go_mod(major: int, minor: int, patch: int) -> None:
    text = (
        f"require (\n\tk8s.io/kubernetes v{major}.{minor}.{patch}\n\tk8s.io/kubernetes-x v0.0.1\n\thelm.sh/helm/v4 v4.3.1 // indirect\n)\n"
    )
    flags = build.version_flags(text).split()
    assert f"k8s.io/component-base/version.gitVersion=v{major}.{minor}.{patch}" in flags
    assert f"k8s.io/component-base/version.gitMinor={minor}" in flags
    assert "helm.sh/helm/v4/internal/version.version=v4.3.1" in flags


def test_a_module_that_go_mod_does_not_require_is_named() -> None:
    with pytest.raises(LabError, match=r"does not require helm\.sh/helm/v4"):
        build.module_version("module m\n", "helm.sh/helm/v4")


def test_the_version_that_the_lab_reports_is_the_one_that_is_built() -> None:
    assert build.module_version((build.SOURCES / "kubevirt" / "go.mod").read_text(), "kubevirt.io/kubevirt") == kubevirt.VERSION


FAKE_GO = """#!/bin/sh
[ "$1" = version ] && { echo "go version go1.26.8 linux/amd64"; exit 0; }
echo "$PWD $GOFLAGS $GOTOOLCHAIN $GOCACHE $GOROOT" >> "$FAKE_LOG"
[ -z "$FAKE_FAIL" ] || { echo "main.go:1: undefined: nonsense"; exit 1; }
sleep 0.3
while [ "$1" != -o ]; do shift; done
case $PWD in */control) names="kubelab helm kwok";; *) names="kubelab-kubevirt virt-api virt-controller";; esac
for n in $names; do echo "$n" > "$2/$n"; chmod +x "$2/$n"; done
"""


@pytest.fixture
def compiler(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes down how it is called; the cache is empty."""
    go = tmp_path / "fake-go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    monkeypatch.delenv("GPUFLEET_LAB_BIN", raising=False)
    monkeypatch.setenv("GPUFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOROOT", "/somebody/elses/go")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "go_binary", lambda: str(go))
    return tmp_path / "calls"


def test_programs_are_built_once_even_if_two_ask_at_the_same_time(compiler: Path) -> None:
    built: list[Path] = []
    threads = [threading.Thread(target=lambda: built.append(build.programs())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2
    assert built[0] == built[1] == build.programs()
    calls = compiler.read_text().splitlines()
    assert len(calls) == 2  # one for each Go module
    cache = build.cache_directory()
    assert all("-mod=readonly" in call and " local " in call and str(cache) in call and "elses" not in call for call in calls)
    assert all(os.access(built[0] / name, os.X_OK) for name in build.PROGRAMS)
    # The compile cache is gone, the programs stay.
    assert sorted(p.name for p in cache.iterdir()) == [built[0].name, "lab-build.lock"]


def test_a_failed_build_shows_the_compilers_words_and_leaves_no_programs(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "1")
    with pytest.raises(LabError, match=r"ended with 1[\s\S]*undefined: nonsense"):
        build.programs()
    assert not list(build.cache_directory().glob("lab-bin-*"))
    monkeypatch.delenv("FAKE_FAIL")
    assert build.programs().is_dir()


def test_given_programs_must_be_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_LAB_BIN", str(tmp_path))
    with pytest.raises(LabError, match=r"kubelab, helm.* missing"):
        build.programs()


def test_envtest_programs_win_over_built_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").write_text("")
    (tmp_path / "etcd").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    built = Path("/cache")
    assert build.program(built, "etcd") == str(tmp_path / "etcd")
    assert build.program(built, "kube-apiserver") == "/cache/kube-apiserver"  # it has none
    assert build.program(built, "kube-scheduler") == "/cache/kube-scheduler"


def test_an_old_python_is_named() -> None:
    code = (
        "import sys, runpy, collections; "
        "sys.version_info = (3, 9, 2, 'final', 0); "
        f"runpy.run_path({str(Path(build.__file__).with_name('lab.py'))!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the lab needs 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr
