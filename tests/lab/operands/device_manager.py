# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vGPU Device Manager of one node: its state label, and the labels by which it takes the plugin and the validator off. Pure.

Source: NVIDIA/vgpu-device-manager v0.5.0, cmd/nvidia-k8s-vgpu-dm/main.go; configurations of the ConfigMap default-vgpu-devices-config.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.hosts.specification import A10_TYPES, OTHER_TYPES
from tests.lab.operands import labels
from tests.lab.operands.devices import Host
from tests.lab.operands.labels import CONFIG, DEPLOY, STATE, Json

PAUSED = "paused-for-vgpu-change"
PAUSABLE = tuple(DEPLOY + name for name in ("sandbox-device-plugin", "sandbox-validator"))
#: The types of each board of the lab, by device id.
TYPES = {"2236": A10_TYPES, **OTHER_TYPES}
#: Stock configurations: each Q and C type with as many as fit on one GPU.
STOCK = {name.split()[-1]: (name, most) for types in TYPES.values() for name, most in types.values() if name[-1] in "QC"}
#: What `default` has for each board, which is named by a filter: half of the GPU twice. The A16 stands there twice, the second time as another
#: board of the same id (vgpu-device-manager examples/config-default.yaml).
DEFAULT = [("1eb8", "T4-8Q"), ("20f1", "A100-20C"), ("2236", "A10-12Q"), ("25b6", "A16-8Q"), ("25b6", "A2-8Q")]
#: Name -> entries, as in a ``config.yaml``.
Configs = dict[str, list[dict[str, Any]]]
STOCK_CONFIGS: Configs = {
    profile: [{"devices": "all", "vgpu-devices": {name.split()[-1]: most}}] for profile, (name, most) in STOCK.items()
}
STOCK_CONFIGS["default"] = [
    {"device-filter": [f"0x{device.upper()}10DE"], "devices": "all", "vgpu-devices": {plain: 2}} for device, plain in DEFAULT
]
#: What is wrong with the stock `default` for a board whose id it has twice: the second entry is of another board.
SECOND_ENTRY: dict[str, Any] = {"devices": "all", "vgpu-devices": {"A2-8Q": 2}}


@dataclasses.dataclass(frozen=True)
class Manager:
    """What one device manager remembers."""

    wanted: str  #: the configuration that it works on, or that it saw last
    step: str = "looking"  #: looking, pausing, applying, watching
    since: float = 0.0  #: when the step began, in seconds
    outcome: str = ""  #: of applying: success or failed
    #: What it has mounted, as it was when its pod was started. A kubelet brings it up to date within about a minute; here it never does.
    configs: Configs = dataclasses.field(default_factory=lambda: STOCK_CONFIGS)


@dataclasses.dataclass(frozen=True)
class Around:
    """What it sees. `gone`: have the pods that it paused left the node?"""

    node: Json
    host: Host
    now: float
    gone: bool = True
    look: float = 0.3  #: seconds until it has looked at a new configuration
    work: float = 0.6  #: seconds that pausing and applying take, each
    patience: float = 120.0  #: seconds that it waits for paused pods to go


#: Makes the vGPUs of a configuration; False: it could not.
Apply = Callable[[str], bool]
Changes = dict[str, str | None]


def start(node: Json, default: str, now: float, configs: Configs = STOCK_CONFIGS) -> Manager:
    """A new pod takes the label, or the policy's default where there is none."""
    return Manager(labels.of(node).get(CONFIG) or default, since=now, configs=configs)


def wanted(entries: list[dict[str, Any]], host: Host) -> list[dict[str, int]] | None:
    """What a configuration makes of each GPU, by type; None if one of them is matched by no entry, which never counts as applied."""
    found: list[dict[str, int]] = []
    for index, gpu in enumerate(host.gpus):
        mine = [entry["vgpu-devices"] for entry in entries if _is_for(entry, index, gpu.device)]
        if not mine:
            return None
        found.append(dict(mine[-1]))
    return found


def walk(entries: list[dict[str, Any]], host: Host) -> tuple[list[dict[str, int] | None], bool]:
    """What applying a configuration makes of each GPU (None: nothing), and whether it gets to the end.

    Entry by entry, and of each GPU by GPU: the first type that a GPU does not have ends it, and what was made before stays (pkg/vgpu/config.go).
    """
    made: list[dict[str, int] | None] = [None for _ in host.gpus]
    for entry in entries:
        for index, gpu in enumerate(host.gpus):
            if _is_for(entry, index, gpu.device):
                if not entry["vgpu-devices"].keys() <= _offered(gpu.device):
                    return made, False
                made[index] = dict(entry["vgpu-devices"])
    return made, True


def _offered(device: str) -> set[str]:
    """The types that the driver has for a board."""
    return {name.split()[-1] for name, _most in TYPES.get(device, {}).values()}


def _is_for(entry: dict[str, Any], index: int, device: str) -> bool:
    filters = entry.get("device-filter") or []
    filters = [filters] if isinstance(filters, str) else filters
    chosen = entry["devices"] == "all" or index in entry["devices"]
    return chosen and (not filters or any(text[2:6].lower() == device for text in filters))


def fits(entries: list[dict[str, Any]], host: Host) -> bool:
    """Does the host have exactly what the configuration says? Type names count without the brand."""
    total: Counter[str] = Counter()
    for types in wanted(entries, host) or [{"nothing": 1}]:
        total.update(types)
    return Counter(name.split()[-1] for name in host.vgpus) == total


def step(manager: Manager, around: Around, apply: Apply) -> tuple[Manager, Changes]:
    """The next step and the labels that it changes. `apply` is called at most once per configuration.

    Removing the label, or writing its value again, does nothing. The state of before stands until the new configuration has been looked at.
    """
    own, spent = labels.of(around.node), around.now - manager.since

    def to(name: str, **more: Any) -> Manager:
        return dataclasses.replace(manager, step=name, since=around.now, **more)

    if manager.step == "watching":
        given = own.get(CONFIG)
        return (to("looking", wanted=given) if given and given != manager.wanted else manager), {}
    if manager.step == "looking":
        if spent < around.look:
            return manager, {}
        if manager.wanted not in manager.configs:
            return to("watching"), {STATE: "failed"}
        if fits(manager.configs[manager.wanted], around.host):
            return to("watching"), {STATE: "success"}
        return to("pausing"), {STATE: "pending", **{key: PAUSED for key in PAUSABLE if own.get(key) == "true"}}
    if manager.step == "pausing":
        if not around.gone:
            # The labels stay paused: it gives up before it has noted that they are to be set back.
            return (to("watching"), {STATE: "failed"}) if spent >= around.patience else (manager, {})
        if spent < around.work:
            return manager, {}
        return to("applying", outcome="success" if apply(manager.wanted) else "failed"), {}
    if spent < around.work:
        return manager, {}
    resumed: Changes = {key: "true" for key in PAUSABLE if own.get(key) == PAUSED}
    return to("watching"), {**resumed, STATE: manager.outcome}
