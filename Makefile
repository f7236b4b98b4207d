# Two commands from a bare machine: `make demo` and `make test`. Both make .venv once and install into it once.
PYTHON ?= python3
PIP    := .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt
DEPS   := settings.ini setup.py constraints.txt
# How tests run: one thread each, so that two notebooks share two cores; no bars; output at once.
QUIET  := PATH="$(CURDIR)/.venv/bin:$$PATH" OMP_NUM_THREADS=1 VIDCLS_PROGRESS=0 PYTHONUNBUFFERED=1
# Tests of other runtimes have a process of their own: libraries that bring their own threads crashed a long-lived one.
RUNTIMES := deploy quantize verdict
# The fast tests run in as many processes as there are cores, at most four; a file's tests stay together.
WIDE   := -n logical --maxprocesses 4 --dist loadfile
# Test files that `make quick` leaves out, because they train, serve or wait.
LONG   := train pretrain cli commands evaluation zoo hanging loading cache default classifier frames weights interpret serve serve_faults page site ask container
# Notebooks that hang end here. In a terminal, --foreground lets Ctrl-C through.
LIMIT  := $(patsubst %,% $(shell [ -t 0 ] && echo --foreground) 1500,$(firstword $(shell command -v timeout || command -v gtimeout)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test quick docs lab refresh hooks clean help

demo: .venv/.runtime ## Train, judge and save a motion classifier on clips made here (under 10 minutes, no GPU)
	@.venv/bin/vidcls demo

test: .venv/.dev ## Every check that CI makes: notebooks in step, tested, linted; site built; pytest last
	@echo "== 1/5 notebooks are clean and vidcls/ is what they export"
	@$(QUIET) python tools/check_sync.py
	@echo "== 2/5 every notebook runs in a real kernel, and shows what it kept (two at a time)"
	@$(QUIET) $(LIMIT) python tools/notebooks.py
	@echo "== 3/5 lint: names, widths, one statement a line (ruff.toml)"
	@.venv/bin/ruff check .
	@echo "== 4/5 the site builds and every link in it leads somewhere"
	@$(QUIET) python tools/docs.py
	@echo "== 5/5 what notebooks can't test"
	@$(QUIET) python -m pytest -q -rs $(RUNTIMES:%=--ignore=tests/test_%.py) tests
	@$(QUIET) python -m pytest -q -rs $(RUNTIMES:%=tests/test_%.py)

quick: .venv/.dev ## The inner loop, under two minutes: notebooks in step, imports, and the fast tests
	@$(QUIET) python tools/check_sync.py
	@.venv/bin/ruff check --quiet .
	@$(QUIET) python -m pytest -q -m "not slow" $(WIDE) $(LONG:%=--ignore=tests/test_%.py) tests

docs: .venv/.dev ## Build the site into _docs/ (Quarto where it is installed, else smalldocs)
	@$(QUIET) python tools/docs.py

lab: .venv/.dev ## Open the course in JupyterLab, as a copy of your own in vidcls-course/
	@.venv/bin/vidcls lab

refresh: .venv/.dev ## Run the notebooks and store their outputs; NB=nbs/inside/00_core.ipynb for one; then README.md
	@$(QUIET) python tools/notebooks.py --store $(NB)
	@$(QUIET) python tools/readme.py

hooks: .venv/.dev ## Git checks notebooks before a commit and merges them cell by cell (this clone only)
	@git config core.hooksPath .githooks
	@git config merge.nbdev-merge.driver '.venv/bin/nbdev_merge %O %A %B %P'
	@echo "Hooks are on. Off again: git config --unset core.hooksPath"

clean: ## Remove what was built or installed here (.venv, the site, caches); runs/ and data/ stay
	rm -rf .venv _proc _docs build dist *.egg-info nbs/nbdev.yml .pytest_cache .ruff_cache .hypothesis
	find nbs vidcls tests tools \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.made:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vidcls needs Python 3.11 or later and $(PYTHON) is `$(PYTHON) -c 'import platform; print(platform.python_version())'`: name a newer one, as in make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks its venv module: install it (on Debian and Ubuntu: apt install python3-venv) and try again."; exit 1; }
	@echo "== Making .venv with $(PYTHON) (a few seconds)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.runtime: .venv/.made $(DEPS)
	@echo "== Installing vidcls and what it runs on (PyTorch is the large part: one to ten minutes, only the first time)"
	@$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.runtime
	@echo "== Installing what notebooks, tests and site need (about two minutes, only the first time)"
	@$(PIP) -e '.[dev]'
	@touch $@
