# `make demo` and `make test` set everything up by themselves; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS := 1

.PHONY: demo test slow lint check docs clean

demo: $(READY)
	$(BIN)/pared run santa-fe --quick --out runs

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile -q

slow: $(READY)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test slow

docs: $(READY)
	$(BIN)/python docs/what_can_be_cut.py > docs/what-can-be-cut.md
	$(BIN)/python docs/criteria.py > docs/criteria.md
	$(BIN)/python docs/what_works.py > docs/what-works.md
	$(BIN)/python docs/search_methods.py > docs/search-methods.md

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,lint,onnx]"
	$(BIN)/python -c "from pared.training.kernel import compiled; compiled('lstm'), compiled('mlp')"  # once; 20 s
	touch $(READY)

clean:
	rm -rf $(VENV) runs build dist
