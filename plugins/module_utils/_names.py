# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Names of the field: how they are spelled, which spellings mean the same, and what is wrong with one that is not valid.

The ``check_*`` functions return the name, or raise :class:`ValueError` with a reason that can be shown as it is.
"""

from __future__ import annotations

import re

#: The workloads of the GPU Operator's label ``nvidia.com/gpu.workload.config`` that this collection manages.
WORKLOADS = ("container", "vm-passthrough", "vm-vgpu")

WORKLOAD_LABEL = "nvidia.com/gpu.workload.config"
VGPU_CONFIG_LABEL = "nvidia.com/vgpu.config"
VGPU_STATE_LABEL = "nvidia.com/vgpu.config.state"
OPERANDS_LABEL = "nvidia.com/gpu.deploy.operands"

#: PCI vendor of NVIDIA, and the device classes that are a GPU (VGA controller, 3D controller).
NVIDIA = "10de"
GPU_CLASSES = ("0300", "0302")

_PCI_ID = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}")
_PCI_ADDRESS = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
# Product, then MIG slices, framebuffer in GB, series, and a variant: A10-4Q, RTX6000-Ada-2Q, A100-1-5CME, DC-1-2QGFX.
_PLAIN_TYPE = re.compile(r"[A-Za-z0-9]+(-Ada)?(-\d+)?-\d+[ABCQ](ME|GFX|4)?")


def check_workload(name: str) -> str:
    if name not in WORKLOADS:
        raise ValueError(f"{name!r} is no workload: use one of {', '.join(WORKLOADS)}")
    return name


def check_pci_id(selector: str) -> str:
    """A PCI vendor and device as KubeVirt compares it: ``10DE:2236``, without ``0x``, blanks or wildcards."""
    if not _PCI_ID.fullmatch(selector):
        raise ValueError(f"{selector!r} is no PCI vendor:device: write four hexadecimal digits, a colon and four more, such as 10DE:2236")
    return selector


def pci_id_key(selector: str) -> str:
    """What makes two PCI selectors the same one (KubeVirt compares them in lower case); upper case, as its documentation writes them."""
    return selector.upper()


def check_pci_address(address: str) -> str:
    if not _PCI_ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no PCI address: write domain:bus:device.function, such as 0000:41:00.0")
    return address


def check_mdev_name(selector: str) -> str:
    """The name of a mediated-device type, as in ``mdev_supported_types/*/name``."""
    if not selector or selector != selector.strip():
        raise ValueError(f"{selector!r} is no type name: it must not be empty, begin or end with a blank")
    if not selector.isprintable():
        raise ValueError(f"{selector!r} is no type name: it has characters that cannot be printed")
    return selector


def mdev_name_key(selector: str) -> str:
    """What makes two selectors of mediated devices the same one: a blank counts as ``_``, case matters."""
    return selector.replace(" ", "_")


def check_resource_name(name: str) -> str:
    """An extended resource, ``vendor.domain/NAME``. KubeVirt's virt-handler panics on one without a slash."""
    domain, slash, rest = name.partition("/")
    if not slash or not _DNS_SUBDOMAIN.fullmatch(domain) or "." not in domain or len(domain) > 253:
        raise ValueError(f"{name!r} is no resource name: write a domain, a slash and a name, such as nvidia.com/GA102GL_A10")
    if not _LABEL_PART.fullmatch(rest):
        raise ValueError(
            f"{name!r} is no resource name: after the slash at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        )
    if domain == "kubernetes.io" or domain.endswith(".kubernetes.io"):
        raise ValueError(f"{name!r} is no resource name for devices: kubernetes.io is reserved")
    return name


def check_node_name(name: str) -> str:
    if not _DNS_SUBDOMAIN.fullmatch(name) or len(name) > 253:
        raise ValueError(f"{name!r} is no node name: lower-case letters, digits, '-' and '.', with a letter or digit at both ends")
    return name


def check_label_key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and (not _DNS_SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        raise ValueError(f"{key!r} is no label key: {prefix!r} is no domain")
    if not _LABEL_PART.fullmatch(name):
        raise ValueError(
            f"{key!r} is no label key: {name!r} must be at most 63 letters, digits, '-', '_', '.', with a letter or digit at both ends"
        )
    return key


def check_label_value(value: str) -> str:
    if value and not _LABEL_PART.fullmatch(value):
        raise ValueError(
            f"{value!r} is no label value: at most 63 letters, digits, '-', '_', '.', with a letter or digit at both ends, or empty"
        )
    return value


def plain_type(name: str) -> str | None:
    """The vGPU type without its brand: ``A10-4Q`` of ``NVIDIA A10-4Q``, ``nvidia.com/NVIDIA_A10-4Q`` or ``A10-4Q``; None if it is none.

    The brand differs per GPU family (``GRID``, ``NVIDIA``, ``NVIDIA RTX Pro 6000 Blackwell``); the type is always the last word.
    Source: NVIDIA/open-gpu-kernel-modules, src/nvidia/generated/g_nv_name_released.h.
    """
    last = re.split(r"[ _/]", name.strip())[-1]
    return last if _PLAIN_TYPE.fullmatch(last) else None
