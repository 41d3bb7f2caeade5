# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The BIOS settings of one system behind a BMC, current and pending: reading them, and writing pending ones.

Nothing here resets anything: what is written waits for the next reset of the host (DSP0266, "Settings resource").
"""

from __future__ import annotations

import dataclasses
import time
import typing as t
import urllib.parse

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _registry
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware._failures import RedfishError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware._redfish import Answer, Client, link

Json = t.Dict[str, t.Any]

ON_RESET = "OnReset"
#: A service that makes a job of a change may show it as pending a little later.
_READ_BACK_SECONDS = 30.0
_READ_BACK_PAUSE = 2.0
#: Dell: a configuration job is scheduled already, and until it has run nothing else can be set.
_JOB_WAITS = ("SYS011", "already committed")


@dataclasses.dataclass(frozen=True)
class Observed:
    """The settings of one system. ``pending`` has what the service says it has: all attributes, or those that differ, or none."""

    system: str
    current: t.Mapping[str, t.Any]
    pending: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    registry: t.Optional[t.Mapping[str, _registry.Attribute]] = None
    apply_times: t.Tuple[str, ...] = ()
    settings: t.Optional[str] = None
    etag: t.Optional[str] = None
    names: t.Tuple[t.Any, ...] = ()  #: how the vendor names itself, in several places
    model: t.Optional[str] = None
    bios_version: t.Optional[str] = None

    def due(self, name: str) -> t.Any:
        """What an attribute will be after the next reset."""
        return self.pending.get(name, self.current.get(name))

    def attribute(self, name: str) -> _registry.Attribute:
        known = (self.registry or {}).get(name)
        return known or _registry.guessed(self.current.get(name))


class Bios:
    """The BIOS settings of one system. The registry, which is large and cannot change in a run, is read once."""

    def __init__(self, client: Client, system_id: t.Optional[str] = None) -> None:
        self.client, self._system_id = client, system_id
        self._system: t.Optional[Json] = None
        self._registry: t.Optional[t.Dict[str, _registry.Attribute]] = None
        self._registry_read = False
        self.sent = self.accepted = False  #: whether settings were sent, and whether the service took them
        self.task: t.Optional[str] = None

    def observe(self) -> Observed:
        """Read current and pending settings. Raises RedfishError."""
        if self._system is None:
            self._system = self._find_system()
        system = self._system
        bios = self.client.get(str(link(system, "Bios"))).body
        attributes = bios.get("Attributes")
        if not isinstance(attributes, dict) or not attributes:
            raise RedfishError(
                self._target(system),
                "the BMC knows no BIOS setting of it",
                "Power it on once so that its firmware reports them, then run again",
            )
        announced = bios.get("@Redfish.Settings") or {}
        settings = link(announced, "SettingsObject")
        waiting = self.client.get(settings) if settings else Answer(0, {}, {})
        if not self._registry_read:
            self._registry = self._find_registry(str(bios.get("AttributeRegistry") or ""))
            self._registry_read = True
        apply_time = waiting.body.get("@Redfish.SettingsApplyTime") or {}
        return Observed(
            system=_last_part(str(system.get("@odata.id") or "")) or str(system.get("Id")),
            current=attributes,
            pending=waiting.body.get("Attributes") or {},
            registry=self._registry,
            apply_times=tuple(announced.get("SupportedApplyTimes") or apply_time.get("ApplyTime@Redfish.AllowableValues") or ()),
            settings=settings,
            etag=waiting.etag,
            names=(system.get("Manufacturer"), self.client.root.get("Vendor"), *(self.client.root.get("Oem") or {})),
            model=system.get("Model"),
            bios_version=system.get("BiosVersion"),
        )

    def write(self, seen: Observed, values: t.Mapping[str, t.Any]) -> None:
        """Make the values pending, and wait until the service shows them so. Raises RedfishError."""
        body: Json = {"Attributes": dict(values)}
        if ON_RESET in seen.apply_times:
            # Without it Dell's service keeps the values aside and never applies them: it makes the job that does only when it is told when.
            body["@Redfish.SettingsApplyTime"] = {"ApplyTime": ON_RESET}
        self.sent = True
        try:
            answer = self._patch(seen, values, body)
        except RedfishError as error:
            if error.status == 400 and "@Redfish.SettingsApplyTime" not in body and error.mentions("ApplyTime"):
                answer = self._patch(seen, values, {**body, "@Redfish.SettingsApplyTime": {"ApplyTime": ON_RESET}})
            elif error.mentions(*_JOB_WAITS):
                remedy = "Reboot the host so that the waiting job runs, or delete it in the BMC's job queue, and run again"
                raise RedfishError(self.client.target, error.problem, remedy, error.status, error.messages) from None
            else:
                raise
        self.accepted = True
        self.task = urllib.parse.urlsplit(answer.headers.get("Location") or "").path or None
        self._wait_for(seen, values)

    def _patch(self, seen: Observed, values: t.Mapping[str, t.Any], body: Json) -> Answer:
        settings = str(seen.settings)
        try:
            return self.client.patch(settings, body, seen.etag)
        except RedfishError as error:
            if error.status != 412:
                raise
        now = self.client.get(settings)
        pending = now.body.get("Attributes") or {}
        if any(pending.get(name, seen.current.get(name)) != seen.due(name) for name in values):
            raise RedfishError(
                self.client.target, "somebody else changed these settings since they were read", "Look who, and run again", 412
            )
        # Something else was changed, or the service compares strongly with the weak tag that it hands out: such a tag can never match.
        strong = now.etag[2:] if now.etag and now.etag.startswith("W/") else now.etag
        return self.client.patch(settings, body, strong)

    def _wait_for(self, seen: Observed, values: t.Mapping[str, t.Any]) -> None:
        began = time.monotonic()
        while True:
            pending = self.client.get(str(seen.settings)).body.get("Attributes") or {}
            if all(pending.get(name, seen.current.get(name)) == value for name, value in values.items()):
                return
            if time.monotonic() - began + _READ_BACK_PAUSE > _READ_BACK_SECONDS:
                return  # the caller reads once more and says what did not take
            time.sleep(_READ_BACK_PAUSE)

    def _find_system(self) -> Json:
        paths = self._members(str(link(self.client.root, "Systems")))
        if self._system_id is not None:
            paths = [path for path in paths if _last_part(path) == self._system_id] or self._no_such_system(paths)
        systems = [self.client.get(path).body for path in paths]
        # An NVIDIA DGX, for one, also lists its GPU baseboard as a system, without BIOS settings.
        able = [system for system in systems if link(system, "Bios")]
        if not able:
            what = ", ".join(_last_part(path) for path in paths) or "no system"
            problem = f"it offers no BIOS settings ({what})"
            raise RedfishError(self.client.target, problem, "Update the BMC's firmware or its licence, or make the settings by hand")
        if len(able) > 1:
            names = ", ".join(_last_part(str(system.get("@odata.id") or system.get("Id"))) for system in able)
            problem = f"there are several systems behind it: {names}"
            raise RedfishError(self.client.target, problem, "Say which one is this host in gpufleet_bmc_system_id (option system_id)")
        return able[0]

    def _no_such_system(self, paths: t.Sequence[str]) -> t.NoReturn:
        names = ", ".join(_last_part(path) for path in paths) or "none"
        problem = f"it has no system {self._system_id}, it has {names}"
        raise RedfishError(self.client.target, problem, "Correct gpufleet_bmc_system_id (option system_id)")

    def _members(self, path: str) -> t.List[str]:
        members = self.client.get(path).body.get("Members") or []
        return [str(entry["@odata.id"]) for entry in members if isinstance(entry, dict) and entry.get("@odata.id")]

    def _find_registry(self, name: str) -> t.Optional[t.Dict[str, _registry.Attribute]]:
        """The registry of the BIOS attributes, or None if the service has none to offer: values are then judged by what they are now."""
        registries = link(self.client.root, "Registries")
        if not registries:
            return None
        try:
            paths = self._members(registries)
            # Dell announces BiosAttributeRegistry.v1_0_3 and lists BiosAttributeRegistry.v1_0_0; Supermicro lists it without a version.
            fitting = [path for path in paths if _last_part(path) == name] or [
                path for path in paths if _last_part(path).startswith("BiosAttributeRegistry")
            ]
            if len(fitting) != 1:
                return None
            places = [place for place in self.client.get(fitting[0]).body.get("Location") or [] if place.get("Uri")]
            english = [place for place in places if str(place.get("Language") or "").startswith("en")]
            for place in (english or places)[:1]:
                return _registry.parse(self.client.get(str(place["Uri"])).body)
        except RedfishError as error:
            if error.status in (401, 403) or error.status is None:
                raise
        return None

    def _target(self, system: Json) -> str:
        return f"{self.client.target}, system {_last_part(str(system.get('@odata.id') or '')) or system.get('Id')}"


def _last_part(path: str) -> str:
    return urllib.parse.unquote(path.rstrip("/").rpartition("/")[2])
