# Needs Python >= 3.11 and make. Every target installs what it lacks into .venv, once.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp

.DEFAULT_GOAL := help
.PHONY: help study app notebook test lint clean
# The name of a folder, which make would call up to date.
tests: test
.PHONY: tests

# Two targets at once would run two pips in one environment.
.NOTPARALLEL:

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile
	@echo
	@echo '  Options: PYTHON=python3.12 chooses the interpreter; ARGS="..." is passed on,'
	@echo '  as in make test ARGS="-k config".'

study: $(STAMP)-study ## sweep 1 to 5 branches: table, figures and report in results/
	$(BIN)/python -m hrvit_lab.study branch_sweep $(ARGS)

app: $(STAMP)-app ## open the app in a browser
	$(BIN)/streamlit run app.py $(ARGS)

notebook: $(STAMP)-notebook ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks $(ARGS)

test: $(STAMP)-test ## run the tests (CPU, some minutes), and list the slowest 20
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=20 $(ARGS)

lint: $(STAMP)-test ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove .venv, caches and builds; results/ stays
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment; a stamp for each set of extras says that it is installed and up to date.
$(STAMP)-study: EXTRAS =
$(STAMP)-app: EXTRAS = [app]
$(STAMP)-notebook: EXTRAS = [notebook]
$(STAMP)-test: EXTRAS = [test]

$(STAMP)-study $(STAMP)-app $(STAMP)-notebook $(STAMP)-test: $(STAMP)-venv pyproject.toml constraints.txt
	@echo "Installing hrvit-lab$(EXTRAS) into .venv (once; the first time takes about 5 minutes and 6 GB) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

$(STAMP)-venv:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "hrvit_lab needs Python 3.11 or newer, and '$(PYTHON)' was not found: install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c '' 2>/dev/null || \
		{ echo "'$(PYTHON)' does not run Python: name an interpreter, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hrvit_lab needs Python 3.11 or newer, and '$(PYTHON)' is older: name another, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON)' cannot create virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@
