# make demo   the bundled model hears, answers and speaks        make test   the test suite
# make check  format, lint, types, layers                        make tiny   rebuild the bundle
# make eval   measure the bundle on recordings that it was not trained on
# make docs   the documentation as a site, in build/site
# make check-fairseq2   the second set of versions, in .venv-fairseq2, and the tests that hold in both
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two test processes with one thread each beat one process with two.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
EXTRAS := audio,pitch,train,lora,wandb,align,eval,sentencepiece,demo,docs,recipes,ray,dev

# What tests of the recipe need (they are skipped without), and an allocator that it is faster with.
SYSTEM := flite asterisk-core-sounds-en-g722 libjemalloc2

# fairseq2 pins torch 2.9.1 (for CUDA, 7 GB) and transformers 4.57; these tests run in both sets.
FAIRSEQ2 := .venv-fairseq2
FAIRSEQ2_EXTRAS := fairseq2,align,dev
FAIRSEQ2_TESTS := $(addprefix tests/test_,$(addsuffix .py,fairseq2 codec hubert lm_model tokenizer))

.PHONY: demo test check docs check-fairseq2 tiny eval packages clean
demo: .venv/installed
	$(BIN)/python -m spirit.demo

test: .venv/installed packages
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 $(ARGS)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

check-fairseq2: $(FAIRSEQ2)/installed packages
	$(TEST_ENV) $(FAIRSEQ2)/bin/python -m pytest -q -n 2 $(FAIRSEQ2_TESTS) $(ARGS)

tiny: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/tiny/run.sh

eval: .venv/installed packages
	$(BIN)/python recipes/tiny/corpus.py --out build/heldout --sentences 0 --texts 0 --written 0 --noisy 0 --copies 0
	$(BIN)/spirit eval tiny --data build/heldout/heldout.jsonl --out build/eval \
	  --language recipes/tiny/language.py

packages:
	@missing=$$(for p in $(SYSTEM); do dpkg-query -W $$p >/dev/null 2>&1 || echo $$p; done | xargs); \
	test -z "$$missing" || { \
	  test $$(id -u) = 0 && as= || as="sudo -n"; \
	  { $$as apt-get update -qq && $$as apt-get install -qqy --no-install-recommends $$missing; } \
	    >/dev/null 2>&1 || echo "some tests are skipped for want of: $$missing (apt-get install)"; }

# A virtual environment, its constraints and the extras that it gets.
# Debian splits ensurepip from Python; pip itself then fills the empty environment.
define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
	  { rm -rf $(1) && $(PYTHON) -m venv --without-pip $(1); }
	$(1)/bin/python -m pip --version >/dev/null 2>&1 || \
	  $(PYTHON) -m pip --python $(1)/bin/python install -q pip
	$(1)/bin/python -m pip install -q -c $(2) -e '.[$(3)]'
endef

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(call install,.venv,constraints.txt,$(EXTRAS))
	touch $@

# Where the system has no libsndfile, fairseq2 looks for one in lib/; soundfile brings one along.
$(FAIRSEQ2)/installed: setup.cfg pyproject.toml constraints-fairseq2.txt
	$(call install,$(FAIRSEQ2),constraints-fairseq2.txt,$(FAIRSEQ2_EXTRAS))
	cd $(FAIRSEQ2)/lib && ln -sf python3*/site-packages/_soundfile_data/libsndfile*.so libsndfile.so.1
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
