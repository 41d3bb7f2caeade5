#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_label
short_description: Give GPU nodes their workload, vGPU profile and operands decision
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads all nodes once and writes one patch per node that differs, so that workload and profile always arrive together.
    Written one after the other, the vGPU Device Manager would first apply its default to a fresh node.
  - Refuses a change that would make the GPU Operator take devices away from running VMs or pods, and names them.
  - O(nodes[].operands=false) keeps the operator's operands off a node, with the reason in the annotation C(gpufleet.kubevirt/operands-refused).
    It is refused on a node on which operands run already, because they would be removed under whoever uses them.
  - O(nodes[].operands=true) takes back only such a decision of this collection. Somebody else's stays, with a warning.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server with C(dryRun=All) and writes nothing.
  diff_mode:
    support: full
    description: Shows the labels and annotations of each node that differ.
options:
  nodes:
    description: What each node should carry. A field that is left out leaves its label as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the Node object.
        type: str
        required: true
      workload:
        description: Value of C(nvidia.com/gpu.workload.config).
        type: str
        choices: [container, vm-passthrough, vm-vgpu]
      vgpu_config:
        description: Value of C(nvidia.com/vgpu.config), a profile of the vGPU Device Manager's configuration.
        type: str
      operands:
        description: Whether the operator's operands may run on the node.
        type: bool
      why:
        description: Why they may not.
        type: str
      labels:
        description: Further labels. V(null) removes one.
        type: dict
        default: {}
  in_use:
    description: What to do about a change that takes devices away from those who use them.
    type: str
    choices: [refuse, ignore]
    default: refuse
  unknown_nodes:
    description: What to do about a name that no node has.
    type: str
    choices: [fail, warn]
    default: fail
  repair_paused:
    description:
      - Set operands free that the vGPU Device Manager or k8s-driver-manager has paused and, killed in between, not set free again. Without this
        nothing moves on such a node.
      - Concerns the operands of the node's own workload, C(nvidia.com/gpu.deploy.*). V(false) and V(pre-installed) stay as they are.
      - A node on which such a change is still under way is a failure, and so is one on which a VM uses a vGPU while the device manager has not
        finished, because it would go on.
    type: bool
    default: false
  config_map:
    description: The vGPU Device Manager's own configuration. Profiles are checked against it if it exists.
    type: dict
    suboptions:
      name:
        description: Name of the ConfigMap.
        type: str
        required: true
      namespace:
        description: Namespace of the ConfigMap.
        type: str
        required: true
      key:
        description: Key of the ConfigMap that holds the configuration.
        type: str
        default: config.yaml
seealso:
  - module: gpufleet.kubevirt.gpu_operator_wait
"""

EXAMPLES = r"""
- name: Say what each node is for
  gpufleet.kubevirt.gpu_node_label:
    nodes:
      - name: gpu01
        workload: vm-passthrough
        operands: true
      - name: gpu02
        workload: vm-vgpu
        vgpu_config: A10-4Q
        operands: true
      - name: gpu03
        operands: false
        why: the IOMMU is off in the firmware
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: One entry per node that was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: node gpu01
      action: label
      before: {labels: {}, annotations: {}}
      after: {labels: {"nvidia.com/gpu.workload.config": vm-passthrough}, annotations: {}}
      reason: workload vm-passthrough
tokens:
  description:
    - What the vGPU Device Manager had said about each vm-vgpu node before the first patch, and when that was read.
      M(gpufleet.kubevirt.gpu_operator_wait) takes it as O(gpufleet.kubevirt.gpu_operator_wait#module:since).
  type: list
  elements: dict
  returned: always
  sample: [{name: gpu02, state: null, pod: null, time: "2026-01-31T10:00:00Z"}]
blockers:
  description: What stopped the module, or one node.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: node gpu02
      problem: the vGPU Device Manager would remove the vGPUs of A10-4Q for A10-8Q, which VM ml/a uses
      remedy: Stop or move them and run again
"""

import concurrent.futures
import datetime

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet, _labels, _operands, _paused, _unanswered

try:
    import yaml
except ImportError:
    yaml = None  # without it profiles are not checked against the ConfigMap


def profiles(client, where):
    """The profiles of the device manager's configuration, or None if it cannot be told."""
    if not where or yaml is None:
        return None
    found = client.find(f"/api/v1/namespaces/{where['namespace']}/configmaps/{where['name']}")
    try:
        content = yaml.safe_load(((found or {}).get("data") or {}).get(where["key"]) or "")
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: what looks like a date and is none
        return None
    known = content.get("vgpu-configs") if isinstance(content, dict) else None
    # The device manager reads YAML by way of JSON, where every name is text.
    return frozenset(str(name) for name in known) if isinstance(known, dict) else None


def observe(client, wanted, config_map, repair_paused):
    nodes = {node["metadata"]["name"]: node for node in client.list("/api/v1/nodes")}
    seen = _labels.Observed(nodes, profiles(client, config_map))
    if not _labels.may_disturb(seen, wanted, repair_paused):
        return seen
    pods = client.list("/api/v1/pods")
    running = {}
    managers = {}
    for pod in pods:
        operand = _operands.operand_of_pod(pod)
        name = (pod.get("spec") or {}).get("nodeName")
        if operand is None or name is None or _operands.terminal(pod):
            continue
        running.setdefault(name, set()).add(operand)
        if operand == "vgpu-device-manager":
            managers[name] = pod["metadata"].get("uid")
    uses = _fleet.uses(pods, _fleet.list_if_served(client, _fleet.VMIS) or [])
    operands = {name: frozenset(found) for name, found in running.items()}
    on_nodes = {}
    for pod in pods:
        on_nodes.setdefault((pod.get("spec") or {}).get("nodeName"), []).append(pod)
    at_work = {entry.name: _paused.at_work(nodes[entry.name], on_nodes.get(entry.name, [])) for entry in wanted if entry.name in nodes}
    return _labels.Observed(nodes, seen.profiles, tuple(uses), operands, managers, at_work)


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
                    "workload": {"type": "str", "choices": list(_operands.DEPLOYED)},
                    "vgpu_config": {"type": "str"},
                    "operands": {"type": "bool"},
                    "why": {"type": "str"},
                    "labels": {"type": "dict", "default": {}},
                },
            },
            "in_use": {"type": "str", "choices": ["refuse", "ignore"], "default": "refuse"},
            "unknown_nodes": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
            "repair_paused": {"type": "bool", "default": False},
            "config_map": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str", "required": True},
                    "key": {"type": "str", "default": "config.yaml", "no_log": False},
                },
            },
        },
        supports_check_mode=True,
    )
    wanted = [_labels.desired(entry) for entry in module.params["nodes"]]
    client = _client.connect(module)
    first = []

    def look():
        seen = observe(client, wanted, module.params["config_map"], module.params["repair_paused"])
        if not first:
            now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            first.extend(_labels.tokens(wanted, seen, now))
        return seen

    def write(change):
        name = change.target[len("node ") :]
        try:
            client.patch(f"/api/v1/nodes/{name}", _labels.patch(change), dry_run=module.check_mode)
        except _client.ApiError as error:
            return _unanswered.blocker(change.target, error, "Mend that and run again", stops="target")
        return None

    def apply(changes):
        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
            return [blocker for blocker in pool.map(write, changes) if blocker]

    apply.dry_runs = True
    try:
        _change.run(
            module,
            "Labelling the nodes",
            look,
            lambda seen: _labels.make_plan(
                wanted, seen, module.params["in_use"], module.params["unknown_nodes"], module.params["repair_paused"]
            ),
            apply,
            lambda seen, plan: {"tokens": first},
            settle=_unanswered.settle,
            unreadable=(_client.ApiError,),
        )
    except _client.ApiError as error:
        module.fail_json(msg=f"Labelling the nodes: {error}. Nothing was changed.")


if __name__ == "__main__":
    main()
