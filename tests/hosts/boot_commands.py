# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-ins for the programs that make boot entries: they act on the files of a host tree, and each call is recorded.

They do what their documentation says (update-grub: grub-mkconfig(8), grubby(8), grub2-editenv(1), kernel-install(8) with systemd's
90-loaderentry.install), on the files of the tree, and know nothing of the code under test. What goes wrong in one is asked for by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

from tests.hosts import tree

LOG = "commands.log"
FAULTS = "faults.json"


def run(arguments: list[str]) -> tuple[int, str]:
    """``chroot`` with these arguments: the exit code, and both output streams as one text."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = _run(arguments)
    return code, output.getvalue()


def calls(root: Path) -> list[list[str]]:
    """The commands that ran in a tree, in their order, without the ones that only ask."""
    log = root / LOG
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [call for call in lines if not any(word.startswith(("--info", "--default")) for word in call)]


def fault(root: Path, **faults: object) -> None:
    """What goes wrong from now on: ``fails`` (exit code), ``leaves_out`` or ``drops`` (an argument), ``writes`` (path to text)."""
    (root / FAULTS).write_text(json.dumps(faults))


def _run(arguments: list[str]) -> int:
    root, command = Path(arguments[0]), arguments[1:]
    with (root / LOG).open("a") as log:
        log.write(json.dumps(command) + "\n")
    if not (root / command[0].lstrip("/")).exists():
        print(f"chroot: failed to run command '{command[0]}': No such file or directory")
        return 127
    faults = json.loads((root / FAULTS).read_text()) if (root / FAULTS).exists() else {}
    name, rest = Path(command[0]).name, command[1:]
    if faults.get("fails") and not any(word.startswith(("--info", "--default")) for word in rest):
        print("cannot write: no space left")
        return int(faults["fails"])
    for path, text in faults.get("writes", {}).items():
        (root / path).write_text(text)
    if name == "update-grub":
        return update_grub(root, faults)
    if name == "grubby":
        return grubby(root, rest, faults)
    if name == "grub2-editenv":
        return editenv(root, rest)
    return kernel_install(root, rest, faults)


def _faulty(words: list[str], faults: dict[str, str]) -> list[str]:
    return [word for word in words if word not in (faults.get("leaves_out"), faults.get("drops"))]


def update_grub(root: Path, faults: dict[str, str]) -> int:
    config = root / "boot/grub/grub.cfg"
    line = " ".join(_faulty(tree.grub_arguments(root).split(" "), faults))
    config.write_text(re.sub(r"(?m)^(\tlinux\t.* ro ?).*$", lambda match: match.group(1).rstrip() + " " + line, config.read_text()))
    return 0


def fields(path: Path) -> dict[str, str]:
    return dict((*line.split(None, 1), "")[:2] for line in path.read_text().splitlines() if line and not line.startswith("#"))  # type: ignore[misc]


def set_options(path: Path, options: str) -> None:
    path.write_text(re.sub(r"(?m)^options.*$", lambda match: f"options {options}", path.read_text()))


def environment(root: Path) -> dict[str, str]:
    file = root / "boot/grub2/grubenv"
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line) if file.exists() else {}


def grubby(root: Path, words: list[str], faults: dict[str, str]) -> int:
    given = dict(word.lstrip("-").split("=", 1) if "=" in word else (word.lstrip("-"), "") for word in words)
    files = sorted((root / "boot/loader/entries").glob("*.conf"), reverse=True)
    opts = environment(root).get("kernelopts", "")
    if "info" in given:
        for index, file in enumerate(files):
            values = fields(file)
            options = values["options"].replace("$kernelopts", opts)
            print(f'index={index}\nkernel="/boot{values["linux"]}"\nargs="{options}"\nroot="/dev/mapper/rhel-root"')
            initrd = values["initrd"]
            print(f'initrd="/boot{initrd}"\ntitle="{values["title"]}"\nid="{file.stem}"')
        print(f"index={len(files)}\nnon linux entry")
        return 0
    if "default-kernel" in given:
        saved = environment(root).get("saved_entry")
        default = next((file for file in files if file.stem == saved), files[0])
        print("/boot" + fields(default)["linux"])
        return 0
    for file in files:
        values = fields(file)
        if given["update-kernel"] in ("ALL", "/boot" + values["linux"]):
            line = values["options"].replace("$kernelopts", opts).split()
            line = changed(line, given.get("remove-args", "").split(), given.get("args", "").split())
            set_options(file, " ".join(_faulty(line, faults)))
    return 0


def changed(line: list[str], remove: list[str], add: list[str]) -> list[str]:
    """As grubby(8) says: what is removed by its name goes with any value, and "the new value replaces the old values"."""
    for word in remove:
        line = [old for old in line if old != word and ("=" in word or old.split("=")[0] != word)]
    line = [old for old in line if old.split("=")[0] not in {word.split("=")[0] for word in add}]
    return line + add


def editenv(root: Path, words: list[str]) -> int:
    path, verb, (name, value) = words[0], words[1], words[2].split("=", 1)
    assert verb == "set"
    values = {**environment(root), name: value}
    text = "# GRUB Environment Block\n" + "".join(f"{key}={values[key]}\n" for key in values)
    (root / path.lstrip("/")).write_text(text.ljust(1024, "#"))
    return 0


def kernel_install(root: Path, words: list[str], faults: dict[str, str]) -> int:
    verb, release, image = words
    assert verb == "add"
    source = next(
        (root / path for path in ("etc/kernel/cmdline", "usr/lib/kernel/cmdline") if (root / path).exists()), root / "proc/cmdline"
    )
    machine = (root / "etc/machine-id").read_text().strip()
    boot = next(root / place for place in ("efi", "boot/efi", "boot") if (root / place / "loader/entries").is_dir())
    options = _faulty(source.read_text().split(), faults)
    options += [f"systemd.machine_id={machine}"] if not any(word.startswith("systemd.machine_id=") for word in options) else []
    directory = boot / machine / release
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / image.lstrip("/"), directory / "linux")
    line = f"initrd     /{machine}/{release}/initrd\n"
    if faults.get("no_initrd"):  # no plugin has made one
        line = ""
    else:
        (directory / "initrd").write_text("made anew")
    (boot / f"loader/entries/{machine}-{release}.conf").write_text(
        f"title      Lab\nversion    {release}\nmachine-id {machine}\nsort-key   lab\noptions    {' '.join(options)}\n"
        f"linux      /{machine}/{release}/linux\n{line}"
    )
    return 0
