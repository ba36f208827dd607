# Two commands: `make demo` trains and translates on real images, `make test` runs all tests.
# Both set up .venv first. Anything else is plain `python -m launcher COMMAND`.

PYTHON ?= python3
DEMO ?= demo
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
LAUNCH := accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \
          --mixed_precision no --dynamo_backend no --main_process_port 0 -m launcher

.PHONY: demo test clean

# The demo is made for CPU cores. Memory that is freed stays with the process: giving it back and
# fetching it again costs a third of a step.
demo: export CUDA_VISIBLE_DEVICES =
demo: export MALLOC_MMAP_MAX_ = 0
demo: export MALLOC_TRIM_THRESHOLD_ = 100000000000
demo: export MALLOC_TOP_PAD_ = 500000000
demo: .venv/ready
	python -m launcher pack earth $(DEMO)/earth
	$(LAUNCH) train earth-coarse --data.shards=$(DEMO)/earth/train --run_dir=$(DEMO)/coarse
	$(LAUNCH) train earth-full --data.shards=$(DEMO)/earth/train --run_dir=$(DEMO)/full \
	          --start_from=$(DEMO)/coarse
	python -m launcher translate $(DEMO)/full $(DEMO)/earth/images $(DEMO)/pictures --split=test
	python -m launcher score $(DEMO)/pictures $(DEMO)/earth/images/test_img
	@echo "Pictures of the held-out region: $(DEMO)/pictures"
	@echo "Curves and pictures of both stages: tensorboard --logdir $(DEMO)"

test: .venv/ready
	python -m pytest

.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,test]"
	touch $@

clean:
	rm -rf .venv $(DEMO) build *.egg-info .pytest_cache .hypothesis
