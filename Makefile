# Needs make and a python3 (3.11 or newer) with its venv module and pip; everything else is installed into .venv.
# Another interpreter: make PYTHON=python3.12 <target>

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPILED := .venv/.compiled
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Tests start hundreds of processes: without cached bytecode, each of them would compile the whole project.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := check
.PHONY: .venv bench chaos check demo lint mutants sabotage screenshots test test-celery-5.6 test-rabbitmq timed timed-demo timed-flip timed-trial timed-proof timed-orders timed-shop untimed up

demo: .venv ## a scripted outage with a verdict; ends by itself
	$(BIN)/python -m demo

up: .venv ## the same services, until Ctrl-C
	$(BIN)/python -m demo up

screenshots: .venv ## pictures of the Degradation page for docs/images; needs Chromium
	$(BIN)/python -m tests.screenshots

# TIMED lists tests that a busy machine disturbs. They run last: the demo alone, because it cannot judge pace while other programs use the
# processors; then the others, in four runs side by side; then the proof, its two files side by side, which keeps both processors busy. No
# test is tried again: a test that fails now and then has a fault, or has found one in the product.
# pytest-timeout fails a test that hangs for 300 s (`timeout` in pyproject.toml). If it cannot, because its process no longer runs Python code or
# a budget took its alarm, faulthandler ends the process half a minute later and prints where each thread stood.
BESIDE := --numprocesses=8 --dist=worksteal --durations=30 -o faulthandler_timeout=330 -o faulthandler_exit_on_timeout=true
DEMO := tests/acceptance/test_demo.py
FLIP := tests/integration/test_flags_flip.py
TRIAL := tests/integration/test_flags_trial.py
ORDERS := $(addprefix tests/acceptance/test_,own_orders.py shop.py)
SHOP := $(addprefix tests/acceptance/test_shop_,flags.py mistakes.py page.py)
PROOF := tests/acceptance/test_proof.py tests/integration/test_proving.py
TIMED := $(DEMO) $(FLIP) $(TRIAL) $(PROOF) $(ORDERS) $(SHOP)

test: .venv ## all tests; prints the branch coverage of the library; processes that a test killed do not count
	$(MAKE) untimed MEASURED="--cov=resilience --cov-report=term"
	$(MAKE) timed

untimed: $(COMPILED)
	$(BIN)/python -m pytest $(BESIDE) $(MEASURED) $(TIMED:%=--ignore=%)

timed: timed-demo
	$(MAKE) --jobs timed-flip timed-trial timed-orders timed-shop
	$(MAKE) timed-proof

timed-demo: FILES := $(DEMO)
timed-flip: FILES := $(FLIP)
timed-proof: FILES := --numprocesses=2 --dist=loadfile $(PROOF)
timed-trial: FILES := $(TRIAL)
timed-orders: FILES := $(ORDERS)
timed-shop: FILES := $(SHOP)
timed-demo timed-flip timed-trial timed-proof timed-orders timed-shop: .venv
	$(BIN)/python -m pytest -rs --durations=10 -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true $(FILES)

# Tests marked `redis_broker` are skipped; the run ends with a list of them and the reasons.
test-rabbitmq: export TEST_BROKER := rabbitmq
test-rabbitmq: .venv ## the tests of workers and publishers on RabbitMQ in place of Valkey
	$(BIN)/python -m pytest -rs $(BESIDE) tests/integration $(TIMED:%=--ignore=%)
	$(BIN)/python -m pytest -rs $(filter tests/integration/%,$(TIMED))

# The oldest supported Celery is installed beside .venv's own and comes first on the path; all else is the same. Celery 5.6's result backend
# calls what redis-py has deprecated, and leaves sockets to the garbage collector. It cannot send pydantic models, and on gevent it
# consumes nothing when prefetch is disabled.
ON_CELERY_5.6 := $(BIN)/python -m pytest -p no:cacheprovider -W "ignore:Call to deprecated setex:DeprecationWarning" \
  -W "ignore::pytest.PytestUnraisableExceptionWarning" -k "not pydantic_models and not (disabled_prefetch and gevent)"
test-celery-5.6: export PYTHONPATH := $(CURDIR)/.venv/other/celery-5.6
test-celery-5.6: .venv ## on Celery 5.6: what differs between the versions, and what every job goes through
	$(BIN)/celery --version | grep --quiet "^5\.6\."
	$(ON_CELERY_5.6) --numprocesses=2 --dist=worksteal tests/unit/test_compat.py \
	  $(addprefix tests/integration/test_,adopt.py adopt_queues.py fire.py task_canvas.py task_outcome.py) \
	  $(addprefix tests/compatibility/test_,by_name.py hooks.py intake.py names_that_disagree.py)

chaos: .venv ## all tests marked `long`: kills for minutes on both brokers, and the long variants of other tests
	$(BIN)/python -m pytest -m long -s
	TEST_BROKER=rabbitmq $(BIN)/python -m pytest -m long -s tests/integration

# `mutants/` keeps the verdicts. A killed mutant is tried again when its function or a test that calls it changes, a survivor when any test changes, and
# all of them when a helper file changes. A change elsewhere in the product goes unnoticed: delete `mutants/` to try all again.
MUTMUT := .venv/other/mutmut
mutants: export PYTHONPATH := $(CURDIR)/$(MUTMUT)
mutants: export CI := true
mutants: .venv $(MUTMUT)/.installed ## changes of the pure modules that no test notices
	$(BIN)/python -m tests.mutation.forget
	$(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python -m tests.mutation

$(MUTMUT)/.installed: tests/mutation/requirements.txt | .venv
	$(PIP_INSTALL) --no-deps --upgrade --target $(MUTMUT) --requirement $<
	@touch $@

$(CHARTS)/.installed: benchmarks/requirements.txt | .venv
	$(PIP_INSTALL) --no-deps --upgrade --target $(CHARTS) --requirement $<
	@touch $@

sabotage: .venv ## makes each listed mistake in a copy, and checks that its tests fail; ONLY=breaker: those that match
	$(BIN)/python -m tests.sabotage "$(ONLY)"

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive resilience jobs workers

CHARTS := .venv/other/charts
bench: export PYTHONPATH := $(CURDIR)/$(CHARTS)
bench: .venv $(CHARTS)/.installed ## all benchmarks, in 40 minutes at most; QUICK=--quick: in 8
	$(BIN)/python -m benchmarks all $(QUICK)

check: .venv ## all that must pass before a change is merged; all but `timed` runs side by side
	$(MAKE) --jobs lint untimed test-celery-5.6
	$(MAKE) timed

# Collecting the tests compiles what they import, once; else each of the runners would, all at the same time.
$(COMPILED): $(INSTALLED)
	-@$(BIN)/python -m pytest --collect-only --quiet >/dev/null
	@touch $@

.venv: $(INSTALLED)

# Installed again when a version changes. The lock pins the build backend too: nothing unpinned is ever fetched.
$(INSTALLED): requirements.lock pyproject.toml .ci/install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not that. Name one that is: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	.ci/install $(PYTHON)
	@touch $@
