# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small BMC in this process, on 127.0.0.1 with TLS: what it is and does comes from :class:`tests.bmc.vendors.Machine`."""

from __future__ import annotations

import base64
import copy
import dataclasses
import http.server
import json
import ssl
import threading
import typing as t
from pathlib import Path

from tests.bmc.vendors import Machine

Json = dict[str, t.Any]

USER, PASSWORD = "fleet", "geheim-42"
SESSIONS = "/redfish/v1/SessionService/Sessions"


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]  #: names in lower case
    body: t.Any


@dataclasses.dataclass
class Fault:
    """Answers with ``status`` instead of doing what was asked, ``times`` times, where ``when`` is true. Status 0 breaks the connection."""

    status: int
    when: t.Callable[[Request], bool] = lambda request: True
    times: int = 1
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: t.Any = None


def explained(identifier: str, message: str) -> Json:
    return {"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [{"MessageId": identifier, "Message": message}]}}


class Bmc:
    """``requests`` in order; ``reset`` is what a reset of the host does. ``systems`` may get further machines."""

    def __init__(self, machine: Machine, certificates: Path, certificate: str = "server", sessions: bool = True) -> None:
        self.systems = {machine.system: machine}
        self.pending: dict[str, Json] = {machine.system: {}}
        self.aside: Json = {}
        self.jobs: list[str] = []
        self.sessions: dict[str, str] = {}
        self.offers_sessions = sessions
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.before_patch: t.Callable[[], None] = lambda: None
        self.version = 1
        bmc = self

        class Handler(http.server.BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                request = Request(self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                bmc.requests.append(request)
                status, answer, headers = bmc.answer(request)
                if status == 0:
                    self.close_connection = True
                    return
                data = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, *arguments: t.Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: t.Any, client_address: t.Any) -> None:
                pass  # a client that does not trust the certificate hangs up

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{certificate}.crt", certificates / f"{certificate}.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def machine(self) -> Machine:
        return next(iter(self.systems.values()))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def patches(self) -> list[Request]:
        return [request for request in self.requests if request.method == "PATCH"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        for name, machine in self.systems.items():
            machine.attributes.update(self.pending[name])
            self.pending[name] = {}
        self.jobs = []

    def answer(self, request: Request) -> tuple[int, t.Any, dict[str, str]]:
        for fault in self.faults:
            if fault.times and fault.when(request):
                fault.times -= 1
                return fault.status, fault.body, fault.headers
        path = request.path.rstrip("/")
        if self.machine.slash and not request.path.endswith("/") and request.method in ("GET", "PATCH"):
            return 308, None, {"Location": f"https://{self.address}{request.path}/"}
        if path == "/redfish/v1":
            return 200, self._root(), {}
        if path == SESSIONS and request.method == "POST":
            return self._log_in(request)
        if not self._may(request):
            return 401, explained("Base.1.8.NoValidSession", "There is no valid session."), {}
        if request.method == "DELETE":
            return (204, None, {}) if self.sessions.pop(path, None) else (404, None, {})
        return self._serve(request, path)

    def _root(self) -> Json:
        root: Json = {
            "RedfishVersion": "1.11.0",
            "Systems": {"@odata.id": "/redfish/v1/Systems"},
            "Registries": {"@odata.id": "/redfish/v1/Registries"},
            **self.machine.root,
        }
        if self.offers_sessions:
            root["Links"] = {"Sessions": {"@odata.id": SESSIONS}}
        return root

    def _log_in(self, request: Request) -> tuple[int, t.Any, dict[str, str]]:
        if request.body != {"UserName": USER, "Password": PASSWORD}:
            return 401, explained("Base.1.8.InsufficientPrivilege", "The credentials are not valid."), {}
        path = f"{SESSIONS}/{len(self.requests)}"
        self.sessions[path] = f"token-{len(self.requests)}"
        return 201, {"@odata.id": path}, {"X-Auth-Token": self.sessions[path], "Location": f"https://{self.address}{path}"}

    def _may(self, request: Request) -> bool:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        token = request.headers.get("x-auth-token")
        return request.headers.get("authorization") == f"Basic {basic}" or token in self.sessions.values()

    def _serve(self, request: Request, path: str) -> tuple[int, t.Any, dict[str, str]]:
        parts = path.split("/")[3:]
        machine = self.machine
        if path == machine.registry_path and machine.registry is not None:
            return 200, {"Id": machine.announced, "RegistryEntries": {"Attributes": machine.registry}}, {}
        if parts == ["Registries"]:
            return 200, {"Members": [{"@odata.id": f"/redfish/v1/Registries/{name}"} for name in ("Base", machine.listed)]}, {}
        if parts == ["Registries", machine.listed] and machine.registry is not None:
            other = {"Language": "ja", "Uri": "/redfish/v1/Registries/nowhere"}
            return 200, {"Location": [other, {"Language": "en", "Uri": machine.registry_path}]}, {}
        if parts == ["Systems"]:
            return 200, {"Members": [{"@odata.id": f"/redfish/v1/Systems/{name}"} for name in self.systems]}, {}
        if len(parts) >= 2 and parts[0] == "Systems" and parts[1] in self.systems:
            return self._system(request, self.systems[parts[1]], parts[2:])
        return 404, explained("Base.1.8.ResourceMissingAtURI", "There is nothing."), {}

    def _system(self, request: Request, machine: Machine, rest: list[str]) -> tuple[int, t.Any, dict[str, str]]:
        home = f"/redfish/v1/Systems/{machine.system}"
        if not rest:
            document = {"@odata.id": home, "Id": machine.system, "Manufacturer": machine.manufacturer, "Model": "M1", "BiosVersion": "1.2"}
            return 200, {**document, **({"Bios": {"@odata.id": f"{home}/{machine.bios}"}} if machine.bios else {})}, {}
        if rest == [machine.bios]:
            document = {"AttributeRegistry": machine.announced, "Attributes": machine.attributes}
            if machine.settings:
                announced: Json = {"SettingsObject": {"@odata.id": f"{home}/{machine.bios}/{machine.settings}"}}
                if machine.apply_times:
                    announced["SupportedApplyTimes"] = machine.apply_times
                document["@Redfish.Settings"] = announced
            return 200, document, {}
        if rest == [machine.bios, machine.settings]:
            return self._patch(request, machine) if request.method == "PATCH" else self._pending(machine)
        return 404, None, {}

    def etag(self, machine: Machine) -> str:
        tag = f'"{machine.system}-{self.version}"'
        return {"": "", "strong": tag, "weak": f"W/{tag}"}[machine.etags]

    def _pending(self, machine: Machine) -> tuple[int, t.Any, dict[str, str]]:
        pending = self.pending[machine.system]
        shown = {**machine.attributes, **pending} if machine.pending_shows == "all" else pending
        document = {"Attributes": shown} if shown or machine.pending_shows != "nothing" else {}
        tag = self.etag(machine)
        return 200, document, {"ETag": tag} if tag else {}

    def _patch(self, request: Request, machine: Machine) -> tuple[int, t.Any, dict[str, str]]:
        self.before_patch()
        tag, given = self.etag(machine), request.headers.get("if-match")
        # RFC 9110, section 13.1.1: If-Match compares strongly, so a weak tag never matches.
        if tag and given != (tag[2:] if machine.etags == "weak" else tag):
            return 412, explained("Base.1.8.PreconditionFailed", "The ETag does not match."), {}
        if self.jobs:
            said = "Pending configuration values are already committed, unable to perform another set operation."
            return 400, explained("IDRAC.2.8.SYS011", said), {}
        unknown = [name for name in request.body["Attributes"] if name not in machine.attributes]
        if unknown:
            return 400, explained("Base.1.8.PropertyUnknown", f"The property {unknown[0]} is not known."), {}
        when = request.body.get("@Redfish.SettingsApplyTime")
        self.version += 1
        if machine.keeps_aside and not when:
            self.aside.update(request.body["Attributes"])
            return 200, {}, {}
        self.pending[machine.system].update(copy.deepcopy(request.body["Attributes"]))
        if machine.makes_jobs:
            self.jobs.append("JID_1")
            return 202, {}, {"Location": "/redfish/v1/TaskService/Tasks/JID_1"}
        return 200, {}, {}
