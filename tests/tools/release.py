# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the collection's archive so that the same commit gives the same bytes, wherever and by whomever it is built.

``ansible-galaxy collection build`` decides what goes in. It also puts in who built it and when, and lists files in the order in which the file
system gives them; that is levelled here: order by name, owner 0, modes 0644 and 0755, and the time of the commit.

    python tests/tools/release.py [DIRECTORY]     the archive, in ``dist`` if no directory is given, and its SHA-256
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import env

MANIFEST, FILES = "MANIFEST.json", "FILES.json"
#: Owner may execute: so may everybody, and nobody else may write.
EXECUTABLE, PLAIN = 0o755, 0o644


def git(*arguments: str) -> str:
    # The checkout may belong to another user than the one who builds.
    command = ["git", "-c", f"safe.directory={env.CHECKOUT}", *arguments]
    return subprocess.run(command, cwd=env.CHECKOUT, check=True, capture_output=True, text=True).stdout


def uncommitted() -> list[str]:
    """Files that differ from the last commit, or that it does not know."""
    return [line[3:] for line in git("status", "--porcelain").splitlines()]


def copy(destination: Path) -> None:
    """The files of the last commit."""
    packed = subprocess.run(
        ["git", "-c", f"safe.directory={env.CHECKOUT}", "archive", "--format=tar", "HEAD"],
        cwd=env.CHECKOUT,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(destination, filter="data")


def dumped(content: t.Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def ordered(contents: dict[str, bytes]) -> dict[str, bytes]:
    """The two lists in an archive, in one order: FILES.json by name, and in MANIFEST.json what FILES.json has become."""
    files = json.loads(contents[FILES])
    files["files"] = sorted(files["files"], key=lambda entry: entry["name"])
    listed = dumped(files)
    manifest = json.loads(contents[MANIFEST])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(listed).hexdigest()
    return {**contents, FILES: listed, MANIFEST: dumped(manifest)}


def level(built: bytes, seconds: int) -> bytes:
    """The same archive without a trace of where and when it was built. ``seconds`` since 1970 are the time that everything in it gets."""
    directories, contents, modes = [], {}, {}
    with tarfile.open(fileobj=io.BytesIO(built)) as archive:
        for member in archive:
            if member.isdir():
                directories.append(member.name)
            elif member.isfile():
                contents[member.name] = archive.extractfile(member).read()  # type: ignore[union-attr]
                modes[member.name] = EXECUTABLE if member.mode & 0o100 else PLAIN
            else:
                raise SystemExit(f"Building the archive: {member.name} is neither a file nor a directory. Take it out of the collection.")
    contents = ordered(contents)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # Galaxy reads the manifest first.
        for name in sorted([*directories, *contents], key=lambda name: (name != MANIFEST, name != FILES, name)):
            entry = tarfile.TarInfo(name)
            entry.mtime = seconds
            if name in contents:
                entry.size, entry.mode = len(contents[name]), modes[name]
                archive.addfile(entry, io.BytesIO(contents[name]))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, EXECUTABLE
                archive.addfile(entry)
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=seconds)


def build(directory: Path) -> Path:
    """The archive of the last commit, in ``directory``."""
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        copy(source)
        env.call("Building the collection archive", "ansible-galaxy", "collection", "build", "--output-path", Path(scratch), source)
        built = next(Path(scratch).glob("gpufleet-kubevirt-*.tar.gz"))
        directory.mkdir(parents=True, exist_ok=True)
        archive = directory / built.name
        archive.write_bytes(level(built.read_bytes(), int(git("log", "-1", "--format=%ct"))))
    return archive


def main(arguments: list[str]) -> int:
    if changed := uncommitted():
        print(f"Building a release: {len(changed)} files are not as in the last commit, such as {changed[0]}. Commit or remove them first.")
        return 1
    archive = build(Path(arguments[0]) if arguments else env.CHECKOUT / "dist")
    print(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
