# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane: what each part is called with, and how it is brought up. No decision about GPUs is made here."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

from tests.lab import build, processes
from tests.lab.api import Api
from tests.lab.layout import Layout

HERE = Path(__file__).resolve().parent
PORTS = (
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "virt-api",
    "virt-controller",
    "fault-proxy",
)
# In the order in which they are started.
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "virt-api", "virt-controller", "simulation")


def commands(layout: Layout, directory: Path, ports: dict[str, int]) -> dict[str, list[str]]:
    """The command line of each part of the control plane. Everything listens on 127.0.0.1 only."""
    pki = layout.pki

    def controller(part: str, *more: str) -> list[str]:
        config = str(layout.kubeconfig(part))
        return [
            build.program(directory, part),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports[part]}",
            f"--tls-cert-file={pki}/server.crt",
            f"--tls-private-key-file={pki}/server.key",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            *more,
        ]

    etcd = f"https://127.0.0.1:{ports['etcd']}"
    peer = f"http://127.0.0.1:{ports['etcd-peer']}"
    return {
        "etcd": [
            build.program(directory, "etcd"),
            "--name=lab",
            f"--data-dir={layout.directory}/etcd",
            "--unsafe-no-fsync",  # the cluster is thrown away
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=lab={peer}",
            f"--cert-file={pki}/etcd.crt",
            f"--key-file={pki}/etcd.key",
            "--client-cert-auth",
            f"--trusted-ca-file={pki}/ca.crt",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            build.program(directory, "kube-apiserver"),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={ports['kube-apiserver']}",
            f"--etcd-servers={etcd}",
            f"--etcd-cafile={pki}/ca.crt",
            f"--etcd-certfile={pki}/etcd.crt",
            f"--etcd-keyfile={pki}/etcd.key",
            f"--cert-dir={pki}",
            f"--tls-cert-file={pki}/server.crt",
            f"--tls-private-key-file={pki}/server.key",
            f"--client-ca-file={pki}/ca.crt",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy.crt",
            f"--proxy-client-key-file={pki}/front-proxy.key",
            "--endpoint-reconciler-type=none",
            "--event-ttl=10m",
            f"--audit-policy-file={HERE / 'audit-policy.yaml'}",
            f"--audit-log-path={layout.audit}",
        ],
        "kube-controller-manager": controller(
            "kube-controller-manager",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/service-account.key",
            f"--root-ca-file={pki}/ca.crt",
        ),
        "kube-scheduler": controller("kube-scheduler"),
        "kwok": [
            build.program(directory, "kwok"),
            f"--kubeconfig={layout.kubeconfig('kwok')}",
            f"--config={HERE / 'stages.yaml'}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--server-address=127.0.0.1:{ports['kwok']}",
            "--node-ip=127.0.0.1",
            "--node-lease-duration-seconds=120",
        ],
        # A plain process instead of a Deployment; kubelets' consoles, which the handler certificate is for, do not exist.
        "virt-api": [
            build.program(directory, "virt-api"),
            f"--kubeconfig={layout.kubeconfig('virt-api')}",
            "--listen=127.0.0.1",
            f"--port={ports['virt-api']}",
            f"--tls-cert-file={pki}/server.crt",
            f"--tls-key-file={pki}/server.key",
            f"--handler-cert-file={pki}/client-virt-api.crt",
            f"--handler-key-file={pki}/client-virt-api.key",
        ],
        "virt-controller": [
            build.program(directory, "virt-controller"),
            f"--kubeconfig={layout.kubeconfig('virt-controller')}",
            "--listen=127.0.0.1",
            f"--port={ports['virt-controller']}",
            f"--prom-cert-file={pki}/server.crt",
            f"--prom-key-file={pki}/server.key",
        ],
    }


def health(layout: Layout, ports: dict[str, int]) -> dict[str, Callable[[], str | None]]:
    """For each part that can be asked, the question why it is not ready: None when it is."""

    def over_tls(part: str, path: str, identity: str | None = "admin") -> Callable[[], str | None]:
        api = Api(layout, ports[part], identity, timeout=5)
        return lambda: api.trouble(path)

    def kwok() -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", ports["kwok"], timeout=5)
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
            return None if status == 200 else f"/healthz: {status}"
        except OSError as e:
            return f"/healthz: {e}"
        finally:
            connection.close()

    return {
        "kube-apiserver": over_tls("kube-apiserver", "/readyz"),
        "kube-controller-manager": over_tls("kube-controller-manager", "/healthz"),
        "kube-scheduler": over_tls("kube-scheduler", "/healthz"),
        "kwok": kwok,
        # virt-api takes a client certificate only from the API server's aggregation layer.
        "virt-api": over_tls("virt-api", "/healthz", None),
        "virt-controller": over_tls("virt-controller", "/healthz", None),
    }


def start_api_server(layout: Layout, argv: dict[str, list[str]], checks: dict[str, Callable[[], str | None]]) -> None:
    """etcd and the API server, until the latter is ready."""
    processes.start(layout, "etcd", argv["etcd"])
    processes.start(layout, "kube-apiserver", argv["kube-apiserver"])
    processes.wait(layout, "kube-apiserver", checks["kube-apiserver"])
