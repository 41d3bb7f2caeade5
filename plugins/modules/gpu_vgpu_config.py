#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_vgpu_config
short_description: Write the vGPU Device Manager's ConfigMap, and make device managers take it
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - With O(content), writes it into a ConfigMap that is this collection's own. One of somebody else is never written to.
  - Without O(content), reads the ConfigMap that is there, and returns it.
  - Refuses a content that would cost running VMs their vGPUs, and names them.
  - With O(restart=true), writes no ConfigMap, but replaces the device manager's pod on those of O(nodes) that need it. It reads its configuration
    only when the label C(nvidia.com/vgpu.config) changes and at its start, so an edited configuration and a change that failed wait for that.
  - What a device manager was started or labelled for stands in the annotation C(gpufleet.kubevirt/vgpu-config) of its node.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server with C(dryRun=All) and writes nothing.
  diff_mode:
    support: full
    description: Shows the content before and after, and the annotation of each node.
options:
  name:
    description: Name of the ConfigMap. Empty stands for NVIDIA's stock configuration, which is the operator's and never written.
    type: str
    default: ""
  namespace:
    description: Namespace of the operator.
    type: str
    default: gpu-operator
  content:
    description: The C(config.yaml) that the ConfigMap is to hold.
    type: str
  keep:
    description:
      - Which configurations stay that the ConfigMap has and O(content) has not.
      - V(used) are those that the label of a node names, V(all) is for a run that sees a part of the fleet.
    type: str
    choices: [nothing, used, all]
    default: nothing
  nodes:
    description: The nodes whose device manager is to apply a profile.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the Node object.
        type: str
        required: true
      profile:
        description: Value of its label C(nvidia.com/vgpu.config), a key of C(vgpu-configs).
        type: str
        required: true
  restart:
    description: Make device managers start anew, on the nodes that need it.
    type: bool
    default: false
  relabelled:
    description: With O(restart=true), the nodes whose label C(nvidia.com/vgpu.config) has just been changed. A failure of theirs is an old one.
    type: list
    elements: str
    default: []
  fresh:
    description: With O(restart=true), whether the ConfigMap has just been changed. What a pod has mounted may then be older.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for a change that is under way on a node, and for the operator to make its DaemonSet read the ConfigMap.
    type: int
    default: 300
seealso:
  - module: gpufleet.kubevirt.gpu_node_label
  - plugin: gpufleet.kubevirt.vgpu_device_config
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Give the device managers a configuration
  gpufleet.kubevirt.gpu_vgpu_config:
    name: gpufleet-vgpu-devices
    content: "{{ lookup('ansible.builtin.file', inventory_dir ~ '/vgpu-devices.yml') }}"
    nodes:
      - name: gpu02
        profile: A10-4Q
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: node gpu02
      action: restart device manager
      before: {gpufleet.kubevirt/vgpu-config: A10-4Q 5d2f0c4a11}
      after: {gpufleet.kubevirt/vgpu-config: A10-4Q 9b1e77d0c2}
      reason: the content of A10-4Q in ConfigMap gpufleet-vgpu-devices has changed
content:
  description: The configuration that the ConfigMap holds, or will hold.
  type: str
  returned: success
  sample: "version: v1\nvgpu-configs: {}\n"
tokens:
  description:
    - What the device managers that were restarted had said before, and when that was read. M(gpufleet.kubevirt.gpu_operator_wait) takes it as
      O(gpufleet.kubevirt.gpu_operator_wait#module:since).
  type: list
  elements: dict
  returned: always
  sample: [{name: gpu02, state: failed, pod: null, time: "2026-01-31T10:00:00Z"}]
blockers:
  description: What stopped the module, or one node.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: node gpu02
      problem: its profile A10-4Q would become another, and VM ml/a uses its vGPUs
      remedy: Stop or move them and run again
"""

import concurrent.futures
import datetime
import json
import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _fleet,
    _operands,
    _paused,
    _unanswered,
    _vgpu_config,
)

try:
    import yaml
except ImportError as error:
    YAML_ERROR = str(error)
else:
    YAML_ERROR = None

POLL_SECONDS = 1.0


def configs_of(text):
    """The named configurations of a config.yaml, or None if it is none."""
    try:
        content = yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: what looks like a date and is none
        return None
    known = content.get("vgpu-configs") if isinstance(content, dict) else None
    if not isinstance(known, dict):
        return None
    try:
        # The device manager reads YAML by way of JSON: names are text there, and a date is nothing at all.
        return json.loads(json.dumps(known))
    except (TypeError, ValueError, RecursionError):
        return None


def dump(data):
    return yaml.safe_dump(data, sort_keys=False, width=120)


class Cluster:
    """The reads and writes that this needs."""

    def __init__(self, client, namespace, request, timeout):
        self.client, self.namespace, self.request, self.timeout = client, namespace, request, timeout
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"

    def observe(self):
        found = self.client.find(f"{self.path}/{self.request.config_map}") if self.request.config_map else None
        text = ((found or {}).get("data") or {}).get(_vgpu_config.KEY)
        if not self.request.profiles and self.request.text is None:
            return _vgpu_config.Seen(found, configs_of(text))
        pods = self.client.list("/api/v1/pods")
        nodes = {node["metadata"]["name"]: node for node in self.client.list("/api/v1/nodes")}
        uses = _fleet.uses(pods, _fleet.list_if_served(self.client, _fleet.VMIS) or [])
        return _vgpu_config.Seen(found, configs_of(text), nodes, _vgpu_config.managers(pods), tuple(uses))

    def write(self, seen, text, dry):
        body = _vgpu_config.body(self.request, self.namespace, text)
        if seen.config_map is None:
            if dry and self.client.find(f"/api/v1/namespaces/{self.namespace}") is None:
                return  # a dry run finds no namespace to put it into
            self.client.create(self.path, body, dry_run=dry)
        else:
            version = seen.config_map["metadata"].get("resourceVersion")
            body["metadata"] = {"resourceVersion": version, "labels": body["metadata"]["labels"]}
            self.client.patch(f"{self.path}/{self.request.config_map}", body, dry_run=dry)

    def template(self):
        """The ConfigMap that the next pod of the device manager will mount; None if there is no such DaemonSet."""
        for item in self.client.list(f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets"):
            if _operands.operand_of_set(item) == "vgpu-device-manager":
                return _vgpu_config.mounts(item["spec"]["template"]["spec"])
        return None

    def settled(self, node):
        """The node's pods once nobody changes it any more and a new device manager would read the right ConfigMap; else what keeps it."""
        until = time.monotonic() + self.timeout
        while True:
            pods = self.client.list("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})
            busy = _paused.at_work(self.client.get(f"/api/v1/nodes/{node}"), pods)
            mounted = self.template()
            if not busy and mounted in (None, self.request.mounted):
                return pods, None
            if time.monotonic() >= until:
                what = f"{', '.join(busy)} is in the middle of a change" if busy else f"the operator's DaemonSet still mounts {mounted}"
                return pods, f"{what} after {self.timeout} s"
            time.sleep(POLL_SECONDS)

    def restart(self, change, dry):
        node = change.target[len("node ") :]
        try:
            if change.action != "note" and not dry:
                pods, unsettled = self.settled(node)
                if unsettled:
                    return _change.Blocker(change.target, unsettled, "Look at the operator and run again", stops="target")
                # Looked for again at the last moment: the device manager removes vGPUs without asking.
                uses = _fleet.uses(pods, _fleet.list_if_served(self.client, _fleet.VMIS) or [])
                names = _vgpu_config.users(uses, node)
                if names:
                    return _vgpu_config.in_use(node, change.reason, names)
                pod = _vgpu_config.managers(pods).get(node)
                if pod is not None and not pod["metadata"].get("deletionTimestamp"):
                    meta = pod["metadata"]
                    only = {"preconditions": {"uid": meta["uid"]}}
                    self.client.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", only)
            self.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": change.after}}, dry_run=dry)
        except _client.ApiError as error:
            return _unanswered.blocker(change.target, error, "Mend that and run again", stops="target")
        return None


def wrong_request(given, configs):
    """What is wrong with the module's arguments by themselves, or None."""
    for name in (given["namespace"], given["name"]):
        try:
            if name:
                _names.check_node_name(name)
        except ValueError:
            return f"{name!r} is no name of an object: lower-case letters, digits, '-' and '.'"
    if given["content"] is not None and configs is None:
        return "the content is no configuration of the vGPU Device Manager. Check it with the filter vgpu_device_config_lint"
    if given["content"] is not None and given["name"] in ("", _vgpu_config.STOCK):
        return f"{_vgpu_config.STOCK} is the operator's, which would write over the content. Choose another name"
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "name": {"type": "str", "default": ""},
            "namespace": {"type": "str", "default": "gpu-operator"},
            "content": {"type": "str"},
            "keep": {"type": "str", "choices": ["nothing", "used", "all"], "default": "nothing"},
            "nodes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "profile": {"type": "str", "required": True}},
            },
            "restart": {"type": "bool", "default": False},
            "relabelled": {"type": "list", "elements": "str", "default": []},
            "fresh": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    doing = "Restarting vGPU Device Managers" if given["restart"] else "Preparing the vGPU Device Manager's configuration"
    if YAML_ERROR:
        module.fail_json(msg=missing_required_lib("PyYAML"), exception=YAML_ERROR)
    configs = None if given["content"] is None else configs_of(given["content"])
    wrong = wrong_request(given, configs)
    if wrong:
        module.fail_json(msg=f"{doing}: {wrong}. Nothing was changed.")
    profiles = {node["name"]: node["profile"] for node in given["nodes"]}
    request = _vgpu_config.Request(
        given["name"], profiles, given["content"], configs, given["keep"], frozenset(given["relabelled"]), given["fresh"]
    )
    cluster = Cluster(_client.connect(module), given["namespace"], request, given["timeout"])
    first, times = [], []

    def observe():
        seen = cluster.observe()
        first.append(seen)
        times.append(datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return seen

    def make_plan(seen):
        return _vgpu_config.plan_restarts(request, seen) if given["restart"] else _vgpu_config.plan_config(request, seen, dump)[0]

    def apply(changes):
        if given["restart"]:
            with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
                return [blocker for blocker in pool.map(lambda change: cluster.restart(change, module.check_mode), changes) if blocker]
        try:
            cluster.write(first[0], changes[0].after[_vgpu_config.KEY], module.check_mode)
        except _client.ApiError as error:
            return [_unanswered.blocker(changes[0].target, error, "Mend that and run again")]
        return []

    apply.dry_runs = True

    def unwritten(seen):
        """Of a restart the annotation is read back: the pod that comes is waited for by gpu_operator_wait."""
        left = [change for change in _vgpu_config.plan_restarts(request, seen).changes if change.before != change.after]
        return [_change.Blocker(change.target, "its annotation was written but did not take", "Look for another writer") for change in left]

    def result(seen, plan):
        names = [change.target[len("node ") :] for change in plan.changes if change.action == "restart device manager"]
        tokens = [
            {"name": name, "state": _operands.labels(first[0].nodes[name]).get(_operands.VGPU_STATE), "pod": None, "time": times[0]}
            for name in names
        ]
        written = [change.after[_vgpu_config.KEY] for change in plan.changes if change.target.startswith("ConfigMap ")]
        present = ((seen.config_map or {}).get("data") or {}).get(_vgpu_config.KEY)
        return {"tokens": tokens, "content": written[0] if written else present}

    try:
        verify = unwritten if given["restart"] else None
        _change.run(module, doing, observe, make_plan, apply, result, verify, settle=_unanswered.settle, unreadable=(_client.ApiError,))
    except _client.ApiError as error:
        module.fail_json(msg=f"{doing}: {error}. Nothing was changed.")


if __name__ == "__main__":
    main()
