# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archive that users install: the same bytes from the same commit, nothing in it that is not theirs, and it installs without a network."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.tools import env, release

#: What stands at the top of the archive. Only the first four are needed at run time.
TOP = {"meta", "plugins", "roles", "playbooks"} | {"awx", "docs", "execution-environment", "inventories", "tools"}
TEXTS = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "MANIFEST.json", "FILES.json"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release.build(tmp_path_factory.mktemp("dist"))


def packed(names: list[str], *, owner: str, seconds: int, umask: int) -> bytes:
    """An archive as ``ansible-galaxy`` makes it for somebody: files in the order of their file system."""
    listed = json.dumps({"files": [{"name": name, "ftype": "file"} for name in names], "format": 1}).encode()
    manifest = json.dumps({"file_manifest_file": {"chksum_sha256": hashlib.sha256(listed).hexdigest()}, "format": 1}).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as built:
        for name, content in [("MANIFEST.json", manifest), ("FILES.json", listed), *((name, name.encode()) for name in names)]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname, entry.mode = len(content), seconds, owner, (0o777 if name == "tool" else 0o666) & ~umask
            built.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def test_who_builds_and_when_leaves_no_trace() -> None:
    one = release.level(packed(["a", "b", "tool"], owner="root", seconds=1, umask=0o022), 7)
    other = release.level(packed(["tool", "b", "a"], owner="someone", seconds=99, umask=0o077), 7)
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        entries = archive.getmembers()
        assert [(entry.name, entry.mode) for entry in entries][:2] == [("MANIFEST.json", 0o644), ("FILES.json", 0o644)]
        assert {entry.name: entry.mode for entry in entries}["tool"] == 0o755
        assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(7, 0, 0, "")}


def test_a_link_is_not_packed() -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as built:
        entry = tarfile.TarInfo("README.md")
        entry.type, entry.linkname = tarfile.SYMTYPE, "elsewhere"
        built.addfile(entry)
    with pytest.raises(SystemExit, match=r"README\.md is neither a file nor a directory"):
        release.level(raw.getvalue(), 0)


def test_the_same_commit_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert release.build(tmp_path).read_bytes() == archive.read_bytes()


def test_the_archive_holds_what_users_need_and_nothing_of_ours(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        names = [entry.name for entry in opened.getmembers()]
        listed = opened.extractfile("FILES.json").read()  # type: ignore[union-attr]
        manifest = json.loads(opened.extractfile("MANIFEST.json").read())  # type: ignore[union-attr]
    assert {name.split("/")[0] for name in names} == TOP | TEXTS
    assert not [name for name in names if name.startswith("inventories/lab")]
    assert manifest["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(listed).hexdigest()
    assert manifest["collection_info"]["version"] == yaml.safe_load((env.CHECKOUT / "galaxy.yml").read_text())["version"]


def clone(directory: Path) -> Path:
    """A repository of its own: a checkout may be a work tree, or belong to another user."""
    release.copy(directory)
    author = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["-c", "commit.gpgsign=false", "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=directory, env={**os.environ, **author}, check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("source", ["archive", "git", "directory"])
def test_it_installs_without_a_network(source: str, archive: Path, tmp_path: Path) -> None:
    place = tmp_path / "source"
    if source != "archive":
        place.mkdir()
        clone(place)
    given = {"archive": str(archive), "git": f"git+file://{place}", "directory": str(place)}[source]
    command = ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(tmp_path / "to"), given]
    # As for somebody who has no other collections: among those of this environment is the checkout.
    elsewhere = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    elsewhere["ANSIBLE_HOME"] = str(tmp_path / "home")
    done = subprocess.run(command, env=elsewhere, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = tmp_path / "to" / "ansible_collections" / "gpufleet" / "kubevirt"
    assert (installed / "plugins/modules/kubevirt_permit.py").is_file(), done.stdout
    assert not (installed / "tests").exists()
    verified = subprocess.run(
        ["ansible-galaxy", "collection", "verify", "--offline", "-p", str(tmp_path / "to"), "gpufleet.kubevirt"],
        env=elsewhere, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_what_is_not_committed_is_not_released(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(release, "uncommitted", lambda: ["roles/new.yml"])
    assert release.main([str(tmp_path)]) == 1
    assert "1 files are not as in the last commit, such as roles/new.yml" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
