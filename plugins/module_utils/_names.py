# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: it can change at any time.

"""Names in a cluster, of workloads, nodes, labels and resources, and selectors of devices: how they are spelled, and what is wrong with one.

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

_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def check_workload(name: str) -> str:
    if name not in WORKLOADS:
        raise ValueError(f"{name!r} is no workload: use one of {', '.join(WORKLOADS)}")
    return name


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


def pci_id_key(selector: str) -> str:
    """What makes two PCI selectors the same one (KubeVirt compares them in lower case); upper case, as its documentation writes them."""
    return selector.upper()


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
