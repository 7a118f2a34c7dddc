# make demo and make test do everything on a fresh machine; running them again is fast.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo demo-vision demo-clip test quality bench install

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(RUN) recipes/demo_text.py

demo-vision: install
	$(RUN) recipes/demo_vision.py

demo-clip: install
	$(RUN) recipes/demo_clip.py

test: install
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quality: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: install
	$(RUN) recipes/benchmark.py
