# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: it can change at any time.

"""Names of devices, PCI functions and vGPU types: how they are spelled, which spellings mean the same, and what is wrong with one.

The ``check_*`` functions return the name, or raise :class:`ValueError` with a reason that can be shown as it is.
"""

from __future__ import annotations

import re

#: PCI vendor of NVIDIA, and the device classes that are a GPU (VGA controller, 3D controller).
NVIDIA = "10de"
GPU_CLASSES = ("0300", "0302")

_PCI_ID = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}")
_PCI_ADDRESS = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
# Product, then MIG slices, framebuffer in GB, series, and a variant: A10-4Q, RTX6000-Ada-2Q, A100-1-5CME, DC-1-2QGFX.
_PLAIN_TYPE = re.compile(r"[A-Za-z0-9]+(-Ada)?(-\d+)?-\d+[ABCQ](ME|GFX|4)?")


def check_pci_id(selector: str) -> str:
    """A PCI vendor and device as KubeVirt compares it: ``10DE:2236``, without ``0x``, blanks or wildcards."""
    if not _PCI_ID.fullmatch(selector):
        raise ValueError(f"{selector!r} is no PCI vendor:device: write four hexadecimal digits, a colon and four more, such as 10DE:2236")
    return selector


def check_pci_address(address: str) -> str:
    if not _PCI_ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no PCI address: write domain:bus:device.function, such as 0000:41:00.0")
    return address


def plain_type(name: str) -> str | None:
    """The vGPU type without its brand: ``A10-4Q`` of ``NVIDIA A10-4Q``, ``nvidia.com/NVIDIA_A10-4Q`` or ``A10-4Q``; None if it is none.

    The brand differs per GPU family (``GRID``, ``NVIDIA``, ``NVIDIA RTX Pro 6000 Blackwell``); the type is always the last word.
    Source: NVIDIA/open-gpu-kernel-modules, src/nvidia/generated/g_nv_name_released.h.
    """
    last = re.split(r"[ _/]", name.strip())[-1]
    return last if _PLAIN_TYPE.fullmatch(last) else None
