# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's certificates, made by the openssl program, and the kubeconfig files made of them.

One CA; a client certificate for each identity; serving certificates for 127.0.0.1. Keys are readable by their owner only.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from tests.lab.layout import IDENTITIES, LabError, Layout

DAYS = "30"  # a lab is thrown away long before
_EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
# Python from 3.13 on checks certificates by the letter of RFC 5280: key identifiers and usages must be there.
_STRICT = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
)
_SERVER = "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc\n"


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise LabError("Making the lab's certificates: the program openssl is missing. Install the package openssl.") from None
    if done.returncode:
        raise LabError(
            f"Making the lab's certificates: `openssl {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}"
        )


def make(pki: Path) -> None:
    """Make the CA, the service account key and all certificates in an existing directory."""
    old = os.umask(0o077)
    try:
        _openssl(
            *(
                "req",
                "-x509",
                "-new",
                *_EC,
                "-keyout",
                f"{pki}/ca.key",
                "-out",
                f"{pki}/ca.crt",
                "-subj",
                "/CN=gpufleet-lab-ca",
                "-days",
                DAYS,
            ),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{pki}/service-account.key")
        _openssl("ec", "-in", f"{pki}/service-account.key", "-pubout", "-out", f"{pki}/service-account.pub")
        _certificate(pki, "server", "/CN=gpufleet-lab", _SERVER + "extendedKeyUsage=serverAuth\n")
        _certificate(pki, "etcd", "/CN=etcd", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _certificate(pki, "front-proxy", "/CN=front-proxy", "extendedKeyUsage=clientAuth\n")
        for identity, (user, group) in IDENTITIES.items():
            subject = (f"/O={group}" if group else "") + f"/CN={user}"
            _certificate(pki, f"client-{identity}", subject, "extendedKeyUsage=clientAuth\n")
    finally:
        os.umask(old)


def _certificate(pki: Path, name: str, subject: str, extensions: str) -> None:
    (pki / f"{name}.ext").write_text(_STRICT + extensions)
    _openssl("req", "-new", *_EC, "-keyout", f"{pki}/{name}.key", "-out", f"{pki}/{name}.csr", "-subj", subject)
    _openssl(
        *("x509", "-req", "-in", f"{pki}/{name}.csr", "-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key", "-CAcreateserial"),
        *("-days", DAYS, "-out", f"{pki}/{name}.crt", "-extfile", f"{pki}/{name}.ext"),
    )
    for suffix in ("csr", "ext"):
        (pki / f"{name}.{suffix}").unlink()


def write_kubeconfigs(layout: Layout, port: int) -> None:
    """A kubeconfig for each identity, whole in itself."""
    for identity in IDENTITIES:
        write_kubeconfig(layout, identity, port)


def write_kubeconfig(layout: Layout, identity: str, port: int) -> None:
    """The kubeconfig of one identity, in one step: for the API server, or what stands before it, at a port of 127.0.0.1."""

    def data(name: str) -> str:
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    user, _group = IDENTITIES[identity]
    path = layout.kubeconfig(identity)
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(
            "apiVersion: v1\n"
            "kind: Config\n"
            "current-context: lab\n"
            "contexts:\n"
            f'  - {{name: lab, context: {{cluster: lab, user: "{user}"}}}}\n'
            "clusters:\n"
            "  - name: lab\n"
            "    cluster:\n"
            f"      server: https://127.0.0.1:{port}\n"
            f"      certificate-authority-data: {data('ca.crt')}\n"
            "users:\n"
            f'  - name: "{user}"\n'
            "    user:\n"
            f"      client-certificate-data: {data(f'client-{identity}.crt')}\n"
            f"      client-key-data: {data(f'client-{identity}.key')}\n"
        )
    beside.replace(path)
