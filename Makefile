# Every target makes the virtual environment it needs; nothing but Python 3.11+ has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

# What is installed is what requirements/ names by its hash: no other version, nothing compiled here.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCKED := $(PIP) install --require-hashes --only-binary :all:
ITSELF := $(PIP) install --no-deps --no-build-isolation --editable .

.PHONY: run test check format accuracy bench bundle rhythms lock clean

run: $(VENV)/base  ## simulated patients, real pipeline: leadone demo
	$(BIN)/leadone demo

test: $(VENV)/dev  ## the whole test suite
	$(BIN)/python -m pytest -q

check: $(VENV)/dev  ## what CI runs: format, lint, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

format: $(VENV)/dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

accuracy: $(VENV)/dev  ## figures on real recordings, written to docs/accuracy.md
	$(BIN)/python -m bench.accuracy --data $(DATA) --write docs/accuracy.md

bench: $(VENV)/dev  ## speed, memory, start-up and size, written to docs/performance.md
	$(BIN)/python -m bench.performance --data $(DATA) --write docs/performance.md

rhythms: $(VENV)/dev  ## lethal rhythms: train what is not there yet (an hour), measure, write docs/rhythms.md
	$(BIN)/python -m training rhythm --data $(DATA) -r runs/rhythm
	$(BIN)/python -m bench.rhythms --data $(DATA) --runs runs/rhythm --write docs/rhythms.md

# Whole records once more, for the rhythm that a stretch cuts apart, at a quarter of the learning rate.
WHOLE := --set crop=0 --set schedule.learning_rate=0.0005 --set schedule.validate_every=100

# Then the last two layers alone, by labels, with rare classes not drowned by their own negatives. HVOLT, which
# has 49 positive records to train on, is learnt only here: so all 55 codes of 50 or more in folds 1-9 are there.
LAST := --set crop=0 --set 'classes=[common, HVOLT, CINC_N, CINC_A, CINC_O, CINC_~]' --set method=null \
  --set 'teachers=[]' --set rebalance=0.5 --set schedule.batch=256 \
  --set schedule.steps=1200 --set schedule.learning_rate=0.001 --set schedule.weight_decay=1 \
  --set schedule.validate_every=200

bundle: $(VENV)/dev  ## train, distil and export the bundles (hours on two cores; goes on where it was)
	$(BIN)/python -m training prepare $(DATA)/ptbxl100 -o runs/data/ptbxl
	$(BIN)/python -m training prepare $(DATA)/cinc2017 -o runs/data/cinc2017
	$(BIN)/python -m training pretrain -c examples/training/restoration.yaml -r runs/restoration-tiny
	$(BIN)/python -m training pretrain -c examples/training/teacher.yaml -r runs/teacher
	$(BIN)/python -m training distill -c examples/training/student.yaml -r runs/shipped/base-cropped
	$(BIN)/python -m training distill -c examples/training/student.yaml $(WHOLE) \
	  --set start=runs/shipped/base-cropped --set schedule.steps=400 -r runs/shipped/base
	$(BIN)/python -m training finetune -c examples/training/student.yaml $(LAST) \
	  --set start=runs/shipped/base -r runs/shipped/base-balanced
	$(BIN)/python -m training export runs/shipped/base-balanced --bundle lead1-base --version 7 --data $(DATA)
	$(BIN)/python -m training distill -c examples/training/student.yaml --set size=tiny \
	  --set schedule.steps=12000 -r runs/shipped/tiny-cropped
	$(BIN)/python -m training distill -c examples/training/student.yaml $(WHOLE) \
	  --set size=tiny --set start=runs/shipped/tiny-cropped --set schedule.steps=800 -r runs/shipped/tiny
	$(BIN)/python -m training finetune -c examples/training/student.yaml $(LAST) \
	  --set size=tiny --set start=runs/shipped/tiny -r runs/shipped/tiny-balanced
	$(BIN)/python -m training export runs/shipped/tiny-balanced --bundle lead1-tiny --version 5 --data $(DATA)

lock: | $(BIN)/python  ## renew requirements/ within the ranges of pyproject.toml
	$(LOCKED) -r requirements/uv.txt
	$(BIN)/python requirements/lock.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leadone needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: pyproject.toml requirements/build.txt requirements/base.txt | $(BIN)/python
	$(LOCKED) -r requirements/build.txt -r requirements/base.txt
	$(ITSELF)
	touch $@

# The CPU build of torch if pip is offered it; PyPI's for Linux is for CUDA, and needs its libraries.
$(VENV)/dev: pyproject.toml $(wildcard requirements/*.txt) | $(BIN)/python
	$(LOCKED) --no-deps -r requirements/torch-cpu.txt 2>/dev/null || $(LOCKED) --no-deps -r requirements/cuda.txt
	$(LOCKED) --no-deps -r requirements/build.txt -r requirements/dev.txt
	$(ITSELF)
	touch $(VENV)/base $@
