# make demo   the bundled model hears, answers and speaks        make test   the test suite
# make check  format, lint, types, layers                        make tiny   rebuild the bundle
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two test processes with one thread each beat one process with two.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
EXTRAS := audio,train,align,eval,sentencepiece,demo,recipes,dev

.PHONY: demo test check tiny clean
demo: .venv/installed
	$(BIN)/python -m spirit.demo

test: .venv/installed
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 $(ARGS)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

tiny: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/tiny/run.sh

# Debian splits ensurepip from Python; pip itself then fills the empty environment.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { rm -rf .venv && $(PYTHON) -m venv --without-pip .venv; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  $(PYTHON) -m pip --python $(BIN)/python install -q pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
