# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where one lab keeps what: its state directory, and what makes a directory a lab's."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = "tests/lab/lab"

# The clients of the API server: file name of the certificate -> (CN = user, O = group).
# Nobody but `operator` may call itself gpufleet: the audit log is read by that name.
IDENTITIES = {
    "admin": ("admin", "system:masters"),
    "operator": ("gpufleet", "system:masters"),
    "simulation": ("gpu-operator-simulation", "system:masters"),
    "kwok": ("kwok", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "virt-api": ("kubevirt-api", "system:masters"),
    # KubeVirt's own webhook lets only this service account write a VMI's status.
    "virt-controller": ("system:serviceaccount:kubevirt:kubevirt-controller", "system:masters"),
}


class LabError(Exception):
    """Something a person has to read: what was being done, on what, what was found, what to do."""


@dataclass(frozen=True)
class Layout:
    """The paths of one lab."""

    directory: Path

    @classmethod
    def from_environment(cls) -> Layout:
        """`$GPUFLEET_LAB_DIR`, else `.lab` in the checkout."""
        return cls(Path(os.environ.get("GPUFLEET_LAB_DIR") or CHECKOUT / ".lab").absolute())

    @property
    def record(self) -> Path:
        """Ports, programs and options of a lab that is up: its presence says that the directory is a lab's."""
        return self.directory / "lab.json"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def hosts(self) -> Path:
        """One directory tree per simulated host, named after its node."""
        return self.directory / "hosts"

    @property
    def events(self) -> Path:
        """JSON lines of what befell virtual machines."""
        return self.directory / "events.jsonl"

    @property
    def audit(self) -> Path:
        return self.directory / "audit.log"

    @property
    def programs(self) -> Path:
        """Symlink to the directory of the built programs."""
        return self.directory / "bin"

    def kubeconfig(self, identity: str) -> Path:
        return self.directory / f"{identity}.kubeconfig"

    def is_lab(self) -> bool:
        return self.record.is_file()

    def read(self) -> dict[str, Any]:
        """The record of a lab that is up; LabError when there is none."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
        except FileNotFoundError:
            raise LabError(f"There is no lab in {self.directory}. Start one with `{COMMAND} up`.") from None
        except ValueError as e:
            raise LabError(f"The record of the lab in {self.directory} cannot be read ({e}). Clean up with `{COMMAND} down`.") from None
        return record

    def create(self, record: dict[str, Any]) -> None:
        """Make the directories, readable by their owner only; refuse a directory that holds anything else."""
        if self.directory.exists():
            foreign = sorted(p.name for p in self.directory.iterdir() if p.name != "log")
            if foreign:
                raise LabError(
                    f"The lab cannot use {self.directory}: it already holds {', '.join(foreign[:5])}, which no lab put there. "
                    "Choose an empty directory with GPUFLEET_LAB_DIR."
                )
            shutil.rmtree(self.log, ignore_errors=True)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.write(record)
        for directory in (self.pki, self.log, self.run, self.hosts):
            directory.mkdir(mode=0o700)

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record in one step."""
        beside = self.record.with_suffix(".new")
        beside.write_text(json.dumps(record, indent=2) + "\n")
        beside.replace(self.record)

    def remove(self, keep_log: bool = False) -> None:
        """Remove all that a lab wrote; of a directory that is no lab's, nothing."""
        if not self.is_lab():
            return
        for entry in self.directory.iterdir():
            if entry == self.record or (keep_log and entry == self.log):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self.record.unlink()  # last: until here `down` can be repeated
        if not keep_log:
            self.directory.rmdir()

    @contextlib.contextmanager
    def lock(self, seconds: float = 60) -> Iterator[None]:
        """Only one command at a time brings this lab up, down or back.

        The lock is on the parent directory, because the lab's own comes and goes.
        """
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise LabError(
                            f"Another lab command has been at work on {self.directory} for {seconds:.0f} s. Wait for it, or stop it."
                        ) from None
                    time.sleep(0.2)
            yield
        finally:
            os.close(fd)
