# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPUs of a host: read, changed one by one, with the holders looked for right before each removal."""

from __future__ import annotations

import dataclasses
import errno
import re
import time
import typing as t

from .._change import Blocker, Change
from . import _holders, _pci, _vgpu_plan
from ._commands import Commands
from ._sysfs import Host, HostError, KernelError, KernelTimeout
from ._vgpu import Gpu, Vgpu
from ._vgpu_backends import Backend, Mdev, VendorVfio
from ._vgpu_wish import GpuName

NVIDIA_SMI = "nvidia-smi"
_MODE = re.compile(r"^\s*vGPU Heterogeneous Mode\s*:\s*(\w+)", re.MULTILINE)
#: Between two looks at who holds a vGPU, in seconds.
_PAUSE = 0.5

#: What a kernel's answer to making a vGPU means (the kernel's drivers/vfio/mdev; NVIDIA's driver for ENOSPC).
_CREATE = {
    errno.ENOSPC: ("the GPU has no room for another {type} beside what is on it now", "See what occupies it; a mix needs mixed_size: on"),
    errno.EEXIST: (
        "a device with the UUID {device} exists already",
        "Find who made it; another parent has it, or another program just made it",
    ),
    errno.EINVAL: ("the driver does not take that type or device id", "Compare with what gpu_node_info lists for this GPU"),
    errno.EBUSY: ("the function {parent} has a vGPU already, or is busy", "Find who else makes vGPUs on this host"),
    errno.ENOENT: ("the driver no longer offers {type} there", "See whether the vGPU manager still runs this GPU"),
}


class VgpuHost:
    """``failed`` are the GPUs on which something did not work; what is left of their changes is not tried."""

    def __init__(self, host: Host, commands: Commands, timeout: float, backend: str = "auto") -> None:
        self._host = host
        self._commands = commands
        self._timeout = timeout
        self._asked = backend
        self._vendor = VendorVfio(host, timeout)
        self._backends: t.Dict[str, Backend] = {"vendor_vfio": self._vendor, "mdev": Mdev(host, timeout)}
        self._of: t.Dict[str, str] = {}  # GPU -> backend
        self.failed: t.Set[str] = set()

    def names(self) -> t.List[GpuName]:
        return [GpuName(f.address, f"{f.vendor}:{f.device}".upper()) for f in _pci.functions(self._host) if f.is_gpu]

    def observe(self, addresses: t.Collection[str], ask_mode: t.Container[str] = ()) -> t.Dict[str, Gpu]:
        """These GPUs with all their vGPUs and who holds them. ``ask_mode``: of which to ask nvidia-smi for the mixed-size mode."""
        functions = _pci.functions(self._host)
        opened = _holders.Opened(self._host)
        found: t.Dict[str, Gpu] = {}
        again = []
        for function in functions:
            if function.address in addresses and function.is_gpu:
                virtual = [other for other in functions if other.parent == function.address]
                mode = self._mixed(function.address) if function.address in ask_mode else None
                gpu = self._gpu(function, virtual, opened)
                if not gpu.types or any(vgpu.name is None for vgpu in gpu.vgpus):
                    again.append((function, virtual))
                found[function.address] = dataclasses.replace(gpu, mixed=mode)
        for function, virtual in again:
            # A GPU of the same model that was read after it may have told the names.
            gpu = self._gpu(function, virtual, opened)
            found[function.address] = dataclasses.replace(gpu, mixed=found[function.address].mixed)
        return found

    def _gpu(self, function: _pci.Function, virtual: t.Sequence[_pci.Function], opened: _holders.Opened) -> Gpu:
        name = f"{function.vendor}:{function.device}".upper()
        order = [*_pci.in_order(self._host, function, virtual)]
        for kind, backend in self._backends.items():
            parents = backend.parents(order)
            one_each = bool(parents)
            parents = parents or backend.parents([function.address])
            if not parents:
                continue
            if self._asked not in ("auto", kind):
                return Gpu(
                    function.address, name, function.driver, None, f"backend: {self._asked} is asked for, and its driver offers {kind}"
                )
            self._of[function.address] = kind
            return self._with_backend(
                Gpu(function.address, name, function.driver, kind, None, tuple(parents), one_each), backend, opened, function
            )
        return Gpu(function.address, name, function.driver, None, _pci.no_backend(function, virtual))

    def _with_backend(self, gpu: Gpu, backend: Backend, opened: _holders.Opened, function: _pci.Function) -> Gpu:
        vgpus = backend.vgpus(gpu.parents)
        types = backend.types(gpu.parents, {vgpu.parent for vgpu in vgpus})
        names = {kind.id: kind.name for kind in types}
        minor = _holders.nvidia_minor(self._host, function.address)
        instances = None
        if minor is not None:
            instances = sum(1 for name in self._host.names(f"/proc/driver/nvidia/capabilities/gpu{minor}/mig") if name.startswith("gi"))
        return dataclasses.replace(
            gpu,
            types=types,
            vgpus=tuple(
                dataclasses.replace(vgpu, name=names.get(vgpu.type_id, vgpu.name), holders=self._holders_of(backend, vgpu.device, opened))
                for vgpu in vgpus
            ),
            gpu_instances=instances,
        )

    def _holders_of(self, backend: Backend, device: str, opened: _holders.Opened) -> t.Optional[t.Tuple[_holders.Holder, ...]]:
        path, group = backend.place(device)
        held = opened.of(_holders.nodes(self._host, path, group), vfio=True)
        return None if held is None else tuple(held)

    def _mixed(self, address: str) -> t.Optional[bool]:
        if not self._commands.can_run:
            return None
        said = _MODE.search(self._commands.run([NVIDIA_SMI, "-q", "-i", address], int(self._timeout)).output)
        return {"enabled": True, "disabled": False}.get(said.group(1).lower()) if said else None

    # Acting

    def apply(self, changes: t.Sequence[Change]) -> t.List[Blocker]:
        """Make the changes in their order, each GPU for itself: where one fails, the rest of that GPU is left alone."""
        if any(self._of.get(_gpu_of(change)) == self._vendor.name for change in changes):
            self._vendor.remember()
        blockers = []
        stopped: t.Dict[str, str] = {}
        for change in changes:
            gpu = _gpu_of(change)
            if gpu in stopped:
                blockers.append(
                    Blocker(change.target, f"not tried, because {stopped[gpu]} failed on the same GPU", "Mend that and run again")
                )
                continue
            blocker = self._one(change, gpu)
            if blocker:
                blockers.append(blocker)
                stopped[gpu] = change.target
                self.failed.add(gpu)
        return blockers

    def _one(self, change: Change, gpu: str) -> t.Optional[Blocker]:
        if change.action == _vgpu_plan.SET:
            return self._set_mode(change, gpu)
        backend = self._backends[self._of[gpu]]
        try:
            if change.action == _vgpu_plan.CREATE:
                backend.create(change.after)
                return None
            device = change.before["device"]
            held = self._holders_of(backend, device, _holders.Opened(self._host))
            if held is None or held:
                by = "and it cannot be told by whom" if held is None else "by " + ", ".join(str(holder) for holder in held)
                return Blocker(change.target, f"it is in use now, {by}", "Stop that VM or process and run again")
            backend.remove(device)
        except KernelTimeout as error:
            return Blocker(
                change.target, f"{error}{self._by(backend, change)}", "See what holds the device, or raise timeout, and run again"
            )
        except KernelError as error:
            return _refused(change, gpu, error)
        except HostError as error:
            return Blocker(change.target, str(error), "Mend that and run again")
        return None

    def _by(self, backend: Backend, change: Change) -> str:
        if change.action != _vgpu_plan.REMOVE:
            return ""
        held = self._holders_of(backend, change.before["device"], _holders.Opened(self._host))
        return "; held by " + ", ".join(str(holder) for holder in held) if held else ""

    def _set_mode(self, change: Change, gpu: str) -> t.Optional[Blocker]:
        command, seconds = mode_command(gpu, change.after["mixed_size"]), int(self._timeout)
        problem = self._commands.run(command, seconds).problem(" ".join(command), seconds)
        if problem:
            return Blocker(change.target, problem, "See whether the vGPU manager runs this GPU, and whether it knows the mode")
        now = self._mixed(gpu)
        if now is not None and now is not (change.after["mixed_size"] == "on"):
            return Blocker(
                change.target, f"{NVIDIA_SMI} reported success, and the mode is still the other one", "Look for another writer of it"
            )
        return None


def mode_command(gpu: str, mixed_size: str) -> t.List[str]:
    return [NVIDIA_SMI, "vgpu", "-i", gpu, "-shm", "1" if mixed_size == "on" else "0"]


def _gpu_of(change: Change) -> str:
    return str((change.after or change.before)["gpu"])


def _refused(change: Change, gpu: str, error: KernelError) -> Blocker:
    parts = change.after or change.before
    if change.action == _vgpu_plan.CREATE and error.errno in _CREATE:
        problem, remedy = _CREATE[error.errno]
        return Blocker(
            change.target, f"GPU {gpu} took no {parts['type']} on {parts['parent']}: {problem.format(**parts)} ({error})", remedy
        )
    doing = "make" if change.action == _vgpu_plan.CREATE else "remove"
    return Blocker(change.target, f"the kernel refused to {doing} it: {error}", "See the kernel log, and run again")


def when_idle(look: t.Callable[[], t.Tuple[t.Dict[str, Gpu], bool]], seconds: float) -> t.Dict[str, Gpu]:
    """Look until nothing that must go is held (the second value of ``look``), for at most so long; what was seen last."""
    end = time.monotonic() + seconds
    while True:
        seen, held = look()
        if not held or time.monotonic() >= end:
            return seen
        time.sleep(_PAUSE)


def counts(vgpus: t.Sequence[Vgpu]) -> t.Dict[str, int]:
    """How many vGPUs of each type."""
    found: t.Dict[str, int] = {}
    for vgpu in vgpus:
        found[vgpu.name or vgpu.type_id] = found.get(vgpu.name or vgpu.type_id, 0) + 1
    return found
