# make serve   environment, install, catalogue, service on port 8000
# make test    environment, install, the whole suite
# make quick   the tests without a server, a training, a browser or a database: under a minute
# make docs-outputs   write what their code prints and draws today into the pages and notebooks
# make docs    the documentation as a site: docs/_build/html/docs/index.html
# make lint    ruff, mypy --strict, which package may import which, docstrings (numpydoc), spelling, long sentences
# A package index of your choice: pip reads PIP_INDEX_URL and PIP_EXTRA_INDEX_URL from the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CATALOGUE := data/catalogue.stamp
OBSERVED := training/observed/dr10_giants.h5
# Workers take whole modules, in the order of tests/budget.py: one more than cores, for a third of the time is waiting.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $$(($$(nproc) + 2)) --dist loadfile --no-loadscope-reorder
# A new pip finds 200 packages that fit in a third of the time of Debian's. It says of editable installs to be careful
# with the names of folders (-qq: errors only).
# pip does not compile: of 20,000 modules a quarter is used, and Python stores what it compiles at the first import.
PIP_INSTALL := $(BIN)/pip install -qq --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: serve test quick lint docs docs-outputs linkcheck tools clean

# Spectra are stored, as those of the first catalogue are; CHEMTWIN_STORE_SPECTRA=false stores none.
serve: $(CATALOGUE)
	CHEMTWIN_STORE_SPECTRA=$${CHEMTWIN_STORE_SPECTRA:-true} $(BIN)/chemtwin serve

# The first catalogue: 82 observed giants of clusters with their spectra, embedded by the shipped model.
$(CATALOGUE): model/default.safetensors $(OBSERVED) | $(VENV)/installed
	mkdir -p data
	CHEMTWIN_STORE_SPECTRA=true $(BIN)/chemtwin catalogue ingest $(OBSERVED)
	touch $@

test: $(VENV)/installed-test tools
	$(PYTEST)

quick: $(VENV)/installed-test
	$(PYTEST) -m "not slow"

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/numpydoc lint $$(find app model training index client/chemtwin_client -name '*.py')
	$(BIN)/codespell app benchmarks client docs index model research tests training README.md CHANGELOG.md Makefile pyproject.toml
	$(BIN)/python docs/sentences.py README.md $$(find docs research -name '*.md' -not -path '*/_build/*' -not -path '*/report/*')

docs: $(VENV)/installed-test
	$(BIN)/sphinx-build -W -n --keep-going -c docs . docs/_build/html

# After a change of the model, of a command or of a setting; `git diff` shows what it changed.
docs-outputs: $(VENV)/installed-test
	$(BIN)/python docs/figures/concepts.py && $(BIN)/python docs/figures/expect.py
	$(PYTEST) --write-outputs

# Are the addresses of others still there? Needs the network; no part of the tests.
linkcheck: $(VENV)/installed-test
	$(BIN)/sphinx-build -b linkcheck -c docs . docs/_build/linkcheck

# strace shows the tests that a commit is on disk before its response is sent; Chromium shows them the pages.
tools:
	for tool in strace chromium; do command -v $$tool >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$tool; } || \
		echo "$$tool could not be installed: the tests that need it will be skipped"; done

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml client/pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --editable ".[test]" --editable ./client
	touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) data
