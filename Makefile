# Two commands: `make book` and `make test`. Each makes its own .venv when there is none.
PYTHON ?= python3
PROFILE ?= digits
THREADS ?= 1
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: book test test-processors serve clean chapters compare verify readme address lint
book: $(VENV)/.installed
	$(RUN) interp_lib book --profile $(PROFILE)

# Two workers of two threads each share two cores: threads that wait must not spin (half the time).
test: lint
	$(RUN) interp_lib book --target networks
	OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive $(RUN) pytest -n 2 --dist loadfile tests
	OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive $(RUN) pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with book/nbval_sanitize.cfg book

# The tests as other processors, with one thread and two, with the networks trained anew each time; see tests/processors.sh.
test-processors: $(VENV)/.installed
	tests/processors.sh

# Stores fresh outputs in the committed chapters.
chapters: $(VENV)/.installed
	$(RUN) interp_lib book --target networks
	$(RUN) interp_lib chapter all --in-place

compare: $(VENV)/.installed
	$(RUN) interp_lib compare

# Measures cells of the printed tables again, drawn at random; INTERP_DATA and INTERP_RELEASED say where things are.
CELLS ?= 30
verify: $(VENV)/.installed
	$(RUN) interp_lib verify --cells $(CELLS) $(if $(SEED),--seed $(SEED))

# Writes the README's table from the records.
readme: $(VENV)/.installed
	$(RUN) interp_lib compare --readme

# Writes the repository's address, which is set in _config.yml, into CITATION.cff.
address: $(VENV)/.installed
	$(RUN) interp_lib.pages.address

lint: $(VENV)/.installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

serve: book
	$(RUN) http.server --directory _build/html 8000

clean:
	rm -rf _build .snakemake

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -r requirements.txt
	# For axe-core, one file in it, which the tests ask about every page; its dependency, playwright, is not needed.
	$(VENV)/bin/python -m pip install --quiet --no-deps axe-playwright-python==0.1.8
	touch $@
