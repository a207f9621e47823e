# make demo   the bundled model hears, answers and speaks        make test   the test suite
# make check  format, lint, types, layers                        make tiny   rebuild the bundle
# make eval   measure the bundle on recordings that it was not trained on
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two test processes with one thread each beat one process with two.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
EXTRAS := audio,pitch,train,align,eval,sentencepiece,demo,recipes,ray,dev

# What tests of the recipe need (they are skipped without), and an allocator that it is faster with.
SYSTEM := flite asterisk-core-sounds-en-g722 libjemalloc2

.PHONY: demo test check tiny eval packages clean
demo: .venv/installed
	$(BIN)/python -m spirit.demo

test: .venv/installed packages
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 $(ARGS)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

tiny: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/tiny/run.sh

eval: .venv/installed packages
	$(BIN)/python recipes/tiny/corpus.py --out build/heldout --sentences 0 --texts 0
	$(BIN)/spirit eval tiny --data build/heldout/heldout.jsonl --out build/eval

packages:
	@missing=$$(for p in $(SYSTEM); do dpkg-query -W $$p >/dev/null 2>&1 || echo $$p; done | xargs); \
	test -z "$$missing" || { \
	  test $$(id -u) = 0 && as= || as="sudo -n"; \
	  { $$as apt-get update -qq && $$as apt-get install -qqy --no-install-recommends $$missing; } \
	    >/dev/null 2>&1 || echo "some tests are skipped for want of: $$missing (apt-get install)"; }

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
