# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a kernel binds PCI functions to drivers: ``driver_override``, ``unbind``, ``bind`` and ``drivers_probe``.

Sources: the kernel's drivers/base/bus.c, drivers/base/dd.c and drivers/pci/pci-driver.c; what the kernel suite measures is what counts.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _holders, _pci
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Opened
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import KernelTimeout
from tests.hosts.kernel import ReactingHost, reaction

#: The driver that takes a function that nobody has asked to be on another: by vendor and class, the first that is loaded.
HOST_DRIVERS = {
    ("10de", "0300"): ("nvidia", "nouveau"),
    ("10de", "0302"): ("nvidia", "nouveau"),
    ("10de", "0403"): ("snd_hda_intel",),
    ("10de", "0c03"): ("xhci_hcd",),
    ("8086", "0200"): ("igb", "ice"),
    ("144d", "0108"): ("nvme",),
}
_ADDRESS = r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"


def load(root: Path, driver: str) -> None:
    """Give the kernel a driver, and nothing to do for it."""
    (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)


def unwilling(root: Path, driver: str, address: str) -> None:
    """From now on the probe of this driver fails for this function, as it does when something else reserves a BAR."""
    (root / f"sys/bus/pci/drivers/{driver}/unwilling-{address}").touch()


@reaction(rf"/sys/devices/.*/({_ADDRESS})/driver_override")
def _override(host: ReactingHost, match: object, text: str) -> None:
    host.put(host.resolve(match.group(0)), f"{text.strip() or '(null)'}\n")  # type: ignore[attr-defined]


@reaction(r"/sys/bus/pci/drivers/([^/]+)/unbind")
def _unbind(host: ReactingHost, match: object, text: str) -> None:
    function = _function(host, text)
    if function.driver != match.group(1):  # type: ignore[attr-defined]
        raise OSError(errno.ENODEV, "")
    if function.on_vfio and _holders.holders_of(host, function, Opened(host)):
        raise KernelTimeout(match.group(0), "no answer from the kernel; it may still do what was asked")  # type: ignore[attr-defined]
    leave(host, function)


@reaction(r"/sys/bus/pci/drivers/([^/]+)/bind")
def _bind(host: ReactingHost, match: object, text: str) -> None:
    function = _function(host, text)
    driver = match.group(1)  # type: ignore[attr-defined]
    if driver not in _matching(host, function):
        raise OSError(errno.ENODEV, "")
    if function.driver is not None:
        raise OSError(errno.EBUSY, "")
    if not _wants(host, function, driver):
        raise OSError(errno.EINVAL, "")
    take(host, function, driver)


@reaction(r"/sys/bus/pci/drivers_probe")
def _probe(host: ReactingHost, match: object, text: str) -> None:
    # A function that has a driver, or for which there is none, or whose driver does not want it: the write succeeds all the same.
    function = _function(host, text)
    if function.driver is None:
        for driver in _matching(host, function)[:1]:
            if _wants(host, function, driver):
                take(host, function, driver)


def _function(host: ReactingHost, text: str) -> _pci.Function:
    address = text.strip()
    if not host.exists(f"/sys/bus/pci/devices/{address}"):
        raise OSError(errno.ENODEV, "")
    return _pci.function(host, address)


def _matching(host: ReactingHost, function: _pci.Function) -> list[str]:
    """The loaded drivers that may take a function: with an override that one and no other."""
    override = (host.read_text(f"{function.path}/driver_override") or "").strip()
    names = (override,) if override not in ("", "(null)") else HOST_DRIVERS.get((function.vendor, function.kind), ())
    return [name for name in names if host.exists(f"/sys/bus/pci/drivers/{name}")]


def _wants(host: ReactingHost, function: _pci.Function, driver: str) -> bool:
    """Does the driver's probe succeed? VFIO's needs an IOMMU group."""
    unwilling = host.exists(f"/sys/bus/pci/drivers/{driver}/unwilling-{function.address}")
    return not unwilling and ("vfio" not in driver or function.group is not None)


def leave(host: ReactingHost, function: _pci.Function) -> None:
    """A driver lets go of a function: what it made of it is gone."""
    real = Path(host.root + host.resolve(function.path))
    os.unlink(real / "driver")
    os.unlink(Path(host.root, f"sys/bus/pci/drivers/{function.driver}/{function.address}"))
    for name in host.names("/sys/class/net"):
        if host.resolve(f"/sys/class/net/{name}").startswith(f"{host.resolve(function.path)}/"):
            os.unlink(Path(host.root, "sys/class/net", name))
    for made in ("net", "drm", "sound"):
        shutil.rmtree(real / made, ignore_errors=True)
    others = [_pci.function(host, member) for member in host.names(f"{function.path}/iommu_group/devices")]
    if function.on_vfio and not any(other.on_vfio for other in others):
        Path(host.root, f"dev/vfio/{function.group}").unlink(missing_ok=True)


def take(host: ReactingHost, function: _pci.Function, driver: str) -> None:
    """A driver takes a function."""
    place = host.resolve(function.path)
    directory = f"/sys/bus/pci/drivers/{driver}"
    Path(host.root + place, "driver").symlink_to(os.path.relpath(directory, place))
    Path(host.root + directory, function.address).symlink_to(os.path.relpath(place, directory))
    if "vfio" in driver:
        node = Path(host.root, f"dev/vfio/{function.group}")
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
