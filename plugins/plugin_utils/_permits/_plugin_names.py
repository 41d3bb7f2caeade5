# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What NVIDIA's sandbox device plugin calls whole GPUs."""

from __future__ import annotations

import typing as t

#: PCI device -> what the sandbox device plugin v1.6.0 makes of it with the pci.ids in its image. Another version may name a device
#: otherwise: a name counts only where a node advertises it. A device that is not in pci.ids is named by its id.
#: Source: NVIDIA/kubevirt-gpu-device-plugin, pkg/device_plugin/device_plugin.go.
NAMES: t.Final = {
    "1EB8": "TU104GL_TESLA_T4",
    "20B5": "GA100_A100_PCIE_80GB",
    "20F1": "GA100_A100_PCIE_40GB",
    "2236": "GA102GL_A10",
    "2330": "GH100_H100_SXM5_80GB",
    "2331": "GH100_H100_PCIE",
    "2335": "GH100_H200_SXM_141GB",
    "233B": "GH100_H200_NVL",
    "2342": "GH100_GH200_120GB___480GB",
    "25B6": "GA107GL_A2___A16",
    "26B5": "AD102GL_L40",
    "26B9": "AD102GL_L40S",
    "27B8": "AD104GL_L4",
    "2901": "GB100_B200",
    "2BB5": "GB202GL_RTX_PRO_6000_BLACKWELL_SERVER_EDITION",
}


def resource(pci: str) -> str:
    """The resource of whole GPUs with this PCI vendor and device; of an id that is not known, by the id, as the plugin does."""
    device = pci.upper().partition(":")[2]
    return f"nvidia.com/{NAMES.get(device, device.lower())}"
