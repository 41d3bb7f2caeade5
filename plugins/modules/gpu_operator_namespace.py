#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_operator_namespace
short_description: Prepare the GPU Operator's namespace and its pull secret
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Creates the namespace if there is none, with the Pod Security level that privileged operands need, and a pull secret in it.
  - Other labels of the namespace are left alone. Nothing is removed.
  - The content of the secret is compared in memory and never shown.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server with C(dryRun=All), except for a secret whose namespace does not exist yet.
  diff_mode:
    support: full
    description: Shows labels, registry and user name. Of a password, only that it differs.
options:
  name:
    description: Name of the namespace.
    type: str
    required: true
  pod_security:
    description: Level of C(pod-security.kubernetes.io/enforce). Without it the label is left as it is.
    type: str
    choices: [privileged, baseline, restricted]
  pull_secret:
    description: A secret of type C(kubernetes.io/dockerconfigjson). None of its parts may be empty.
    type: dict
    suboptions:
      name:
        description: Name of the secret.
        type: str
        required: true
      registry:
        description: The registry. Of V(registry.example.com/nvidia), the host counts.
        type: str
        required: true
      username:
        description: User name at the registry.
        type: str
        required: true
      password:
        description: Password or token at the registry.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Prepare the namespace
  gpufleet.kubevirt.gpu_operator_namespace:
    name: gpu-operator
    pod_security: privileged
    pull_secret:
      name: vgpu-manager-pull
      registry: registry.example.com/nvidia
      username: puller
      password: "{{ vault_registry_password }}"
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
    - target: namespace gpu-operator
      action: create
      before: null
      after: {labels: {pod-security.kubernetes.io/enforce: privileged}}
      reason: there is none
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: namespace gpu-operator
      problem: it is being deleted
      remedy: Wait until it is gone and run again
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _namespace, _unanswered


def one_after_the_other(changes, write):
    """Blockers of changes of which each needs the one before; what may have been done all the same does not stop the next."""
    blockers = []
    for change in changes:
        if blockers and not blockers[0].unknown:
            why = f"not tried, because {blockers[0].target} failed"
            blockers.append(_change.Blocker(change.target, why, "It follows with the next run"))
            continue
        try:
            write(change)
        except _client.ApiError as error:
            blockers.append(_unanswered.blocker(change.target, error, "Mend that and run again"))
    return blockers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "name": {"type": "str", "required": True},
            "pod_security": {"type": "str", "choices": ["privileged", "baseline", "restricted"]},
            "pull_secret": {
                "type": "dict",
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "registry": {"type": "str", "required": True},
                    "username": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
        },
        supports_check_mode=True,
    )
    name, level = module.params["name"], module.params["pod_security"]
    wanted = _namespace.pull_secret(module.params["pull_secret"]) if module.params["pull_secret"] else None
    try:
        for given in (name, *([wanted.name] if wanted else [])):
            _names.check_node_name(given)
    except ValueError:
        module.fail_json(
            msg=f"Preparing namespace {name}: {given!r} is no name of an object: lower-case letters, digits, '-' and '.'. Nothing was changed."
        )
    empty = [key for key, value in (module.params["pull_secret"] or {}).items() if not value]
    if empty:
        module.fail_json(
            msg=f"Preparing namespace {name}: the pull secret's {' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty. Give all of it, "
            "or leave pull_secret out to use a secret that is there. Nothing was changed."
        )
    path = f"/api/v1/namespaces/{name}"
    client = _client.connect(module)

    def observe():
        secret = client.find(f"{path}/secrets/{wanted.name}") if wanted else None
        return _namespace.Observed(client.find(path), secret)

    def write(change, missing):
        dry = module.check_mode
        kind = change.target.split()[0]
        if kind == "namespace":
            body = {"metadata": {"name": name, "labels": change.after["labels"]}}
            if change.action == "create":
                client.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **body}, dry_run=dry)
            else:
                client.patch(path, body, dry_run=dry)
        elif change.action == "create":
            if not (dry and missing):  # a dry run finds no namespace to put it into
                client.create(f"{path}/secrets", wanted.body(), dry_run=dry)
        else:
            client.patch(f"{path}/secrets/{wanted.name}", {"data": wanted.body()["data"]}, dry_run=dry)

    def apply(changes):
        missing = any(change.target == f"namespace {name}" and change.action == "create" for change in changes)
        return one_after_the_other(changes, lambda change: write(change, missing))

    apply.dry_runs = True
    try:
        _change.run(
            module,
            f"Preparing namespace {name}",
            observe,
            lambda seen: _namespace.make_plan(name, level, wanted, seen),
            apply,
            settle=_unanswered.settle,
            unreadable=(_client.ApiError,),
        )
    except _client.ApiError as error:
        module.fail_json(msg=f"Preparing namespace {name}: {error}. Nothing was changed.")


if __name__ == "__main__":
    main()
