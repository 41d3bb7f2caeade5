# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recorder: what it keeps is what the modules need, and what nobody allowed never leaves the host."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import tree
from tests.hosts.facts import up_to_pseudonyms
from tests.hosts.recorder import PROGRAM, recorder

GPU = "0000:41:00.0"
FULL = tree.HostSpec(
    [
        tree.Gpu(GPU, driver="nvidia", vfs=2, vfs_total=2, active={0: 593}),
        tree.Gpu("0000:a1:00.0", device="2230", kind="030000", audio=True, neighbour=True, vfs_total=0, driver="vfio-pci"),
        tree.Gpu("0000:c1:00.0", driver="nvidia", vfs=2, vfs_total=2, backend="vendor_vfio", active={1: 593}),
    ],
    cmdline="intel_iommu=on iommu=pt",
    modules=["kvm", "vfio", "vfio_pci", "mdev", "nvidia"],
    host_driver="580.95.05",
    qemu=[4711],
    kernel_log=[
        f"NVRM: GPU {GPU}: GPU has fallen off the bus.",
        "pci 0000:a1:00.0: BAR 1 [mem size 0x1000]: no space",
        "usb 1-1: new device",
    ],
    blocked=["nouveau"],
    other_kernels=["5.15.0-121-generic"],
)


def build(root: Path, spec: tree.HostSpec = FULL) -> Path:
    tree.build(root, spec)
    for name, value in (("sys_vendor", "Dell Inc."), ("product_name", "PowerEdge R750"), ("bios_version", "2.1.3")):
        (root / "sys/class/dmi/id" / name).write_text(f"{value}\n")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path / "host")


def run(*arguments: t.Union[str, Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def replayed(root: Path, directory: Path) -> Path:
    recorder.write_tree(recorder.Recorder(str(root)).record(), str(directory))
    return directory


def facts(root: Path) -> dict[str, t.Any]:
    """What gpu_node_info says, but for what a recording replaces or reduces."""
    return up_to_pseudonyms(_node.read(Host(str(root))))


# ------------------------------------------------------------------ what is kept


@pytest.mark.parametrize(
    ("name", "output"),
    [*((name, "host.json") for name in tree.LAB_HOSTS), ("full", "host.json"), ("full", "host.tar.gz"), ("full", "host")],
)
def test_gpu_node_info_says_the_same_of_a_replayed_host(tmp_path: Path, name: str, output: str) -> None:
    root = build(tmp_path / "root", tree.LAB_HOSTS.get(name, FULL))
    assert run("--root", root, "--output", tmp_path / output).returncode == 0
    again = tmp_path / output
    if output != "host":
        again = tmp_path / "again"
        assert run("--replay", tmp_path / output, "--output", again).returncode == 0
    assert facts(again) == facts(root)
    assert facts(root)["iommu"]["enabled"] is (name not in ("gpu-passthrough-0", "gpu-refused-0"))


def test_vgpus_holders_and_the_log_are_in_a_recording(root: Path, tmp_path: Path) -> None:
    found = _node.read(Host(str(replayed(root, tmp_path / "again"))))
    first, second, third = found["gpus"]
    assert [gpu["type"] for gpu in first["vgpu"]["active"]] == ["NVIDIA A10-4Q"]
    assert [gpu["type"] for gpu in third["vgpu"]["active"]] == ["593"]
    assert second["companions"] == ["0000:a1:00.1"]
    assert found["qemu"] == [{"pid": 4711, "comm": "qemu-system-x86"}]
    lines = {entry["signature"]: entry["line"] for entry in found["kernel_log"]}
    assert lines == {"fell_off_bus": f"{GPU}: GPU has fallen off the bus", "mmio_exhausted": "0000:a1:00.0: BAR 1: no space"}


def test_a_recording_of_a_recording_is_the_same_again(root: Path, tmp_path: Path) -> None:
    first = recorder.Recorder(str(root)).record()
    recorder.write_tree(first, str(tmp_path / "again"))
    second = recorder.Recorder(str(tmp_path / "again")).record()
    assert (second.files, second.links) == (first.files, first.links)


def test_every_vgpu_type_of_the_catalogue_has_the_shape_of_one() -> None:
    text = (PROGRAM.parents[1] / "tests/unit/vgpu/vgpu_types.json").read_text(encoding="utf-8")
    names = re.findall(r'"name":"([^"]+-[0-9]+[ABCQ][A-Z]*)"', text)
    assert len(names) > 400
    assert [name for name in names if not re.fullmatch(recorder.VGPU_TYPE, f"NVIDIA {name}")] == []


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("2.1.3", True),
        ("U30 v2.10", True),
        ("1.16.2-debian-1.16.2-1", True),
        ("1.16.3-debian-1.16.3-2~bpo12+1", True),
        ("1.16.3-debian-1.16.3-2~acme", False),
        ("acme-2.1.3", False),
    ],
)
def test_versions_of_firmware_stay_as_they_are_and_nothing_else_does(root: Path, version: str, kept: bool) -> None:
    (root / "sys/class/dmi/id/bios_version").write_text(f"{version}\n")
    found = recorder.Recorder(str(root)).record().files.get("sys/class/dmi/id/bios_version")
    assert found == (f"{version}\n".encode() if kept else None)


@pytest.mark.parametrize(
    "release",
    ["5.15.0-119-generic", "6.1.0-26-amd64", "5.14.0-427.13.1.el9_4.x86_64", "6.8.0-1015-nvidia-64k", "5.15.0-300.163.18.el9uek.x86_64"],
)
def test_releases_of_distributions_stay_as_they_are(release: str) -> None:
    assert recorder.Pseudonyms().release(release) == release


def test_the_same_host_gives_the_same_bytes_and_only_its_owner_can_read_them(root: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("a.tar.gz", "b.tar.gz", "a.json", "b.json", "tree")]
    before = os.umask(0)
    try:
        assert [run("--root", root, "--output", output).returncode for output in outputs] == [0] * 5
    finally:
        os.umask(before)
    assert outputs[0].read_bytes() == outputs[1].read_bytes() and outputs[2].read_bytes() == outputs[3].read_bytes()
    for path in (*outputs, *outputs[-1].rglob("*")):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_an_output_that_is_there_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    done = run("--root", root, "--output", tmp_path / "a.json")
    assert done.returncode == 1 and "Name another output" in done.stderr
    assert (tmp_path / "a.json").read_text() == "mine"


def test_the_manifest_counts_what_is_inside_and_what_was_dropped(root: Path) -> None:
    found = recorder.Recorder(str(root)).record()
    manifest = found.manifest()
    assert manifest["files"] == len(found.files) and manifest["links"] == len(found.links)
    assert manifest["dropped"]["lines of the kernel log"] == 1
    (root / "sys/bus/pci/devices" / GPU / "class").write_text("0x030200 and more\n")
    assert recorder.Recorder(str(root)).record().manifest()["dropped"]["class"] == 1


# ------------------------------------------------------------------ what must not leave the host

#: Long enough to be no value of any field, in the alphabets that names, numbers and ids are made of.
CANARIES = st.sampled_from(
    ["geheim-Kanarie.7f3a", "KANARIENVOGEL", "kanarienvogelchen", "739105558123", "deadc0ffee5ea1ab1e99", "canary_secret_name"]
)
MUTATIONS: dict[str, t.Callable[[str, str], str]] = {
    "instead": lambda text, canary: canary,
    "before": lambda text, canary: canary + text,
    "after": lambda text, canary: text.rstrip("\n") + canary + "\n",
    "another word": lambda text, canary: text.rstrip("\n") + f" {canary}\n",
    "an argument": lambda text, canary: text.rstrip("\n") + f" {canary}={canary} quiet={canary} root={canary} pci={canary}\n",
    "a value": lambda text, canary: re.sub(r"=(\S*)", lambda match: f"={canary}", text),
    "another line": lambda text, canary: f"{canary}\n{text}{canary} {canary}\n",
    "each word": lambda text, canary: re.sub(r"\w+", canary, text),
    "each last word": lambda text, canary: re.sub(r"\w+$", canary, text, flags=re.MULTILINE),
    "inside": lambda text, canary: text[: len(text) // 2] + canary + text[len(text) // 2 :],
    "a comment": lambda text, canary: f"# {canary}\n{text}",
    "none": lambda text, canary: text,
}


def rename(path: Path, canary: str) -> None:
    path.rename(path.with_name(f"{path.name}{canary}"))


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("pattern") / "host")
    (root / "proc/4711/cmdline").write_text("qemu\0-name\0guest=web,debug=on\0")
    (root / "etc/modules-load.d/a.conf").write_text("vfio-pci\n")
    (root / "etc/default/grub.d/50-a.cfg").write_text('GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT quiet"\n')
    return root


def poisoned(root: Path, canary: str, choose: t.Callable[[t.Sequence[str]], str]) -> None:
    """A canary in every file, beside every file, and in links."""
    for directory, _directories, names in list(os.walk(root)):
        for name in names:
            path = Path(directory) / name
            if path.is_symlink():
                kind = choose(["none", "none", "none", "link"])
                if kind == "link":
                    target = os.readlink(path)
                    path.unlink()
                    path.symlink_to(f"{target}{canary}")
                continue
            change = MUTATIONS[choose(list(MUTATIONS))]
            text = path.read_bytes().decode("latin-1")
            path.write_bytes(change(text, canary).encode("latin-1"))
            if choose(["none", "none", "none", "none", "rename"]) == "rename":
                rename(path, canary)
        beside = Path(directory)
        for name in (canary, f"{canary}.conf", f"{canary}.cfg", f"vmlinuz-5.15.0-{canary}", f"nvidia-{canary}"):
            (beside / name).write_text(f"{canary}\nblacklist {canary}\nGRUB_CMDLINE_LINUX={canary}\noptions vfio-pci ids={canary}\n")
        (beside / f"link-{canary}").symlink_to(canary)
        (beside / f"0000:{canary}").mkdir()


@settings(max_examples=int(os.environ.get("GPUFLEET_CANARIES", "5")), deadline=None)
@given(data=st.data(), canary=CANARIES)
def test_no_canary_sings(pattern: Path, data: st.DataObject, canary: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "host"
        shutil.copytree(pattern, root, symlinks=True)
        random = data.draw(st.randoms(use_true_random=False))
        poisoned(root, canary, random.choice)
        recording = recorder.Recorder(str(root)).record()
        document, archive = Path(directory) / "a.json", Path(directory) / "a.tar.gz"
        recorder.save(recording, str(document))
        recorder.save(recording, str(archive))
        with tarfile.open(archive) as packed:
            entries = list(packed)
            text = "\n".join(f"{entry.name} {entry.linkname} {entry.uname} {entry.gname}" for entry in entries)
        for heard in (document.read_text(), text, repr(recording.files), repr(recording.manifest())):
            assert canary not in heard
            assert canary.lower() not in heard.lower()


@pytest.mark.parametrize("mutation", sorted(MUTATIONS.keys() - {"none"}))
def test_each_way_to_hide_a_canary_is_heard_of_in_no_file(pattern: Path, tmp_path: Path, mutation: str) -> None:
    canary = "geheim-Kanarie.7f3a"
    root = tmp_path / "host"
    shutil.copytree(pattern, root, symlinks=True)
    poisoned(root, canary, lambda choices: mutation if mutation in choices else "none")
    found = recorder.Recorder(str(root)).record()
    assert canary not in recorder.as_json(found).decode()
    assert found.dropped


def test_names_have_the_same_pseudonym_throughout(root: Path) -> None:
    override = root / "sys/bus/pci/devices" / GPU / "driver_override"
    override.write_text("acme_secret\n")
    (root / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX="modprobe.blacklist=acme-secret,nouveau"\n')
    (root / "proc/sys/kernel/osrelease").write_text("5.15.0-acme\n")
    (root / "boot/vmlinuz-5.15.0-acme").write_text("")
    (root / "proc/4711/cmdline").write_text("qemu\0-name\0guest=payroll,debug=on\0-uuid\0x\0")
    found = recorder.Recorder(str(root)).record()
    assert found.files[f"sys/devices/pci0000:40/0000:40:01.0/{GPU}/driver_override"] == b"driver1\n"
    assert found.files["etc/default/grub"] == b'GRUB_CMDLINE_LINUX="modprobe.blacklist=driver1,nouveau"\n'
    assert found.files["proc/sys/kernel/osrelease"] == b"5.15.0-release1\n" and "boot/vmlinuz-5.15.0-release1" in found.files
    assert found.files["proc/4711/cmdline"] == b"qemu\0-name\0guest=vm1\0"
    assert found.manifest()["pseudonyms"]["vm"] == 1


def test_a_line_that_only_a_shell_can_read_stays_one(root: Path, tmp_path: Path) -> None:
    (root / "etc/default/grub").write_text('if true; then\nGRUB_CMDLINE_LINUX="$(hostname) quiet"\nfi\n')
    assert _node.read(Host(str(root)))["boot"]["configured"] is None
    again = replayed(root, tmp_path / "again")
    assert _node.read(Host(str(again)))["boot"]["configured"] is None
    assert "hostname" not in (again / "etc/default/grub").read_text()


def test_of_the_configuration_space_ids_and_class_remain(root: Path) -> None:
    path = next(path for path in root.rglob("config") if path.parent.name == GPU)
    path.write_bytes(b"\xde\x10\x36\x22" + bytes(range(1, 253)))
    found = recorder.Recorder(str(root)).record()
    content = found.files[f"sys/devices/pci0000:40/0000:40:01.0/{GPU}/config"]
    assert len(content) == 64 and content[:4] == b"\xde\x10\x36\x22"
    assert [position for position in range(64) if content[position]] == [0, 1, 2, 3, 8, 9, 10, 11, 14, 44, 45, 46, 47]


def test_a_sleeping_gpu_is_not_woken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = root / "sys/bus/pci/devices" / GPU
    (device / "power_state").write_text("D3cold\n")
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *more, **named: (opened.append(str(path)), real(path, *more, **named))[1])
    recorder.Recorder(str(root)).record()
    assert any(path.endswith(f"{GPU}/class") for path in opened)
    assert not any(path.endswith(f"{GPU}/config") for path in opened)


# ------------------------------------------------------------------ what a host may have in the way


def test_a_fifo_and_a_directory_where_files_are_expected_are_dropped_and_counted(root: Path) -> None:
    device = root / "sys/bus/pci/devices" / GPU
    for name in ("vendor", "device"):
        (device / name).unlink()
    os.mkfifo(device / "vendor")
    (device / "device").mkdir()
    found = recorder.Recorder(str(root)).record()
    assert found.manifest()["dropped"]["no regular file"] == 2


def test_links_out_of_the_root_and_in_circles_are_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0x10de\n")
    device = root / "sys/bus/pci/devices" / GPU
    for name, target in (("vendor", str(tmp_path / "secret")), ("device", "../" * 20 + str(tmp_path / "secret")[1:]), ("class", "class")):
        (device / name).unlink()
        (device / name).symlink_to(target)
    found = recorder.Recorder(str(root)).record()
    base = f"sys/devices/pci0000:40/0000:40:01.0/{GPU}"
    assert not found.files.keys() & {f"{base}/vendor", f"{base}/device", f"{base}/class"} and f"{base}/resource" in found.files


def test_files_of_the_running_kernel_are_read() -> None:
    dropped: t.Counter[str] = recorder.collections.Counter()
    assert recorder.Source("/", dropped).text("/proc/sys/kernel/osrelease") == f"{os.uname().release}\n"
    assert not dropped


def test_a_huge_file_is_dropped_and_counted(root: Path) -> None:
    with open(root / "boot/grub/grub.cfg", "wb") as file:
        file.truncate(1 << 40)
    found = recorder.Recorder(str(root)).record()
    assert found.manifest()["dropped"]["too large"] == 1 and "boot/grub/grub.cfg" not in found.files


def test_what_cannot_be_read_and_processes_that_end_are_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, real_list = os.open, os.listdir

    def refusing(path: str, *more: t.Any, **named: t.Any) -> int:
        if str(path).endswith(f"{GPU}/class"):
            raise PermissionError(13, "Permission denied")
        if str(path).endswith("/proc/4711/comm"):
            raise ProcessLookupError(3, "No such process")
        return real_open(path, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(os, "listdir", lambda path: [*real_list(path), *(["999999"] if str(path).endswith("/proc") else [])])
    found = recorder.Recorder(str(root)).record()
    assert found.manifest()["dropped"]["unreadable"] == 1
    assert found.manifest()["dropped"]["gone meanwhile"] == 1
    assert found.manifest()["dropped"]["processes"] == 2


def test_a_device_in_place_of_the_kernel_log_is_not_read(root: Path) -> None:
    (root / "dev/kmsg").unlink()
    (root / "dev/kmsg").symlink_to("zero")
    (root / "dev/zero").mkdir()
    found = recorder.Recorder(str(root)).record()
    assert "dev/kmsg" not in found.files and found.manifest()["dropped"]["no regular file"] == 1


# ------------------------------------------------------------------ replaying what somebody sent


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("files", {"../out": "x"}),
        ("files", {"/out": "x"}),
        ("files", {"sys/../../out": "x"}),
        ("links", {"out": "/"}),
        ("links", {"out": ".."}),
        ("links", {"a/out": "../../b"}),
        ("links", {"here": "x/../../out", "x": "."}),
        ("links", {"proc/7/fd/1": "/etc/shadow"}),
        ("files", {"": "x"}),
        ("files", {"sys/x": 7}),
    ],
)
def test_a_recording_that_leads_out_is_refused(tmp_path: Path, part: str, entry: dict[str, t.Any]) -> None:
    document: dict[str, t.Any] = {"manifest": {}, "directories": [], "links": {}, "files": {}}
    document[part] = entry
    (tmp_path / "a.json").write_text(json.dumps(document))
    done = run("--replay", tmp_path / "a.json", "--output", tmp_path / "out")
    assert done.returncode == 1 and "Replaying" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_below_a_link_is_refused(tmp_path: Path) -> None:
    document = {"manifest": {}, "directories": ["b"], "links": {"a": "b"}, "files": {"a/x": "x"}}
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert run("--replay", tmp_path / "a.json", "--output", tmp_path / "out").returncode == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\x1f\x8bno archive", b'{"files": []}'])
def test_what_is_no_recording_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    done = run("--replay", tmp_path / "a", "--output", tmp_path / "out")
    assert done.returncode == 1 and "it is no recording" in done.stderr and "Traceback" not in done.stderr
