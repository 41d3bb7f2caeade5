# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A namespace for privileged pods and the pull secret in it, planned together: in check mode the secret's namespace may not exist yet."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan

Object = t.Dict[str, t.Any]

POD_SECURITY = "pod-security.kubernetes.io/enforce"
SECRET_TYPE = "kubernetes.io/dockerconfigjson"  # noqa: S105  a type, no password


@dataclasses.dataclass(frozen=True)
class PullSecret:
    """A secret with which images are pulled from one registry. ``server`` is the registry's host, without a path."""

    name: str
    server: str
    username: str
    password: str = dataclasses.field(repr=False)

    def content(self) -> str:
        """The secret's ``.dockerconfigjson``."""
        token = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        entry = {"username": self.username, "password": self.password, "auth": token}
        return json.dumps({"auths": {self.server: entry}}, sort_keys=True)

    def body(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {"name": self.name},
            "data": {".dockerconfigjson": base64.b64encode(self.content().encode()).decode()},
        }


def pull_secret(option: t.Mapping[str, t.Any]) -> PullSecret:
    """From the module's option; of a registry with a path, such as ``registry.example.com/nvidia``, the host counts."""
    return PullSecret(option["name"], option["registry"].partition("/")[0], option["username"], option["password"])


@dataclasses.dataclass(frozen=True)
class Observed:
    """The Namespace object and the Secret object, None where there is none."""

    namespace: t.Optional[Object]
    secret: t.Optional[Object]


def _same(secret: Object, wanted: PullSecret) -> bool:
    """Is the content the same? Compared as JSON, so that another writer's spacing is no difference."""
    try:
        now = json.loads(base64.b64decode((secret.get("data") or {}).get(".dockerconfigjson") or "", validate=True))
    except (binascii.Error, ValueError):
        return False
    return bool(now == json.loads(wanted.content()))


def make_plan(name: str, pod_security: str | None, wanted: PullSecret | None, seen: Observed) -> Plan:
    """What to do to namespace and secret. No password is ever part of a Change."""
    plan = Plan()
    level = {POD_SECURITY: pod_security} if pod_security else {}
    if seen.namespace is None:
        plan.changes.append(Change(f"namespace {name}", "create", None, {"labels": level}, "there is none"))
    elif ((seen.namespace.get("status") or {}).get("phase")) == "Terminating":
        plan.blockers.append(Blocker(f"namespace {name}", "it is being deleted", "Wait until it is gone and run again"))
        return plan
    else:
        now = (seen.namespace.get("metadata") or {}).get("labels") or {}
        if level and now.get(POD_SECURITY) != pod_security:
            before = {"labels": {key: now[key] for key in level if key in now}}
            plan.changes.append(Change(f"namespace {name}", "label", before, {"labels": level}, "its pods need this Pod Security level"))
    if wanted is None:
        return plan
    target = f"secret {name}/{wanted.name}"
    after = {"registry": wanted.server, "username": wanted.username}
    if seen.secret is None:
        plan.changes.append(Change(target, "create", None, after, "there is none"))
    elif seen.secret.get("type") != SECRET_TYPE:
        plan.blockers.append(
            Blocker(
                target,
                f"it exists with type {seen.secret.get('type')}, not {SECRET_TYPE}",
                "Choose another name in gpufleet_pull_secret, or remove it",
            )
        )
    elif not _same(seen.secret, wanted):
        plan.changes.append(Change(target, "update", "other content", {**after, "content": "as given"}, "content differs"))
    return plan
