# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPU Operator and its operands do to nodes, simulated from what their sources say, traps included.

Everything that is simulated of them is in this package: the objects that they write are real ones on the real API server, their pods
are kwok's, and the devices that they change are in the host trees. `rules.py` decides (pure), `driver.py` reads and acts.
What this cannot show: how long images take to pull and drivers to build, and what init containers print.
"""
