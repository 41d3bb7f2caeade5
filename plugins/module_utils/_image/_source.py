# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The driver container's sources: a directory as it lies, or one commit of a git repository; and the build context made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import stat
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _installer, _programs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: Where the sources keep one directory per operating system (NVIDIA/gpu-driver-container).
BELOW = "vgpu-manager"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:\S+")
_GIT = {"GIT_TERMINAL_PROMPT": "0"}
_CORRECT = "Correct gpufleet_vgpu_source (options source and revision)"


@dataclasses.dataclass(frozen=True)
class Source:
    """``where`` is a directory, or what git clones; ``commit`` only of git."""

    where: str
    commit: t.Optional[str] = None

    @property
    def target(self) -> str:
        return f"source {self.where}"


def resolve(where: str, revision: str | None, timeout: float) -> Source:
    """A branch or tag becomes a commit. Raises Refused."""
    scheme, separator, rest = where.partition("://")
    who, at, _host = rest.partition("/")[0].rpartition("@")
    if separator and at and (":" in who or scheme == "https"):
        # Before an https address even a lone name may be a token, as GitHub and GitLab take them, and addresses are shown.
        raise Refused(f"source {scheme}://...", "its address has a password or a user in it", "Leave that to git's credential helper")
    target = f"source {where}"
    if separator and scheme not in ("https", "ssh", "file"):
        raise Refused(target, f"{scheme} does not prove who sends the sources", f"Give an https or ssh address. {_CORRECT}")
    remote = bool(separator) or bool(_SCP.fullmatch(where))
    if not remote and not os.path.isdir(where):
        raise Refused(target, "there is no such directory", _CORRECT)
    if not revision:
        if remote:
            raise Refused(target, "no revision is given", "Give the commit, tag or branch to build from in gpufleet_vgpu_source_revision")
        return Source(os.path.abspath(where))
    if _COMMIT.fullmatch(revision):
        return Source(where, revision)
    if not _REVISION.fullmatch(revision):
        raise Refused(target, f"{revision!r} is no name of a branch or tag", _CORRECT)
    names = [f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}"]
    printed = _git(target, timeout, "ls-remote", "--", where, *names)
    found = {name: commit for commit, _tab, name in (line.partition("\t") for line in printed.splitlines())}
    commit = next((found[name] for name in names if name in found), None)
    if commit is None:
        raise Refused(target, f"it has no branch or tag {revision}", f"{_CORRECT}; a commit is given with all its digits")
    return Source(where, commit)


def _git(target: str, timeout: float, verb: str, *arguments: str, at: t.Sequence[str] = ()) -> str:
    if not shutil.which("git"):
        raise Refused(target, "git is not installed here", "Install git, or give a directory with the sources")
    try:
        return _programs.run(["git", *at, verb, *arguments], timeout, _GIT)
    except _programs.Failed as error:
        raise Refused(target, f"git {verb} failed: {error.end}", _CORRECT) from None


def fetch(source: Source, scratch: str, timeout: float) -> str:
    """A directory with the sources: the given one, or the commit's files below ``scratch``. Raises Refused."""
    if source.commit is None:
        return source.where
    repository, tree = os.path.join(scratch, "git"), os.path.join(scratch, "source")
    where = os.path.abspath(source.where) if os.path.isdir(source.where) else source.where
    os.mkdir(tree, 0o700)
    _git(source.target, timeout, "init", "-q", "--bare", "--", repository)
    at = ["--git-dir", repository, "--work-tree", tree]
    _git(source.target, timeout, "fetch", "-q", "--depth", "1", "--no-tags", "--", where, source.commit, at=at)
    _git(source.target, timeout, "checkout", "-q", source.commit, "--", ".", at=at)
    return tree


def files_of(target: str, tree: str, directory: str) -> list[str]:
    """Paths of all files that belong into the context of one operating system, sorted, relative to its directory. Raises Refused.

    Installers that lie there are left out: the one that is asked for comes from elsewhere.
    """
    top = os.path.join(tree, BELOW, directory)
    if not os.path.isfile(os.path.join(top, "Dockerfile")):
        try:
            known = sorted(
                entry for entry in os.listdir(os.path.join(tree, BELOW)) if os.path.isfile(os.path.join(tree, BELOW, entry, "Dockerfile"))
            )
        except OSError:
            raise Refused(target, f"it has no directory {BELOW}, so it is no driver container source", _CORRECT) from None
        problem = f"it has no {BELOW}/{directory} with a Dockerfile, only {', '.join(known) or 'none at all'}"
        raise Refused(target, problem, "Take newer sources, or leave that out of gpufleet_vgpu_os_tags (option os_tags)")
    found = []

    def unreadable(error: OSError) -> t.NoReturn:
        raise _unreadable(target, error)

    for path, directories, names in os.walk(top, onerror=unreadable):
        directories[:] = [name for name in directories if name != ".git"]
        for name in [*names, *(link for link in directories if os.path.islink(os.path.join(path, link)))]:
            whole = os.path.join(path, name)
            mode = os.lstat(whole).st_mode
            if stat.S_ISLNK(mode) and not os.path.realpath(whole).startswith(os.path.realpath(top) + os.sep):
                raise Refused(target, f"{os.path.relpath(whole, tree)} is a link that leads out of {BELOW}/{directory}", "Put a file there")
            if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                raise Refused(target, f"{os.path.relpath(whole, tree)} is neither a file nor a link", "Remove it")
            if not (name.startswith("NVIDIA-Linux-") and name.endswith(".run")):
                found.append(os.path.relpath(whole, top))
    return sorted(found)


def _unreadable(target: str, error: OSError) -> Refused:
    return Refused(target, f"{error.filename} cannot be read: {error.strerror or error}", "Let the user who builds read it, or remove it")


def digest_of(target: str, tree: str, directory: str, files: t.Iterable[str]) -> str:
    """SHA-256 over names, executable bits and contents of files, in hexadecimal. Times and owners are none of it. Raises Refused."""
    digest = hashlib.sha256()
    for name in files:
        path = os.path.join(tree, BELOW, directory, name)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                kind, content = "link", os.readlink(path)
            else:
                kind, content = ("program" if status.st_mode & 0o111 else "file"), _installer.sha256_of(path)
        except OSError as error:
            raise _unreadable(target, error) from None
        digest.update(os.fsencode(f"{name}\0{kind}\0{content}\0"))
    return digest.hexdigest()


def make_context(into: str, tree: str, directory: str, files: t.Iterable[str], installer: _installer.Installer) -> None:
    """A new directory, 0700, with exactly these files and the installer under the name that the Dockerfile copies. Raises Refused."""
    try:
        os.mkdir(into, 0o700)
        for name in files:
            target = os.path.join(into, name)
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            shutil.copy2(os.path.join(tree, BELOW, directory, name), target, follow_symlinks=False)
    except OSError as error:
        problem = f"{error.filename or into} cannot be copied into the build context: {error.strerror or error}"
        raise Refused(
            f"source {tree}", problem, "Make room in TMPDIR of the machine that builds, or let the user who builds read it"
        ) from None
    copied = os.path.join(into, installer.name_in_context)
    try:
        shutil.copyfile(installer.path, copied)
        os.chmod(copied, 0o644)
        same = _installer.sha256_of(copied) == installer.sha256
    except OSError as error:
        problem = f"it cannot be copied into the build context: {error.strerror or error}"
        raise Refused(f"installer {installer.path}", problem, "Make room in TMPDIR of the machine that builds") from None
    if not same:
        raise Refused(f"installer {installer.path}", "it was changed while it was read", "Run again when it is whole")
