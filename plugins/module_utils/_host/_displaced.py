# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drivers that functions had before they were bound to VFIO, so that a release can give them back. Written before the act."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ._pci import Function
from ._sysfs import Host, HostError

PATH = "/var/lib/gpufleet/vfio.json"
_MODE = 0o600


@dataclasses.dataclass(frozen=True)
class Displaced:
    """What stood at an address, and the driver that it had (None: none)."""

    vendor_device: str
    driver: t.Optional[str]

    def fits(self, function: Function) -> bool:
        """Is this still the same kind of device? An address can come to name another one."""
        return self.vendor_device == ids(function)


def ids(function: Function) -> str:
    return f"{function.vendor}:{function.device}".upper()


def read(host: Host) -> t.Dict[str, Displaced]:
    """What is remembered, by address. Raises HostError if the file is not ours to understand."""
    text = host.read_text(PATH)
    if text is None:
        return {}
    try:
        return {
            address: Displaced(str(entry["vendor_device"]), None if entry["driver"] is None else str(entry["driver"]))
            for address, entry in json.loads(text)["displaced"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(PATH, "is damaged; remove it, then a release lets the kernel choose the driver") from error


def remember(host: Host, function: Function) -> None:
    """Note the present driver of a function that is about to be bound.

    A function without a host driver may have lost it to a run that ended half-way: what is remembered of it then stays.
    """
    kept = read(host)
    before = kept.get(function.address)
    if before is not None and before.fits(function) and (function.driver is None or function.on_vfio):
        return
    now = Displaced(ids(function), None if function.on_vfio else function.driver)
    if now != before:
        _write(host, {**kept, function.address: now})


def forget(host: Host, address: str) -> None:
    kept = read(host)
    if kept.pop(address, None) is not None:
        _write(host, kept)


def _write(host: Host, kept: t.Mapping[str, Displaced]) -> None:
    entries = {address: dataclasses.asdict(entry) for address, entry in kept.items()}
    host.write_text(PATH, json.dumps({"displaced": entries}, indent=2, sort_keys=True) + "\n", _MODE)
