#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_operator_wait
short_description: Wait until GPU nodes are what was planned
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - For each node, waits until its labels are right, the operands of its workload are ready and of the newest revision, the vGPU Device Manager
    says success, and the node advertises exactly what is expected, all unchanged for a while.
  - With O(scope=cluster) also until the ClusterPolicy is ready because it is reconciled, not because it found no GPU node.
  - An operand that somebody switched off, with its label C(nvidia.com/gpu.deploy.<operand>=false), is not waited for.
  - When time is up, names for every node the first condition that does not hold, and its cause if it is a known one.
  - Where waiting does not help a node, goes on for the others, and ends as soon as they are there.
  - Of a host that owns its devices no operand is expected, only that they are kept off it, and what it advertises.
  - Changes nothing.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Says what it would wait for and returns at once, with an empty RV(nodes).
  diff_mode:
    support: none
    description: Changes nothing.
options:
  nodes:
    description: The nodes to wait for.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the Node object.
        type: str
        required: true
      workload:
        description: What it should be.
        type: str
        choices: [container, vm-passthrough, vm-vgpu]
        required: true
      owner:
        description: Who makes its devices, the operator's operands or the host itself.
        type: str
        choices: [operator, host]
        default: operator
      expect:
        description:
          - What it should advertise. Anything else below C(nvidia.com/) is too much, except companions of a GPU such as its audio function.
        type: list
        elements: dict
        default: []
        suboptions:
          resource:
            description: A resource by name.
            type: str
          pci:
            description: Whole GPUs by PCI vendor and device. The device plugin's own list decides what the resource is called.
            type: str
          vgpu_type:
            description: vGPUs by type, such as V(A10-4Q).
            type: str
          count:
            description: How many.
            type: int
            required: true
  unmet:
    description:
      - What becomes of a node that is not what was planned when the waiting ends.
      - With V(report) it is named in RV(problems), and the task succeeds, so that the other nodes need not suffer for it.
    type: str
    choices: [fail, report]
    default: fail
  scope:
    description: Whether the operator as a whole must be done, too.
    type: str
    choices: [nodes, cluster]
    default: cluster
  since:
    description:
      - RV(gpufleet.kubevirt.gpu_node_label#module:tokens). A failure of the vGPU Device Manager that is newer counts at once,
        one that may be older only after 60 seconds.
    type: list
    elements: dict
    default: []
  namespace:
    description: Namespace of the operands.
    type: str
    default: gpu-operator
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 1800
  settle:
    description: Seconds for which everything must hold.
    type: int
    default: 10
  poll:
    description: Seconds between two looks, at least 0.1.
    type: float
    default: 1
seealso:
  - module: gpufleet.kubevirt.gpu_node_label
"""

EXAMPLES = r"""
- name: Wait for two nodes
  gpufleet.kubevirt.gpu_operator_wait:
    nodes:
      - name: gpu01
        workload: vm-passthrough
        expect: [{pci: "10DE:2236", count: 2}]
      - name: gpu02
        workload: vm-vgpu
        expect: [{vgpu_type: A10-4Q, count: 12}]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
nodes:
  description:
    - Each node with what it advertises, which of that was expected, and how long it took.
    - One that C(lags) is as planned but for what it advertises.
  type: list
  elements: dict
  returned: always
  sample:
    - name: gpu02
      met: true
      lags: false
      allocatable: {"nvidia.com/NVIDIA_A10-4Q": 12}
      resources: [nvidia.com/NVIDIA_A10-4Q]
      waited: 42
problems:
  description: What does not hold, by node, or under C(the operator).
  type: dict
  returned: failure, or with O(unmet=report)
  sample: {node gpu02: the vGPU Device Manager says pending}
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet, _operands, _wait

DOING = "Waiting for the GPU Operator"


def look(client, namespace):
    policies = _fleet.list_if_served(client, _fleet.POLICIES) or []
    base = f"/apis/apps/v1/namespaces/{namespace}"
    return _wait.Snapshot(
        nodes={node["metadata"]["name"]: node for node in client.list("/api/v1/nodes")},
        pods=client.list(f"/api/v1/namespaces/{namespace}/pods"),
        daemonsets=client.list(f"{base}/daemonsets"),
        revisions=client.list(f"{base}/controllerrevisions"),
        policy=min(policies, key=lambda p: (p["metadata"].get("creationTimestamp") or "", p["metadata"]["name"]), default=None),
    )


def results(snapshot, waiting, began):
    found = []
    for wanted in waiting.wanted:
        node = snapshot.nodes.get(wanted.name)
        allocatable = {} if node is None else {name: count for name, count in _operands.resources(node).items() if count}
        met = wanted.name in waiting.met_at
        problem = waiting.problems.get(f"node {wanted.name}")
        found.append(
            {
                "name": wanted.name,
                "met": met,
                "lags": problem is not None and problem.lags,
                "allocatable": allocatable,
                "resources": _wait.match(wanted.expect, allocatable)[0],
                "waited": round(waiting.met_at[wanted.name] - began) if met else None,
            }
        )
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "nodes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "workload": {"type": "str", "choices": list(_operands.DEPLOYED), "required": True},
                    "owner": {"type": "str", "choices": ["operator", "host"], "default": "operator"},
                    "expect": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "resource": {"type": "str"},
                            "pci": {"type": "str"},
                            "vgpu_type": {"type": "str"},
                            "count": {"type": "int", "required": True},
                        },
                        "mutually_exclusive": [("resource", "pci", "vgpu_type")],
                        "required_one_of": [("resource", "pci", "vgpu_type")],
                    },
                },
            },
            "unmet": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
            "scope": {"type": "str", "choices": ["nodes", "cluster"], "default": "cluster"},
            "since": {"type": "list", "elements": "dict", "default": []},
            "namespace": {"type": "str", "default": "gpu-operator"},
            "timeout": {"type": "int", "default": 1800},
            "settle": {"type": "int", "default": 10},
            "poll": {"type": "float", "default": 1},
        },
        supports_check_mode=True,
    )
    # Without a token nobody looked before the change: an old failure cannot be told from a new one.
    before = {token.get("name"): token.get("state") for token in module.params["since"]}
    wanted = [
        _wait.Wanted(n["name"], n["workload"], tuple(n["expect"]), before.get(n["name"], "failed") == "failed", n["owner"])
        for n in module.params["nodes"]
    ]
    if module.check_mode:
        names = ", ".join(node.name for node in wanted) or "no node"
        module.exit_json(changed=False, nodes=[], problems={}, msg=f"Would wait for {names}, at most {module.params['timeout']} s.")
    client = _client.connect(module)
    waiting = _wait.Waiting(wanted, module.params["scope"] == "cluster", module.params["settle"])
    began = time.monotonic()
    while True:
        try:
            snapshot = look(client, module.params["namespace"])
        except _client.ApiError as error:
            module.fail_json(msg=f"{DOING}: {error}. Nothing was changed by waiting.", nodes=[])
        now = time.monotonic()
        state = waiting.look(snapshot, now)
        found = results(snapshot, waiting, began)
        if state == "done":
            module.exit_json(changed=False, nodes=found, problems={})
        # What holds at last is given the time to show that it lasts, where a failure would be everybody's.
        more = module.params["settle"] if module.params["unmet"] == "report" and not waiting.problems else 0
        late = now - began >= module.params["timeout"] + more
        if state == "hopeless" or late:
            why = f"not done after {now - began:.0f} s" if late else "waiting longer does not help"
            lines = [f"{DOING}: {why}.", *(f"- {target}: {problem}." for target, problem in waiting.problems.items())]
            if not waiting.problems:
                lines.append("- everything held at the end, but not long enough.")
            end = module.exit_json if module.params["unmet"] == "report" and waiting.problems else module.fail_json
            end(
                changed=False,
                msg="\n".join([*lines, "Mend that and run again."]),
                nodes=found,
                problems={k: str(v) for k, v in waiting.problems.items()},
            )
        time.sleep(max(0.1, module.params["poll"]))


if __name__ == "__main__":
    main()
