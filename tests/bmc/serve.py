# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test BMCs as processes of their own, on loopback, each with its address in a file.

    python -m tests.bmc.serve up DIRECTORY         makes certificates in it and starts both kinds
    python -m tests.bmc.serve down DIRECTORY       stops what is there, by its own process id
    python -m tests.bmc.serve KIND DIRECTORY       runs one in the foreground

``emulator`` is OpenStack's Redfish emulator (sushy-tools): its service, routes, registry, TLS and passwords. Its fake driver has no BIOS
settings, so they are given to it here, kept and changed as its libvirt driver does: at once. ``dell`` is :mod:`tests.bmc.fake`, whose
settings wait for a reset.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.tools.children import die_with_parent

CHECKOUT = Path(__file__).resolve().parents[2]
KINDS = ("emulator", "dell")
SYSTEM = "b1b1b1b1-0000-4000-8000-000000000001"
_START_SECONDS = 60.0


def emulator(directory: Path) -> None:
    import bcrypt
    from sushy_tools.emulator import main as service
    from sushy_tools.emulator.resources.systems.fakedriver import FakeDriver
    from sushy_tools.emulator.resources.systems.libvirtdriver import LibvirtDriver

    from tests.bmc.fake import PASSWORD, USER

    # What the terms need, named as Dell does; the emulator's registry does not know them.
    more = {"ProcVirtualization": "Disabled", "SriovGlobalEnable": "Disabled", "MmioAbove4Gb": "Enabled"}

    class Driver(FakeDriver):
        def get_bios(self, identity: str) -> dict[str, str]:
            return dict(self._get(identity).get("bios") or {**LibvirtDriver.DEFAULT_BIOS_ATTRIBUTES, **more})

        def set_bios(self, identity: str, attributes: dict[str, str]) -> None:
            self._update(identity, bios={**self.get_bios(identity), **attributes})

    service.fakedriver.FakeDriver = Driver
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "passwords").write_text(f"{USER}:{hashed}\n", encoding="utf-8")
    settings = {
        "LISTEN_IP": "127.0.0.1",
        "LISTEN_PORT": 0,
        "SSL_CERT": str(directory / "server.crt"),
        "SSL_KEY": str(directory / "server.key"),
        "AUTH_FILE": str(directory / "passwords"),
        "STATE_DIR": str(directory / "emulator"),
        "FAKE_DRIVER": True,
        "FAKE_SYSTEMS": [{"uuid": SYSTEM, "name": "gpu", "power_state": "On", "nics": []}],
    }
    configuration = directory / "emulator.conf"
    configuration.write_text("".join(f"SUSHY_EMULATOR_{key} = {value!r}\n" for key, value in settings.items()), encoding="utf-8")
    sys.argv = ["sushy-emulator", "--config", str(configuration)]

    import werkzeug.serving

    make = werkzeug.serving.make_server

    def announced(*arguments: t.Any, **more: t.Any) -> t.Any:
        server = make(*arguments, **more)
        announce(directory, "emulator", f"127.0.0.1:{server.server_port}")
        return server

    werkzeug.serving.make_server = announced
    service.main()


def dell(directory: Path) -> None:
    from tests.bmc import vendors
    from tests.bmc.fake import Bmc

    bmc = Bmc(vendors.dell(), directory)
    announce(directory, "dell", bmc.address)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def announce(directory: Path, kind: str, address: str) -> None:
    new = directory / f"{kind}.new"
    new.write_text(address, encoding="utf-8")
    new.rename(directory / f"{kind}.address")


def start(kind: str, directory: Path, outlives: bool = False) -> tuple[subprocess.Popen[bytes], str]:
    """A running BMC of this kind, and its address. ``directory`` holds the certificates; unless it ``outlives`` who starts it, it ends with it."""
    with (directory / f"{kind}.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.bmc.serve", kind, str(directory)]
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=None if outlives else die_with_parent,  # noqa: PLW1509  # no thread of ours holds a lock at this time
        )
    address = directory / f"{kind}.address"
    until = time.monotonic() + _START_SECONDS
    while not address.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait()
            end = (directory / f"{kind}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"Starting the test BMC {kind}: it ended or did not say its address.\n{end}")
        time.sleep(0.02)
    return process, address.read_text(encoding="utf-8")


def up(directory: Path) -> None:
    from tests.bmc import certificates

    down(directory)
    directory.mkdir(mode=0o700, parents=True)
    certificates.make(directory)
    for kind in KINDS:
        process, address = start(kind, directory, outlives=True)
        (directory / f"{kind}.pid").write_text(str(process.pid), encoding="utf-8")
        print(f"{kind} {address}")


def down(directory: Path) -> None:
    for file in sorted(directory.glob("*.pid")):
        pid = int(file.read_text(encoding="utf-8"))
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # A process id may be somebody else's by now.
            if str(directory) in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"):
                os.kill(pid, signal.SIGTERM)
                while Path(f"/proc/{pid}/cmdline").read_bytes():
                    time.sleep(0.02)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    verb, where = sys.argv[1], Path(sys.argv[2])
    {"up": up, "down": down, "emulator": emulator, "dell": dell}[verb](where)
