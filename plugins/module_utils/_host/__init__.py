# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: it can change at any time.
