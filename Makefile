# make demo   train the iris example, pack it, serve it with its page on 127.0.0.1:8000
# make test   all tests; those of PyTorch, fast.ai and Keras are skipped until `make torch` has installed these, which CI does
# make lint   ruff, mypy --strict, import-linter
# make bench  the measurements of bench/
# Each sets up what it needs; PYTHON names another interpreter (3.11 to 3.13).

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# CI tests neural networks too
TORCH := $(if $(filter true,$(CI)),$(VENV)/.torch)

.PHONY: demo test torch lint bench docs clean

demo: $(VENV)/.demo
	cd examples/iris && ../../$(BIN)/python train.py && ../../$(BIN)/modelport pack && ../../$(BIN)/modelport serve iris

test: $(VENV)/.test $(TORCH)
	$(BIN)/pytest -n 2 --dist loadfile $(PYTEST_ARGS)

torch: $(VENV)/.torch

lint: $(VENV)/.test $(TORCH)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/reference.py --check

docs: $(VENV)/.test
	$(BIN)/python tools/reference.py

bench: $(VENV)/.test
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml examples/iris/requirements.txt
	$(BIN)/python -m pip install --quiet --editable '.[sklearn]' --requirement examples/iris/requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group test --group lint
	@touch $@

$(VENV)/.torch: $(VENV)/.test tools/torchvision_beside_cpu_torch.py
	$(BIN)/python -m pip install --quiet --group torch
	$(BIN)/python -m pip install --quiet --no-deps --group torch-alone
	$(BIN)/python tools/torchvision_beside_cpu_torch.py
	@touch $@
