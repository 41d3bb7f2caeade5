# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A client of one repository in an OCI registry (OCI Distribution Specification 1.1): log in, read manifests, give an image another tag.

Credentials go to the registry, and to the token service that it names over https, never elsewhere; a wrong password is tried once.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import typing as t
import urllib.parse

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._http import Answer, Https
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._tags import Repository

Json = t.Dict[str, t.Any]

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
#: Architectures as Go calls them, which is what images are marked with.
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PARAMETER = re.compile(r'([a-zA-Z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a tag points to: the digest that it has in the registry, its media type, its bytes."""

    digest: str
    media_type: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Image:
    """What a tag is an image of: the digest of the tag, the labels, and the blobs that a node pulls."""

    digest: str
    labels: t.Mapping[str, str]
    blobs: t.Tuple[str, ...]


def _mapping(value: t.Any) -> Json:
    """What a registry sends need not have the form that it should: an empty mapping in place of anything else."""
    return value if isinstance(value, dict) else {}


def _listed(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else [value] if value else []


def _digest(descriptor: t.Any) -> t.Optional[str]:
    """The digest in a descriptor; None where there is none, or one that would be another path (OCI Image Specification, descriptor.md)."""
    found = _mapping(descriptor).get("digest")
    return found if isinstance(found, str) and _DIGEST.fullmatch(found) else None


def challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme of a WWW-Authenticate header, in lower case, and its parameters (RFC 9110, 11.6.1)."""
    scheme, _space, rest = header.strip().partition(" ")
    return scheme.lower(), {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}


class Registry:
    """One repository, as one user or (without a user name) as anybody."""

    def __init__(self, https: Https, repository: Repository, username: str | None, password: str | None) -> None:
        self.repository = repository
        self.target = f"registry {repository.host}"
        self._https, self._username = https, username
        self._basic = base64.b64encode(f"{username}:{password or ''}".encode()).decode() if username else None
        self._authorization: t.Optional[str] = None
        self._bearer: t.Optional[dict[str, str]] = None

    def log_in(self, push: bool) -> None:
        """Find out how the registry wants to be asked, and whether it lets us in. Raises Refused."""
        answer = self._send("GET", "/v2/", {})
        if answer.status == 401:
            scheme, parameters = challenge(str(answer.headers.get("WWW-Authenticate") or ""))
            if scheme == "bearer":
                self._bearer = parameters
                self._authorization = f"Bearer {self._token(push)}"
            elif scheme == "basic":
                if not self._basic:
                    raise self._denied("it lets nobody in without a password")
                self._authorization = f"Basic {self._basic}"
            else:
                raise Refused(self.target, f"it wants to be logged in to with {scheme or 'nothing that it names'}", "Use another registry")
            answer = self._send("GET", "/v2/", {})
            if answer.status == 401 and not self._bearer:
                raise self._denied(f"it refuses user {self._username} with this password")
        if answer.status not in (200, 401, 403) or (answer.status == 200 and "html" in str(answer.headers.get("Content-Type") or "")):
            problem = f"/v2/ answers with status {answer.status}, so there is no registry"
            raise Refused(self.target, problem, "Correct gpufleet_registry (option registry)", answer.status)

    def manifest(self, reference: str) -> t.Optional[Manifest]:
        """The manifest of a tag or digest, or None where the registry has none. Raises Refused."""
        accept = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        answer = self._send("GET", f"/v2/{self.repository.path}/manifests/{reference}", accept)
        if answer.status == 404:
            return None
        self._check(answer, f"reading the manifest {reference}")
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        named = str(answer.headers.get("Docker-Content-Digest") or digest)
        asked = reference if reference.startswith("sha256:") else digest
        if digest != asked or (named.startswith("sha256:") and digest != named):
            problem = f"the manifest {reference} has the digest {digest}, and the registry says {named}"
            raise Refused(self.target, problem, "Look for a proxy that changes what passes through it")
        return Manifest(digest, str(answer.headers.get("Content-Type") or "").partition(";")[0].strip(), answer.body)

    def image(self, tag: str, arch: str) -> t.Optional[Image]:
        """The image of a tag for an architecture, or None where there is no such tag. Raises Refused."""
        manifest = self.manifest(tag)
        if manifest is None:
            return None
        document = self._json(manifest.content, tag)
        if document.get("manifests") is not None:
            found = self._of_index(document, tag, arch)
            document = self._json(found.content, tag)
        blobs = [_digest(document.get("config")), *(_digest(layer) for layer in _listed(document.get("layers")))]
        if not all(blobs):
            raise Refused(self.repository.reference(tag), "it is no image: its manifest has no configuration", "Choose another name")
        settings = self._json(self._blob(str(blobs[0])), tag)
        labels = _mapping(_mapping(settings.get("config")).get("Labels"))
        return Image(manifest.digest, {str(key): str(value) for key, value in labels.items()}, tuple(str(blob) for blob in blobs))

    def missing_blobs(self, image: Image) -> list[str]:
        """Those of the image's blobs that the registry does not give this user. It is asked for each, and sends none of them. Raises Refused."""
        return [blob for blob in image.blobs if not self._gives(blob)]

    def _gives(self, blob: str) -> bool:
        answer = self._send("HEAD", self._path_of(blob), {})
        if answer.status in (401, 403, 404):
            return False
        if answer.status not in _REDIRECTS:  # those lead to its storage
            self._check(answer, f"asking for {blob}")  # a registry that is busy has not said that there is none
        return True

    def tag(self, manifest: Manifest, tag: str) -> None:
        """Give a manifest of this repository another tag. Raises Refused."""
        path = f"/v2/{self.repository.path}/manifests/{tag}"
        answer = self._send("PUT", path, {"Content-Type": manifest.media_type}, manifest.content)
        self._check(answer, f"writing the tag {tag}")

    def _of_index(self, document: Json, tag: str, arch: str) -> Manifest:
        wanted = _GO_ARCHITECTURES.get(arch, arch)
        for entry in _listed(document["manifests"]):
            platform, digest = _mapping(_mapping(entry).get("platform")), _digest(entry)
            if digest and platform.get("os") == "linux" and platform.get("architecture") == wanted:
                found = self.manifest(digest)
                if found:
                    return found
        problem = f"it lists no image for linux/{wanted}"
        raise Refused(self.repository.reference(tag), problem, "Remove that tag, or choose another name")

    def _blob(self, digest: str) -> bytes:
        answer = self._send("GET", self._path_of(digest), {})
        for _hop in range(3):
            if answer.status not in _REDIRECTS:
                break
            # The storage behind a registry has its own way to let readers in: the address carries it.
            url = self._address(str(answer.headers.get("Location") or ""), f"https://{self.repository.host}{self._path_of(digest)}")
            answer = self._https.request(self.target, "GET", url, {"User-Agent": "gpufleet.kubevirt"})
        self._check(answer, f"reading {digest}")
        found = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        if digest.startswith("sha256:") and found != digest:
            raise Refused(self.target, f"{digest} has the digest {found}", "Check the registry's storage")
        return answer.body

    def _path_of(self, blob: str) -> str:
        return f"/v2/{self.repository.path}/blobs/{blob}"

    def _address(self, named: str, beside: str = "") -> str:
        """An address that the registry has named, which may be relative. Raises Refused where it is none."""
        try:
            return urllib.parse.urlsplit(urllib.parse.urljoin(beside, named)).geturl()
        except ValueError:
            raise Refused(self.target, f"it leads to {named[:200]!r}, which is no address", "Ask who runs the registry") from None

    def _json(self, content: bytes, tag: str) -> Json:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Refused(self.repository.reference(tag), "what the registry has there is no JSON object", "Remove that tag")
        return document

    def _send(self, method: str, path: str, headers: t.Mapping[str, str], body: bytes | None = None) -> Answer:
        sent = {"User-Agent": "gpufleet.kubevirt", **headers, **({"Authorization": self._authorization} if self._authorization else {})}
        return self._https.request(self.target, method, f"https://{self.repository.host}{path}", sent, body)

    def _token(self, push: bool) -> str:
        """A token for this repository (CNCF Distribution, "Token Authentication Specification"). Raises Refused."""
        parameters = self._bearer or {}
        scope = f"repository:{self.repository.path}:{'pull,push' if push else 'pull'}"
        query = {"service": parameters.get("service", ""), "scope": scope}
        realm = urllib.parse.urlsplit(self._address(parameters.get("realm", "")))
        url = urllib.parse.urlunsplit((*realm[:3], urllib.parse.urlencode([*urllib.parse.parse_qsl(realm.query), *query.items()]), ""))
        headers = {"User-Agent": "gpufleet.kubevirt", **({"Authorization": f"Basic {self._basic}"} if self._basic else {})}
        answer = self._https.request(f"{self.target}, its token service", "GET", url, headers)
        if answer.status in (400, 401, 403):
            raise self._denied(f"it refuses user {self._username} with this password" if self._username else "it lets nobody in like this")
        self._check(answer, "asking for a token")
        try:
            document = json.loads(answer.body)
            return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused(self.target, "its token service sent no token", "Ask who runs the registry") from None

    def _check(self, answer: Answer, doing: str) -> None:
        if answer.status < 300:
            return
        if answer.status in (401, 403):
            who = f"user {self._username}" if self._username else "nobody without a password"
            raise Refused(
                self.target,
                f"{doing} of {self.repository.path} is denied to {who}{_explained(answer.body)}",
                "Give an account that may do this in gpufleet_registry_username and gpufleet_registry_password",
                answer.status,
            )
        remedy = "Run again later" if answer.status in (429, 500, 502, 503, 504) else "Do what it says and run again"
        raise Refused(self.target, f"{doing} ended with status {answer.status}{_explained(answer.body)}", remedy, answer.status)

    def _denied(self, problem: str) -> Refused:
        remedy = "Correct gpufleet_registry_username and gpufleet_registry_password (options username and password, or auth_file)"
        return Refused(self.target, problem, remedy, 401)


def _explained(body: bytes) -> str:
    """What an error answer says, with a colon before it, or nothing."""
    try:
        errors = json.loads(body)["errors"]
        said = "; ".join(f"{error.get('message') or ''} ({error.get('code')})".strip() for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f": {said[:300]}" if said else ""
