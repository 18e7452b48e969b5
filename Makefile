# make demo: the main job on embedded data. make test: every check and test. Both need only Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo serve test check faults docs dist clean

demo: .venv
	$(BIN)/python experiments/demo.py

# The service on embedded data, with a Ray of its own: http://127.0.0.1:8700
serve: .venv
	$(BIN)/scale-ray serve --own-ray

check: .venv
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

# Ray's workers are as urgent as the tests beside them: by default they are nicer, and would wait for these.
test: check
	RAY_worker_niceness=0 OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 4

# Kills, clusters, spoilt stores and a real `ray submit`: an hour or more.
faults: .venv
	$(BIN)/pytest -m slow

# The documentation, in site/. Pages open from disk; search needs a server: python -m http.server --directory site.
docs: .venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Both distributions in dist/, checked as an index checks them: wheel and source archive, and the wheel without torch and ray.
dist: .venv
	rm -rf dist
	$(BIN)/hatchling build
	cd light && ../$(BIN)/hatchling build --target wheel --directory ../dist
	$(BIN)/twine check --strict dist/*

# The stamp makes the set-up run once, and again whenever the dependencies change. uv installs and compiles on all CPUs.
# pip takes over where uv finds no index: only pip reads the mirrors that a pip.conf names.
.venv: .venv/stamp

INSTALL := install --quiet -c constraints.txt -e '.[dev]'

.venv/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scale_ray needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "making .venv (torch, torchvision and ray: a few minutes, about 6 GB)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@$(BIN)/uv pip $(INSTALL) --python $(BIN)/python --compile-bytecode || $(BIN)/pip $(INSTALL)
	@touch $@

clean:
	rm -rf .venv runs site dist
