# The two commands of the README are `make demo` and `make test`. Each makes its own .venv.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test prove bench spool clean

demo: $(VENV)/.installed
	$(BIN)/dsage-spool demo spool

test: $(VENV)/.tests
	PYTHON=$(PYTHON) VENV=$(VENV) scripts/test

# Try to break every promise: minutes, and all that this machine allows. `make prove LEVEL=quick` is shorter.
LEVEL ?= full
prove: $(VENV)/.tests
	PYTHON=$(PYTHON) VENV=$(VENV) LEVEL=$(LEVEL) scripts/prove

bench: $(VENV)/.tests
	$(BIN)/python benchmarks/bench.py

# What `dsage-spool init` writes, kept in the repository for people who look.
spool: $(VENV)/.installed
	$(BIN)/python scripts/template.py spool

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: type  sudo apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,prove]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* build *.egg-info .pytest_cache
