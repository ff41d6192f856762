# make demo     the whole pipeline on simulated venues, no network needed
# make test     all tests but the long ones
# make soak     the long ones: thousands of hostile clients, and books compared for ten minutes, or for
#               as long as ALPHAPULSE_SOAK_SECONDS says; ARGS="-k digests" is the latter alone
#               (and "-k store_soak" a million trades, or ALPHAPULSE_SOAK_TRADES, into stores whose
#               writers are killed and whose Redis ends)
# Each builds what it needs on first use: a virtual environment in .venv, with the package and its
# native modules in place, so that only a change of native code or of pyproject.toml builds again.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
NATIVE_FOLDERS := $(addprefix alphapulse/,. _core api store stream)
NATIVE := $(wildcard $(foreach folder,$(NATIVE_FOLDERS),$(addprefix $(folder)/,*.pyx *.pxd *.h)))
SOURCES := alphapulse tests tools setup.py EXCHANGE_TEMPLATE.py $(patsubst %/__main__.py,%,$(wildcard benchmarks/__main__.py))
TYPED := $(filter-out tools setup.py,$(SOURCES))

.PHONY: build check format test demo bench soak sanitize clean

build: $(STAMP)

$(STAMP): pyproject.toml setup.py tools/requirements.py $(NATIVE)
	@$(PYTHON) tools/requirements.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

check: build
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(TYPED)

format: build
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

test: build
	$(BIN)/python -m pytest $(ARGS)

soak: build
	$(BIN)/python -m pytest -m soak $(ARGS)

demo: build
	$(BIN)/alphapulse demo $(ARGS)

bench: build
	$(BIN)/python -m benchmarks $(ARGS)

sanitize: build
	$(BIN)/python -m tests.sanitize $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info \
		$(foreach folder,$(NATIVE_FOLDERS),$(folder)/*.c $(folder)/*.so)
