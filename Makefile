# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS += --no-print-directory

PYTHON := $(shell GPUFLEET_PYTHON='$(GPUFLEET_PYTHON)' tests/tools/find-python)
# Without a Python that fits, every command says so instead.
IN := $(if $(PYTHON),'$(PYTHON)' "$(CURDIR)/tests/tools/env.py",tests/tools/check-machine && false)
RUN := $(IN) python tests/tools/run_parts.py
# The molecule scenario whose host is a guest of the kernel suite.
GUEST_SCENARIO := host_devices

.DEFAULT_GOAL := help
.PHONY: help check-machine demo test unit unit-targets lint lint-fast lab-test image-test page-test test-core219 bench soak release lab-up lab-down shell clean
.PHONY: format format-check ruff types yamllint ansible-lint docs-lint sanity release-check pytest-lab molecule-lab in-core219 syntax
.PHONY: kernel-smoke kernel-test record-guests pytest-kernel-smoke pytest-kernel molecule-kernel

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

check-machine: ## say all that this machine lacks
	@tests/tools/check-machine kernel

check-demo:
	@tests/tools/check-machine

demo: check-demo ## the main job on the embedded lab: site.yml, report, second run (KEEP=1 leaves the lab up, FAULT=NAME has it misbehave: tests/lab/lab fault)
	@FAULT='$(FAULT)' $(IN) python tests/tools/demo.py

test: check-machine ## everything: unit, lint, the playbooks on the lab, the first scenarios on a real kernel
	@$(RUN) --lane unit unit-targets lint lab-test kernel-smoke

# Unit tests make thousands of small files: in memory where the machine has room there for them.
IN_MEMORY = scratch=$$(mktemp -d -p /dev/shm gpufleet.XXXXXX 2>/dev/null || mktemp -d); trap 'rm -rf "$$scratch"' EXIT; TMPDIR="$$scratch"

unit: ## unit tests
	@$(IN_MEMORY) $(IN) python -m pytest -q -n 2 tests/unit tests/tools

unit-targets: ## unit tests of what runs on nodes, under every other Python from 3.9 on that is found
	@$(IN_MEMORY) $(IN) python tests/tools/targets.py

lint: ## all linters, and the built archive: ansible-test sanity, and that it installs
	@$(RUN) format-check ruff types yamllint docs-lint ansible-lint sanity release-check

lint-fast: ## the linters that take seconds
	@$(RUN) format-check ruff types yamllint

lab-test: ## the lab itself, the playbooks on it, and the molecule scenarios of it and of BMCs; one lab at a time
	@$(RUN) pytest-lab molecule-lab

image-test: ## a real container image, built and pushed to the lab's registry; needs podman and buildah, says so if they are missing
	@tests/tools/check-machine image
	@$(IN) python -m pytest -q tests/lab tests/thread -m engine

page-test: ## the report's page in a headless Chromium, which it asks you to install
	@$(IN) python -m pytest -q tests/browser

kernel-smoke: ## the kernel suite's first scenarios, on emulated machines with NVIDIA-looking devices
	@$(RUN) pytest-kernel-smoke molecule-kernel

kernel-test: check-machine ## all scenarios on a real kernel
	@$(RUN) pytest-kernel molecule-kernel

record-guests: check-machine ## make the recordings of guests anew that tests and the lab's hosts are made of
	@$(IN) python -m tests.kernel.record

test-core219: ## unit tests and playbook syntax on ansible-core 2.19, which needs Python 3.11
	@python=$$(tests/tools/find-python 3.11); test -n "$$python" || { echo "The ansible-core 2.19 lane did not run: no Python 3.11 here." >&2; exit 1; }; \
	    $(MAKE) GPUFLEET_PYTHON="$$python" in-core219

in-core219:
	@$(RUN) --lane unit syntax

bench: ## what the collection costs here: seconds of modules, bytes sent, one call beside a loop of tasks
	@$(IN) python -m tests.benchmark.bench

soak: ## a shard of the long campaigns, SHARD=i/n: small faults in the files that decide, each noticed by a unit test; all mixes of all GPUs; plans of many fleets; site.yml under the lab's faults and on its other fleets; in the first shard, the other long stories on the lab
	@$(IN) python -m tests.soak.placement --shard '$(or $(SHARD),1/1)'
	@$(IN) python -m tests.soak.planning --shard '$(or $(SHARD),1/1)'
	@$(IN) python -m tests.soak.mutation --shard '$(or $(SHARD),1/1)'
	@case '$(or $(SHARD),1/1)' in 1/*) GPUFLEET_LONG=1 $(IN) python -m pytest -q tests/thread/test_vgpu_config.py tests/thread/test_operator.py tests/thread/test_host_owned.py ;; esac
	@GPUFLEET_LONG=1 GPUFLEET_SHARD='$(or $(SHARD),1/1)' $(IN) python -m pytest -q tests/thread/test_faults.py
	@GPUFLEET_LONG=1 GPUFLEET_SHARD='$(or $(SHARD),1/1)' $(IN) python -m pytest -q tests/thread/test_profiles.py

lab-up: check-demo ## start the embedded lab
	@$(IN) python tests/lab/lab.py up

lab-down: ## stop the embedded lab
	@$(IN) python tests/lab/lab.py down

shell: ## a shell with the development environment, and the lab's programs and cluster if it is up
	@$(IN) python tests/tools/shell.py

clean: ## stop the lab and remove what runs left in the checkout (not the cache)
	@test ! -e "$${GPUFLEET_LAB_DIR:-.lab}" || $(MAKE) lab-down
	@rm -rf .ansible .hypothesis .mypy_cache .ruff_cache .pytest_cache gpufleet-report extensions/molecule/*/gpufleet-report tests/output

format: ## format the Python files
	@$(IN) ruff check --select I --fix -q
	@$(IN) ruff format

format-check:
	@$(IN) ruff format --check

ruff:
	@$(IN) ruff check

types:
	@$(IN) python tests/tools/type_check.py

yamllint:
	@$(IN) yamllint --strict .

ansible-lint:
	@$(IN) ansible-lint --nocolor -q

syntax:
	@$(IN) ansible-playbook --syntax-check -i inventories/example playbooks/*.yml

docs-lint:
	@$(IN) python tests/tools/docs_check.py

sanity: ## ansible-test sanity of what the collection archive holds
	@$(IN) python tests/tools/sanity.py

release-check: ## the archive: the same bytes twice, nothing in it that is not for users, installs without a network
	@$(IN) python -m pytest -q tests/release

release: ## build the archive of the last commit in dist, the same bytes from the same commit
	@$(IN) python tests/tools/release.py

pytest-lab:
	@$(IN) python -m pytest -q tests/lab tests/thread -m 'not engine'

molecule-lab:
	@cd extensions && $(IN) molecule test --all --exclude $(GUEST_SCENARIO)

pytest-kernel-smoke:
	@$(IN) python -m pytest -q tests/kernel -m smoke

pytest-kernel:
	@$(IN) python -m pytest -q tests/kernel

molecule-kernel:
	@cd extensions && $(IN) molecule test --scenario-name $(GUEST_SCENARIO)
