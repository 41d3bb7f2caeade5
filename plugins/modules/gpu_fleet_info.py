#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_fleet_info
short_description: Read what the cluster knows about its GPUs, and who uses them
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads the nodes, pods and virtual machine instances, the GPU Operator's ClusterPolicy and Helm release, and the KubeVirt object, once.
  - Only reads. What is not installed is V(null).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  release:
    description: Name of the GPU Operator's Helm release. A ClusterPolicy or a Deployment of the operator that names another one decides.
    type: str
    default: gpu-operator
  release_namespace:
    description: Namespace of that release.
    type: str
    default: gpu-operator
seealso:
  - module: gpufleet.kubevirt.gpu_node_info
"""

EXAMPLES = r"""
- name: Read the cluster
  gpufleet.kubevirt.gpu_fleet_info:
  register: fleet
  delegate_to: localhost

- name: Show who holds GPUs
  ansible.builtin.debug:
    msg: "{{ fleet.nodes | items2dict(key_name='name', value_name='used') }}"
"""

RETURN = r"""
cluster:
  description:
    - Address of the API server, where the credentials came from, UID of the namespace kube-system, and the Kubernetes version.
  type: dict
  returned: success
  sample: {server: "https://192.0.2.1:6443", credentials: the kubeconfig /home/ops/gpu, uid: 0b3c6c1e-8f5d-4a1b-9d0e-1f6c6a7d9b11, version: v1.34.1}
nodes:
  description:
    - Every node of the cluster. C(gpu) is V(null) while Node Feature Discovery has said nothing about the node.
    - C(allocatable) leaves out values of 0, which device plugins leave behind. They are named in C(withdrawn).
    - C(at_work) are the operands that are in the middle of changing the node.
    - C(pods) are those that no DaemonSet made and that have not ended.
  type: list
  elements: dict
  returned: success
  sample:
    - name: gpu01
      boot_id: 3f7a5c1e-6a41-4d4f-a0b7-0b6d2f1f8d5c
      ready: true
      schedulable: true
      taints: []
      gpu: true
      labels: {"nvidia.com/gpu.workload.config": vm-passthrough}
      annotations: {}
      workload: vm-passthrough
      operands: [nvidia-sandbox-device-plugin-daemonset, nvidia-vfio-manager]
      at_work: []
      allocatable: {"nvidia.com/GA102GL_A10": 2}
      withdrawn: []
      used: {"nvidia.com/GA102GL_A10": [{namespace: ml, pod: virt-launcher-a-x7k2p, vmi: a, count: 1}]}
      pods: [{namespace: ml, name: virt-launcher-a-x7k2p, kind: VirtualMachineInstance, phase: Running}]
cluster_policy:
  description: The GPU Operator's ClusterPolicy, or V(null).
  type: dict
  returned: success
  sample: {name: cluster-policy, state: ready, ready: true, reason: Reconciled, sandbox_enabled: true, default_workload: container}
release:
  description: The GPU Operator's Helm release with the values that it was given, or V(null).
  type: dict
  returned: success
  sample: {name: gpu-operator, namespace: gpu-operator, chart: gpu-operator, version: v26.7.0, revision: 1, status: deployed, values: {}}
operator:
  description:
    - Who has installed the operator (C(by) is V(Helm), V(OLM) or V(null)), all ClusterPolicies by age, OLM's subscriptions to it, and what no
      ClusterPolicy governs, namely NVIDIADriver and GPUCluster objects, and virtual machine instances that have GPUs by resource claims.
  type: dict
  returned: success
  sample:
    installs: [{namespace: gpu-operator, by: Helm, release: gpu-operator, release_namespace: gpu-operator}]
    policies: [cluster-policy]
    drivers: []
    gpu_clusters: []
    subscriptions: []
    claims: [{vmi: ml/a, claims: [gpu]}]
    openshift: false
kubevirt:
  description: The KubeVirt object, or V(null). C(permitted) is V(null) where there is no allow list.
  type: dict
  returned: success
  sample: {namespace: kubevirt, name: kubevirt, version: v1.7.0, phase: Deployed, permitted: null, feature_gates: [], owner: null}
possible_gpu_nodes:
  description: Names of the nodes that have a GPU, or may have one while nothing has looked.
  type: list
  elements: str
  returned: success
  sample: [gpu01]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "release": {"type": "str", "default": "gpu-operator"},
            "release_namespace": {"type": "str", "default": "gpu-operator"},
        },
        supports_check_mode=True,
    )
    client = _client.connect(module)
    try:
        fleet = _fleet.summary(_fleet.observe(client, module.params["release"], module.params["release_namespace"]))
    except (_client.ApiError, ValueError) as error:
        module.fail_json(msg=f"Reading the cluster: {error}. Nothing was changed.")
    fleet["cluster"]["credentials"] = client.source
    module.exit_json(changed=False, **fleet)


if __name__ == "__main__":
    main()
