# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPU Operator and its operands do to nodes, simulated from what their sources say, traps included.

The objects that they write are real ones on the real API server, their pods are kwok's, and the devices that they change are in the
host trees. `labels`, `daemonsets`, `devices`, `readiness` and `device_manager` decide, pure, one component each; `snapshot` reads the
cluster; `driver` asks them and acts.

What this cannot show: how long images take to pull and drivers to build. kwok makes a new pod ready at once, and the simulation takes
that back a moment later if it still waits; such a pod is Running and not ready, where a real one would be Pending in its init containers.
Node Feature Discovery has no pods here. Not simulated: MIG, Kata, confidential computing, NVIDIADriver objects, the driver upgrade
controller, configurations other than the stock ones, what k8s-driver-manager pauses, and the end of a vGPU manager's virtual functions.
"""
