# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS += --no-print-directory

PYTHON := $(shell tests/tools/find-python)
IN := $(PYTHON) tests/tools/env.py
LAB := $(IN) python tests/lab/lab.py

.DEFAULT_GOAL := help
.PHONY: help check-machine demo test unit lint lint-fast format format-check sanity lab-test lab-up lab-down shell clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

check-machine: ## say all that this machine lacks
	@tests/tools/check-machine

demo: check-machine ## the main job on the embedded lab: site.yml, report, second run (KEEP=1 leaves the lab up)
	@$(IN) python tests/tools/demo.py

test: check-machine ## unit, lint, sanity and the playbooks on the lab
	@$(IN) python tests/tools/run_tests.py unit lint sanity lab-test

unit: ## unit tests
	@$(IN) python -m pytest -q tests/unit

lint: lint-fast ## all linters but ansible-test
	@$(IN) ansible-lint --nocolor -q

lint-fast: format-check ## ruff, mypy, yamllint
	@$(IN) ruff check
	@$(IN) python tests/tools/type_check.py
	@$(IN) yamllint --strict .

format: ## format the Python files
	@$(IN) ruff check --select I --fix -q
	@$(IN) ruff format

format-check:
	@$(IN) ruff format --check

sanity: ## ansible-test sanity
	@$(IN) python tests/tools/sanity.py

lab-test: ## the lab itself, the playbooks on it, and the molecule scenario
	@$(IN) python -m pytest -q tests/lab tests/thread
	@cd extensions && $(PYTHON) ../tests/tools/env.py molecule test --all

lab-up: check-machine ## start the embedded lab
	@$(LAB) up

lab-down: ## stop the embedded lab
	@$(LAB) down

shell: ## a shell with the development environment and the lab's programs
	@$(IN) $(or $(SHELL_PROGRAM),bash)

clean: lab-down ## stop the lab and remove what runs left in the checkout (not the cache)
	@rm -rf .ansible .hypothesis .mypy_cache .ruff_cache .pytest_cache gpufleet-report tests/output
