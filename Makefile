# The course's commands. `make help` lists them. Everything runs in .venv, which the first call makes.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
HOMEWORK ?= homework1
JOBS   ?= 2
SEEDS  ?= 3

# One thread a process and parallel by process: threads that share cores are 10-30 times slower.
export OMP_NUM_THREADS := 1
export PYTHONHASHSEED := 0
# The notebooks run silently where there is no display.
export MPLBACKEND := Agg
# A relative folder means the one beside this file, whichever folder a notebook or a test runs in.
ifdef DGM_DATA
override DGM_DATA := $(abspath $(DGM_DATA))
export DGM_DATA
endif

APT_PACKAGES := bubblewrap chromium
# worksteal: the long tests stand at the end, and nobody idles beside them
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.PHONY: help env system lab notebooks weights reference homework test test-all verify bench demo \
        collect grade feedback gradebook release site doctor lint clean

help:  ## list every target with what it does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) system  ## make .venv with the pinned packages (about 3 minutes, 7 GB), install bubblewrap where allowed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"make env: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}. Name another: make env PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make env: this Python has no venv module. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the packages into $(VENV), about 3 minutes and 7 GB ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch torchvision
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[staff,test,site]'
	@touch $(READY)

system:
	@bash .ci/system_packages $(APT_PACKAGES)

lab: $(READY)  ## open Jupyter Lab on the course
	$(BIN)/jupyter lab

notebooks: $(READY)  ## rebuild and execute the notebooks whose source changed
	$(BIN)/publish notebooks --jobs $(JOBS)

weights: $(READY)  ## train the small weights that lectures load (minutes; never in CI)
	$(BIN)/publish weights

homework: $(READY)  ## build HOMEWORK (default homework1) for the term into build/
	$(BIN)/publish homework $(HOMEWORK)

reference: $(READY)  ## run the whole reference notebook of HOMEWORK, training included (at most 25 minutes)
	$(BIN)/publish reference $(HOMEWORK)

test: env  ## the tests that CI and a new user run (at most 25 minutes on 2 cores)
	$(PYTEST) -m "not slow"

test-all: env  ## all tests, the slow ones too (at most 80 minutes)
	$(PYTEST) -m "not sampled"

verify: env homework  ## tests of the tests: reference, untouched notebook, mutants, alternatives through the grader (SEEDS=3)
	$(BIN)/autograder verify $(HOMEWORK) --jobs $(JOBS) --seeds $(SEEDS)
	$(if $(wildcard benchmarks/$(HOMEWORK)_separation.py),$(BIN)/python benchmarks/$(HOMEWORK)_separation.py)

bench: $(READY)  ## side-by-side measurements, results in benchmarks/results
	@set -e; for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b; done

demo: env homework  ## the main job on a made-up class: build, collect, grade, gradebook, feedback
	$(BIN)/autograder demo $(HOMEWORK)

collect: $(READY)  ## take in submissions: make collect FROM=folder-or-zip
	@test -n "$(FROM)" || { echo "make collect: say where the submissions are: make collect FROM=downloads/submissions.zip"; exit 2; }
	$(BIN)/autograder collect $(HOMEWORK) "$(FROM)"

grade: env  ## grade what was collected
	$(BIN)/autograder grade $(HOMEWORK)

feedback: $(READY)  ## write a feedback page per student
	$(BIN)/autograder feedback $(HOMEWORK)

gradebook: $(READY)  ## print the gradebook as a table and write it as CSV
	$(BIN)/autograder gradebook

release: $(READY)  ## the public repository of the term: make release TAG=2027-1 OUT=../students [SOLUTIONS="04_vae"], or TRIAL=1
	@test -n "$(OUT)" || { echo "make release: say which folder to write: make release TAG=2027-1 OUT=../students"; exit 2; }
	@test -n "$(TAG)$(TRIAL)" || { echo "make release: say which tag of git this tree is (TAG=2027-1), or TRIAL=1 to look at it"; exit 2; }
	$(BIN)/publish release "$(OUT)" $(if $(TRIAL),--trial,--tag "$(TAG)") $(foreach name,$(SOLUTIONS),--solutions $(name))

site: $(READY)  ## the website from the committed notebooks, in build/site/html
	$(BIN)/publish site

doctor: $(READY)  ## what this machine can guard and what is missing
	$(BIN)/autograder doctor

lint: $(READY)  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## remove what was built (not .venv, not class/, where grades are)
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
