# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which GPU of the catalogue is meant: by family code, by name in many spellings, or by PCI id with or without subsystem."""

from __future__ import annotations

import difflib
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

NVIDIA = "10DE"
#: ``2236``, ``0x2236``, ``10DE:2236``, ``0x223610DE``, and the same with a subsystem: ``25B6:14A9``, ``10DE:25B6:10DE:14A9``,
#: ``0x25B610DE:0x14A910DE``.
_HEX = r"[0-9A-F]{4}"
_FILTER = re.compile(rf"0X(?P<device>{_HEX}){NVIDIA}(:0X(?P<subsystem>{_HEX})(?P<subvendor>{_HEX}))?")
_PCI = re.compile(rf"({NVIDIA}:|0X)?(?P<device>{_HEX})([:/]((?P<subvendor>{_HEX}):)?(0X)?(?P<subsystem>{_HEX}))?")
_TYPE = re.compile(r"[A-Z0-9]+(-ADA)?(-\d)?-\d+[ABCQ]")
#: Words of a product name that say nothing about which one it is.
_BRANDS = {"NVIDIA", "GRID", "GPU", "GRAPHICS", "CARD"}
#: How many names a message shows.
NEAREST = 3


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", text.upper()) if word and word not in _BRANDS]


def _list(gpus: t.Iterable[Gpu]) -> str:
    return ", ".join(f"{gpu.family} ({gpu.product})" for gpu in gpus)


class Index:
    """All GPUs, by what they can be called."""

    def __init__(self, gpus: t.Sequence[Gpu]) -> None:
        self._gpus = tuple(gpus)
        self._families = {gpu.family.upper(): gpu for gpu in gpus}
        self._products: dict[str, list[Gpu]] = {}
        self._compact: dict[str, list[Gpu]] = {}
        self._devices: dict[str, list[Gpu]] = {}
        self._boards: dict[tuple[str, str], list[Gpu]] = {}
        self._known_words: dict[str, set[str]] = {}
        for gpu in gpus:
            names = dict.fromkeys([gpu.product, *(product for pci in gpu.pci for _board, product in pci.subsystems), *gpu.also])
            for name in names:
                self._products.setdefault(name.upper(), []).append(gpu)
            for compact in dict.fromkeys("".join(_words(name)) for name in [gpu.family, *names]):
                self._compact.setdefault(compact, []).append(gpu)
            self._known_words[gpu.family] = {
                f"{gpu.framebuffer_gb}GB",
                *_words(gpu.family),
                *(word for name in names for word in _words(name)),
            }
            for pci in gpu.pci:
                self._devices.setdefault(pci.device, []).append(gpu)
                for board, _product in pci.subsystems:
                    self._boards.setdefault((pci.device, board.upper()), []).append(gpu)

    def at(self, device: str, subsystem: str = "") -> tuple[Gpu, ...]:
        """The GPUs with this device id (``2236``, ``10DE:2236``) and, where several share it, this subsystem (``10DE:14A9``), if one has it."""
        device = device.upper().rpartition(":")[2]
        return tuple(self._boards.get((device, subsystem.upper())) or self._devices.get(device) or ())

    def find(self, text: str, subsystem: str = "") -> Gpu:
        """The one GPU that is meant.

        A family code is taken as it is (``H200`` is the family of the NVL board), then a name as the driver gives it (``NVIDIA H200`` is the
        SXM board), then any name whose words belong to one GPU only.

        :raises ValueError: none or several are meant; names them or the nearest.
        """
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{text!r} is no GPU: write a model such as A10, or a PCI id such as 10DE:2236")
        wanted = " ".join(text.upper().split())
        if wanted in self._families:
            return self._families[wanted]
        match = _FILTER.fullmatch(wanted) or _PCI.fullmatch(wanted)
        if match:
            board = match["subsystem"] and f"{match['subvendor'] or NVIDIA}:{match['subsystem']}"
            return self._by_pci(text, match["device"], board or subsystem)
        return self._by_name(text, wanted)

    def _by_pci(self, text: str, device: str, subsystem: str) -> Gpu:
        found = self.at(device, subsystem)
        if len(found) == 1:
            return found[0]
        if not found:
            near = difflib.get_close_matches(device, self._devices, n=NEAREST, cutoff=0.7)
            known = ", ".join(f"{NVIDIA}:{other} ({self._devices[other][0].product})" for other in near)
            raise ValueError(
                f"{text!r}: no vGPU types are known for the GPU with PCI id {NVIDIA}:{device}. Either it has none and can only be passed through "
                f"whole, or it is newer than the catalogue" + (f". The nearest ids with vGPU types are {known}" if known else "")
            )
        boards = [(board, gpu) for gpu in found for pci in gpu.pci if pci.device == device for board, _product in pci.subsystems]
        shown = " or ".join(f"{device}:{board.rpartition(':')[2].upper()} for {gpu.family} ({gpu.product})" for board, gpu in boards)
        seen = f", and {subsystem} is the subsystem of none of them" if subsystem else ""
        told = f": write it with its subsystem, {shown}" if shown else ": write the model"
        raise ValueError(f"{text!r}: {len(found)} GPUs have the PCI id {NVIDIA}:{device}, {_list(found)}{seen}{told}")

    def _by_name(self, text: str, wanted: str) -> Gpu:
        words = _words(wanted)
        found = self._products.get(wanted) or self._compact.get("".join(words), [])
        # "RTX 6000" is more often one of the newer boards than the legacy one that is called just so.
        if all(gpu.legacy for gpu in found):
            more = [gpu for gpu in self._gpus if words and self._known_words[gpu.family].issuperset(words)]
            found = list(dict.fromkeys([*found, *more]))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{text!r} can be several GPUs: {_list(found)}. Write one of these")
        if _TYPE.fullmatch(wanted):
            raise ValueError(f"{text!r} is a vGPU type, not a GPU: name the GPU that has it, because one type name can be of several GPUs")
        names = {name: gpu for gpu in self._gpus for name in ("".join(_words(gpu.family)), "".join(_words(gpu.product)))}
        near = list(dict.fromkeys(names[name] for name in difflib.get_close_matches("".join(words), names, n=2 * NEAREST, cutoff=0.5)))
        nearest = f". The nearest with vGPU types are {_list(near[:NEAREST])}" if near else ""
        if "GEFORCE" in words or "TITAN" in words:
            nearest = ""
        raise ValueError(
            f"{text!r}: no vGPU types are known for a GPU of this name. Either it has none and can only be passed through whole, "
            f"or it is spelled otherwise{nearest}"
        )
