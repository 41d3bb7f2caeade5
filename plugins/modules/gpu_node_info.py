#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_info
short_description: Read everything about a GPU node once
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads C(/sys), C(/proc), C(/etc) and C(/boot) once, without running a program, and returns what decides about GPUs, IOMMU and boot.
  - Never fails because a file is missing. What is not known is V(null), with the reason in RV(unknown).
  - Returns no serial numbers and no machine id. Of boot arguments that have nothing to do with devices, only the key is returned.
  - Reading who holds a GPU needs root.
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  host_root:
    description: Directory that holds the host's files. Another than V(/) is for tests.
    type: path
    default: /
seealso:
  - module: gpufleet.kubevirt.kernel_cmdline
"""

EXAMPLES = r"""
- name: Read the host
  gpufleet.kubevirt.gpu_node_info:
  register: node

- name: Show GPUs that are not on their own in their IOMMU group
  ansible.builtin.debug:
    msg: "{{ node.groups | dict2items | rejectattr('value.viable') | map(attribute='key') }}"
"""

RETURN = r"""
host:
  description:
    - C(kernel), C(arch), C(os_id), C(os_version), C(boot_id), C(secure_boot), C(lockdown), C(virtualised), C(cpu_vendor).
  type: dict
  returned: success
  sample:
    kernel: 5.15.0-119-generic
    arch: x86_64
    os_id: ubuntu
    os_version: "22.04"
    secure_boot: false
    lockdown: none
    virtualised: false
    cpu_vendor: GenuineIntel
boot:
  description:
    - Arguments of the running kernel (C(running)) and of the next boot (C(configured)), and who writes them (C(provider)).
    - C(pending) are the arguments of the next boot that do not run yet.
    - C(configured) and C(pending) are V(null) for a boot loader that M(gpufleet.kubevirt.kernel_cmdline) does not write.
  type: dict
  returned: success
  sample: {provider: grub, running: [ro, quiet], configured: [quiet, intel_iommu=on], pending: [intel_iommu=on]}
kernels:
  description:
    - The releases of the kernels on the disk (C(installed), and the C(newest) of them), and whether the C(headers) of the running one are there.
    - Whether the running kernel has certain modules (C(modules)), built in or not.
    - Which drivers that would take a GPU are kept from loading (C(blocked)), by modprobe.d or by the running kernel's arguments.
  type: dict
  returned: success
  sample:
    installed: [5.15.0-119-generic]
    newest: 5.15.0-119-generic
    headers: true
    modules: {mdev: true, nouveau: true, nova_core: false, nvidiafb: true, vfio_pci: true}
    blocked: [nouveau, nvidiafb]
firmware:
  description: Which ACPI tables describe an IOMMU (C(dmar), C(ivrs), C(iort), C(viot)), and C(vendor), C(product), C(bios_version).
  type: dict
  returned: success
  sample: {dmar: true, ivrs: false, iort: false, viot: false, vendor: Example Inc., product: X1, bios_version: "2.1"}
iommu:
  description: Judged by what the kernel has made, never by its arguments.
  type: dict
  returned: success
  sample: {enabled: true, kind: intel, groups: 84, default_domain: DMA-FQ}
gpus:
  description:
    - Every physical GPU. Sizes in C(bars) are bytes.
    - C(vgpu.types[].available) is the sum over the virtual functions. It is an upper bound, since each takes one vGPU.
  type: list
  elements: dict
  returned: success
  sample:
    - address: "0000:41:00.0"
      vendor_device: "10DE:2236"
      subsystem: "10DE:1482"
      class: "0302"
      model: GA102GL [A10]
      driver: vfio-pci
      driver_override: vfio-pci
      iommu_group: 28
      numa_node: 0
      boot_vga: false
      bars: [16777216, 34359738368, 0, 33554432, 0, 0]
      power_state: D0
      fell_off_bus: false
      sriov: {total: 32, enabled: 0}
      vgpu: {backend: none, why: "the GPU's driver is vfio-pci; the vGPU manager has not taken it", types: [], active: []}
      mig: {mode: null, instances: null}
      companions: []
      users: []
nvswitches:
  description: The NVSwitches.
  type: list
  elements: dict
  returned: success
  sample: []
groups:
  description: The IOMMU groups that hold a physical NVIDIA function, by number. Never persist the numbers, they change from boot to boot.
  type: dict
  returned: success
  sample: {"28": {members: ["0000:41:00.0"], viable: true, blockers: []}}
modules:
  description: Which kernel modules are there.
  type: dict
  returned: success
  sample: {nouveau: false, nvidia: false, vfio_pci: true}
host_driver:
  description:
    - An NVIDIA driver that is installed on the host itself, C(datacenter) or C(vgpu_host), and the files that show it (C(source)).
    - C(branch) is the first number of its C(version).
  type: dict
  returned: success
  sample: {present: true, kind: datacenter, version: 580.95.05, branch: 580, source: [/usr/bin/nvidia-smi]}
kernel_log:
  description: Known signatures of trouble in the kernel log since boot, with how often and the last line.
  type: list
  elements: dict
  returned: success
  sample: []
qemu:
  description: The QEMU processes that run on the host, or V(null) if its processes cannot be seen.
  type: list
  elements: dict
  returned: success
  sample: [{pid: 4711, comm: qemu-system-x86}]
unknown:
  description: Why something is V(null), by the name of the fact.
  type: dict
  returned: success
  sample: {kernel_log: "/dev/kmsg: Operation not permitted"}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError


def main() -> None:
    module = AnsibleModule(argument_spec={"host_root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    try:
        facts = _node.read(Host(module.params["host_root"]))
    except HostError as error:
        module.fail_json(msg=f"Reading the host: {error}. Nothing was changed.")
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
