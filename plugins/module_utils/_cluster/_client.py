# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A thin client of the Kubernetes API: literal paths, plain dictionaries, and every failure as one complete sentence.

Authentication and connection settings are those of kubernetes.core, through its own code; the requests are ours, because a module here
sends two or three of them, knows their paths, and must say within seconds that a server does not answer.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import time
import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import urllib3
    from kubernetes.client import ApiClient

    LIBRARY_ERROR: t.Optional[str] = None
except ImportError as error:
    LIBRARY_ERROR = str(error)

try:
    # Private names of kubernetes.core, used here and nowhere else: there is no public way to its configuration without its discovery.
    from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import (
        _create_auth_spec,
        _create_configuration,
        _create_headers,
    )

    COLLECTION_ERROR: t.Optional[str] = None
except ImportError as error:
    # What our playbooks hand over. A parameter that is not known would end the module before it can say what is missing.
    AUTH_ARG_SPEC = {"kubeconfig": {"type": "raw", "no_log": True}, "context": {"type": "str"}}
    COLLECTION_ERROR = str(error)

Json = t.Dict[str, t.Any]

FIELD_MANAGER = "gpufleet.kubevirt"
_PAGE = 500
_CONNECT_SECONDS = 5.0
#: Until a server has answered once, it gets this long for an answer; afterwards it is known to be there and may take its time.
_FIRST_ANSWER_SECONDS = 8.0
_ANSWER_SECONDS = 60.0
#: Retries end when this long has gone by since the first attempt.
_UNREACHABLE_SECONDS = 6.0
_BUSY_SECONDS = 60.0
_BUSY = (429, 500, 502, 503, 504)
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}


class ApiError(Exception):
    """A request that failed. ``status`` is the HTTP status, or None if no answer came. As text it is one complete sentence.

    ``unknown``: it may have been carried out all the same, now or in an attempt before that had no answer. ``causes``: the server's details.
    """

    def __init__(self, method: str, path: str, server: str, status: int | None, reason: str, message: str) -> None:
        super().__init__(f"{method} {path} on {server}: {f'{status} ' if status else ''}{reason}{f': {message}' if message else ''}")
        self.method = method
        self.path = path
        self.status = status
        self.reason = reason
        self.message = message
        self.unknown = status is None or status >= 500
        self.causes: t.Tuple[str, ...] = ()


def auth_argument_spec() -> Json:
    """The authentication arguments of kubernetes.core, for a module's argument spec."""
    return dict(AUTH_ARG_SPEC)


def connect(module: AnsibleModule) -> Client:
    """A client as the module's arguments and the environment say. Sends nothing yet. Ends the module if that cannot work."""
    if LIBRARY_ERROR:
        module.fail_json(msg=missing_required_lib("kubernetes"), exception=LIBRARY_ERROR)
    if COLLECTION_ERROR:
        module.fail_json(
            msg=f"Connecting to the cluster: the collection kubernetes.core 6.4.0 or newer is not there ({COLLECTION_ERROR}). Install it."
        )
    source = credentials_from(module.params, os.environ)
    try:
        configuration = _create_configuration(_create_auth_spec(module))
        headers = _create_headers(module)
    except Exception as error:  # noqa: BLE001  a kubeconfig's contents and its credential plugins may raise anything
        module.fail_json(
            msg=f"Connecting to the cluster: no usable credentials from {source}: {_one_line(error)}. Set gpufleet_kubeconfig (and "
            "gpufleet_context), or K8S_AUTH_KUBECONFIG in the environment. Nothing was changed."
        )
    return Client(configuration, headers, source)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def credentials_from(params: t.Mapping[str, t.Any], environment: t.Mapping[str, str]) -> str:
    """Where kubernetes.core takes the credentials from, in its own order, in words."""
    for name in ("kubeconfig", "context", "host"):
        value = params.get(name)
        if value:
            return f"the {name} {value}" if isinstance(value, str) else f"the {name} that was given"
    for name in ("kubeconfig", "context", "host"):
        value = environment.get(f"K8S_AUTH_{name.upper()}")
        if value:
            return f"K8S_AUTH_{name.upper()}={value}"
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return "the service account of the pod that this runs in, because no kubeconfig was given"
    return f"the default kubeconfig {environment.get('KUBECONFIG') or '~/.kube/config'}, because none was given"


class Client:
    """Requests to one API server. ``server`` is its address, ``source`` says where the credentials came from.

    ``warnings`` are what it said beside its answers, each once: a field that it does not know, something deprecated, a webhook's remark.
    ``date`` is its clock at its last answer, in seconds since 1970, or None if it has not said.
    """

    def __init__(self, configuration: t.Any, headers: t.Mapping[str, t.Any], source: str) -> None:
        configuration.retries = False  # retries are ours, with a limit in seconds
        self.server: str = configuration.host
        self.source = source
        self.warnings: t.List[str] = []
        self.date: t.Optional[int] = None
        self._answered = False
        self._configuration = configuration
        self._pool = ApiClient(configuration).rest_client.pool_manager
        self._headers = {key: ", ".join(value) if isinstance(value, list) else value for key, value in headers.items() if key != "Accept"}

    def get(self, path: str, query: t.Optional[Json] = None) -> Json:
        """One object. Raises :class:`ApiError` with status 404 if there is none."""
        return self._request("GET", path, query)

    def find(self, path: str, query: t.Optional[Json] = None) -> Json | None:
        """One object, or None if there is none (or no such kind)."""
        try:
            return self.get(path, query)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, path: str, query: t.Optional[Json] = None) -> t.List[Json]:
        """All objects of a collection, read in pages."""
        items: t.List[Json] = []
        following = ""
        restarted = False
        while True:
            try:
                page = self.get(path, {**(query or {}), "limit": _PAGE, **({"continue": following} if following else {})})
            except ApiError as error:
                if error.status != 410 or restarted or not following:
                    raise
                items, following, restarted = [], "", True  # the list is too old to go on with: read it anew, once
                continue
            if "items" not in page:  # somebody in between answers in the server's place: nothing is no list, and no VM in it is no proof
                raise ApiError("GET", path, self.server, None, "failed", "the answer is no list of objects; see which proxy is in between")
            items += page["items"] or []
            following = (page.get("metadata") or {}).get("continue") or ""
            if not following:
                return items

    def create(self, path: str, body: Json, dry_run: bool = False) -> Json:
        """Create an object in the collection at ``path``."""
        return self._request("POST", path, self._writing(dry_run), body)

    def evict(self, path: str, body: Json) -> Json:
        """Ask for an eviction at ``path``. Status 429 is an answer here (a disruption budget says no): it is not asked again."""
        return self._request("POST", path, self._writing(False), body, busy=tuple(status for status in _BUSY if status != 429))

    def put(self, path: str, body: Json) -> Json:
        """Call a subresource that takes PUT."""
        return self._request("PUT", path, None, body)

    def patch(self, path: str, body: t.Any, dry_run: bool = False, kind: str = "merge") -> Json:
        """Patch an object. With ``metadata.resourceVersion`` in a merge patch, another writer in between gives status 409."""
        return self._request("PATCH", path, self._writing(dry_run), body, _PATCH_TYPES[kind])

    def apply(self, path: str, body: Json, dry_run: bool = False) -> Json:
        """Server-side apply: have the object with these fields. What we applied before and is not among them goes; fields of others stay.

        A field that is among them and that another has set is ours then. With ``dry_run`` the answer is what would be stored.
        """
        return self._request("PATCH", path, {**self._writing(dry_run), "force": "true"}, body, _PATCH_TYPES["apply"])

    def delete(self, path: str, body: t.Optional[Json] = None, dry_run: bool = False) -> None:
        """Delete an object; it is no error if there is none."""
        try:
            self._request("DELETE", path, {"dryRun": "All"} if dry_run else None, body)
        except ApiError as error:
            if error.status != 404:
                raise

    @staticmethod
    def _writing(dry_run: bool) -> Json:
        return {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}

    def _request(
        self,
        method: str,
        path: str,
        query: t.Optional[Json],
        body: t.Any = None,
        content: str = "application/json",
        busy: t.Tuple[int, ...] = _BUSY,
    ) -> Json:
        url = self.server + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        began = time.monotonic()
        attempt = 0
        unknown = False
        while True:
            attempt += 1
            try:
                status, answer, wait = self._send(method, url, body, content)
            except ApiError as error:
                wait = None
                failed = error
                patience = _BUSY_SECONDS if self._answered else _UNREACHABLE_SECONDS
            else:
                if status < 300:
                    return answer or {}
                failed = self._failure(method, path, status, answer)
                patience = _BUSY_SECONDS
                if status not in busy:
                    failed.unknown = unknown
                    raise failed
            # A second attempt at what the first has done is refused: the object is there already, or has another version.
            failed.unknown = unknown = unknown or failed.unknown
            pause = max(wait or 0.0, min(8.0, 0.25 * 2**attempt))
            if time.monotonic() - began + pause > patience:
                failed.method, failed.path = method, path
                raise failed
            time.sleep(pause)

    def _send(self, method: str, url: str, body: t.Any, content: str) -> t.Tuple[int, t.Optional[Json], t.Optional[float]]:
        """One attempt: status, answer, and how long the server asks us to wait."""
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER, **self._headers}
        if body is not None:
            headers["Content-Type"] = content
        for setting in self._configuration.auth_settings().values():  # renews a token that a program or a file gives
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        seconds = _ANSWER_SECONDS if self._answered else _FIRST_ANSWER_SECONDS
        path = urllib.parse.urlsplit(url).path
        try:
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds),
            )
        except urllib3.exceptions.HTTPError as error:
            reason = _unreachable(error)
            raise ApiError(method, path, f"{self.server} (from {self.source})", None, f"no answer: {reason}", "") from error
        self._answered = True
        self.date = _seconds(answer.headers.get("Date")) or self.date
        self.warnings += [text for text in dict.fromkeys(warnings_in(answer.headers.getlist("Warning"))) if text not in self.warnings]
        try:
            decoded = json.loads(answer.data) if answer.data else None
        except ValueError:
            decoded = {"message": f"the answer is no JSON: {answer.data[:200].decode('utf-8', 'replace')}"}
            if answer.status < 300:
                return 502, decoded, None
        if method == "GET" and answer.status < 300 and not isinstance(decoded, dict):
            return 502, {"message": "the answer is no object"}, None
        after = answer.headers.get("Retry-After", "")
        return answer.status, decoded if isinstance(decoded, dict) else None, float(after) if after.isdecimal() else None

    def _failure(self, method: str, path: str, status: int, answer: t.Optional[Json]) -> ApiError:
        answer = answer or {}
        failed = ApiError(method, path, self.server, status, answer.get("reason") or "failed", answer.get("message") or "")
        details = answer.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        failed.causes = tuple(str(cause.get("message")) for cause in causes or [] if isinstance(cause, dict) and cause.get("message"))
        return failed


def _seconds(date: t.Optional[str]) -> t.Optional[int]:
    """The seconds since 1970 of a ``Date`` header."""
    try:
        return int(email.utils.parsedate_to_datetime(date or "").timestamp())
    except (TypeError, ValueError):
        return None


_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def warnings_in(headers: t.Iterable[str]) -> t.List[str]:
    """The texts of ``Warning: 299 - "..."`` headers, without the blank ones that KubeVirt's webhook adds for gates that it knows."""
    texts = [re.sub(r"\\(.)", r"\1", text) for header in headers for text in _WARNING.findall(header)]
    return [text for text in texts if text.strip()]


def _unreachable(error: Exception) -> str:
    """Why no answer came, without the library's object addresses."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"the TLS connection failed: {error}"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return str(error).rpartition(": ")[2]
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {_CONNECT_SECONDS:.0f} s"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "it takes connections and does not answer"
    return f"{type(error).__name__}: {error}"
