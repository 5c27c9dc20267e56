# Needs make and a python3 (3.11 or newer) with its venv module and pip; everything else comes into .venv.
# Another interpreter: make PYTHON=python3.12 <target>

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPILED := .venv/.compiled
# Bytecode of what is used is kept when it is first imported; most of what is installed never is.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Hundreds of processes start: where bytecode is not kept, each of them compiles the whole project.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := check
.PHONY: .venv bench chaos check demo lint mutants sabotage test test-celery-5.6 test-rabbitmq timed timed-demo timed-shop untimed up

demo: .venv ## a scripted outage with a verdict; ends by itself
	$(BIN)/python -m demo

up: .venv ## the same services, until Ctrl-C
	$(BIN)/python -m demo up

# The demo judges itself by how others use the processors, trials measure calls, and the others run a whole shop or fleet: these run two
# at a time, behind all others. The files of the shop are in one run, which starts the services and the shop once. What failed is tried
# once more, by itself: the first failure stands above, and is a fault of the test or of the product all the same.
BESIDE := --numprocesses=6 --dist=worksteal --durations=30
TIMED_DEMO := tests/acceptance/test_demo.py tests/integration/test_flags_flip.py
TIMED_SHOP := tests/integration/test_flags_trial.py \
  $(addprefix tests/acceptance/test_,own_orders.py shop.py shop_flags.py shop_mistakes.py)
TIMED := $(TIMED_DEMO) $(TIMED_SHOP)

AGAIN = $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none

test: .venv ## all tests; says what of the library they have not run, in all processes that nobody killed
	$(MAKE) untimed MEASURED="--cov=resilience --cov-report=term"
	$(MAKE) timed

untimed: $(COMPILED)
	$(BIN)/python -m pytest $(BESIDE) $(MEASURED) $(TIMED:%=--ignore=%) || $(AGAIN)

timed: .venv
	$(MAKE) --jobs timed-demo timed-shop

# Each remembers its failures by itself, as the other writes down its own at any moment.
timed-demo: FILES := $(TIMED_DEMO)
timed-shop: FILES := $(TIMED_SHOP)
timed-demo timed-shop: CACHE = -o cache_dir=.pytest_cache/$@
timed-demo timed-shop: .venv
	$(BIN)/python -m pytest $(CACHE) --durations=10 $(FILES) || $(AGAIN) $(CACHE) $(FILES)

# The same tests, on the other broker; what only Redis can show is left out, and why is said at the end.
test-rabbitmq: export TEST_BROKER := rabbitmq
test-rabbitmq: .venv ## the tests of workers and publishers on RabbitMQ in place of Valkey
	$(BIN)/python -m pytest -rs $(BESIDE) tests/integration $(TIMED:%=--ignore=%) || $(AGAIN)
	$(BIN)/python -m pytest -rs $(filter tests/integration/%,$(TIMED))

# The oldest Celery that is supported lies beside the newest and is found first; all else is the same. Its result backend
# calls what redis-py has deprecated, and leaves sockets to the garbage collector; it sends no pydantic models, and on gevent
# it takes nothing without prefetch.
ON_CELERY_5.6 := $(BIN)/python -m pytest -p no:cacheprovider -W "ignore:Call to deprecated setex:DeprecationWarning" \
  -W "ignore::pytest.PytestUnraisableExceptionWarning" -k "not pydantic_models and not (disabled_prefetch and gevent)"
test-celery-5.6: export PYTHONPATH := $(CURDIR)/.venv/other/celery-5.6
test-celery-5.6: .venv ## what differs between the versions of Celery, and what every job goes through, on Celery 5.6
	$(BIN)/celery --version | grep --quiet "^5\.6\."
	$(ON_CELERY_5.6) --numprocesses=2 --dist=worksteal tests/unit/test_compat.py \
	  $(addprefix tests/integration/test_,adopt.py adopt_queues.py fire.py task_canvas.py task_outcome.py) \
	  $(addprefix tests/compatibility/test_,by_name.py hooks.py intake.py names_that_disagree.py)

chaos: .venv ## kills for minutes on both brokers, and says what became of the jobs
	$(BIN)/python -m pytest -m chaos -s
	TEST_BROKER=rabbitmq $(BIN)/python -m pytest -m chaos -s tests/integration

# Mutants are judged from their last run where neither they nor their tests have changed: `mutants/` keeps that. A change elsewhere
# in the product goes unnoticed; without `mutants/` all are tried again. CI: Hypothesis then tries the same each time.
MUTMUT := .venv/other/mutmut
mutants: export PYTHONPATH := $(CURDIR)/$(MUTMUT)
mutants: export CI := true
mutants: .venv $(MUTMUT)/.installed ## what the tests of the pure modules do not notice; 2 at a time
	$(BIN)/python -m tests.mutation.forget
	$(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python -m tests.mutation

$(MUTMUT)/.installed: tests/mutation/requirements.txt | .venv
	$(PIP_INSTALL) --no-deps --upgrade --target $(MUTMUT) --requirement $<
	@touch $@

sabotage: .venv ## builds each listed mistake into a copy, and sees the tests that must fail; ONLY=breaker: those that match
	$(BIN)/python -m tests.sabotage "$(ONLY)"

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/typing
	$(BIN)/lint-imports

bench: .venv
	$(BIN)/python -m benchmarks all

check: .venv ## all that has to hold; what measures nothing runs side by side
	$(MAKE) --jobs lint untimed test-celery-5.6
	$(MAKE) timed

# What the tests import is compiled once; else each of their runners would do it, all at the same time.
$(COMPILED): $(INSTALLED)
	-@$(BIN)/python -m pytest --collect-only --quiet >/dev/null
	@touch $@

.venv: $(INSTALLED)

# Redone when a version changes. The lock pins the build backend too, so that nothing unpinned is ever fetched.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not that. Name one that is: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --no-deps --requirement requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	$(PIP_INSTALL) --no-deps --upgrade --target .venv/other/sentry-sdk-2.53 sentry-sdk==2.53.0 & other=$$!; \
	  $(PIP_INSTALL) --no-deps --upgrade --target .venv/other/celery-5.6 celery==5.6.3 && wait $$other
	@touch $@
