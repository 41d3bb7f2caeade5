# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Reading and writing the slots: each write on the version that was read, and decided anew after a conflict."""

from __future__ import annotations

import random  # between writers that conflict
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _slots, _unanswered
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client import ApiError, Client
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._slots import Slots

_NAMESPACES = "/api/v1/namespaces"
_CONFIGMAPS = f"{_NAMESPACES}/{_slots.NAMESPACE}/configmaps"
PATH = f"{_CONFIGMAPS}/{_slots.NAME}"
AGAIN = "Run again: what is done stays done"
#: How often a slot is tried for while other writers come first, apart from waiting until one is free.
CONFLICTS = 30


def now(client: Client) -> int:
    """The API server's clock, in seconds since 1970; ours where it has not said."""
    return client.date if client.date is not None else int(time.time())


def pause() -> None:
    """Let another writer go first."""
    time.sleep(random.uniform(0.02, 0.3))


def write_slots(client: Client, configmap: Object | None, after: Slots) -> ApiError | None:
    """Write the slots as decided on what was read; the conflict if somebody else has written since. Raises ApiError."""
    try:
        if configmap is not None:
            change = _slots.patch(_slots.read(configmap), after)
            if change:
                version = configmap["metadata"]["resourceVersion"]
                client.patch(PATH, {"metadata": {"resourceVersion": version}, "data": change})
            return None
        if client.find(f"{_NAMESPACES}/{_slots.NAMESPACE}") is None:
            _make_namespace(client)
        client.create(_CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _slots.NAME}, "data": after.data()})
        return None
    except ApiError as error:
        if error.status in (404, 409):
            return error
        raise


def _make_namespace(client: Client) -> None:
    try:
        client.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _slots.NAMESPACE}})
    except ApiError as error:
        if error.status != 409:
            raise


def change_slots(client: Client, decide: t.Callable[[Slots, int], Slots]) -> Slots:
    """Read, decide, write, until no other writer came between. Raises ApiError, _slots.Lost."""
    attempt = 0
    while True:
        configmap = client.find(PATH)
        before = _slots.read(configmap)
        after = decide(before, now(client))
        conflict = None if after == before else write_slots(client, configmap, after)
        if conflict is None:
            return after
        attempt += 1
        if attempt >= CONFLICTS:
            raise conflict
        pause()


def failure(target: str, slot: str, error: ApiError) -> Blocker:
    """The Blocker of a request that failed: on ``slot`` if it was for one, otherwise on ``target``. Without the right to slots, with the command
    that makes the object."""
    if not error.path.startswith(f"{_NAMESPACES}/{_slots.NAMESPACE}") and error.path != _NAMESPACES:
        return _unanswered.blocker(target, error, AGAIN)
    if error.status == 403:
        remedy = (
            f"Allow get, create and patch of ConfigMaps in namespace {_slots.NAMESPACE}, or make the object once as an administrator: kubectl "
            f"create namespace {_slots.NAMESPACE}; kubectl -n {_slots.NAMESPACE} create configmap {_slots.NAME}"
        )
        return Blocker(slot, str(error), remedy)
    return _unanswered.blocker(slot, error, AGAIN)
