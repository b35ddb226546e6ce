# make book   build the book from the committed outputs        make run    re-execute every chapter in place
# make test   unit tests, and every chapter run and compared   make lint   style, types, normal form of the chapters
# Needs only Python >= 3.11.5 (what the lock needs). To choose one: make PYTHON=/path/to/python3.12 book
PYTHON ?= python3
JOBS ?= 2

PY := .venv/bin/python
CHAPTERS := book/chapters
HTML := book/_build/html
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install --quiet

.PHONY: book test run lint pages lock clean
.DELETE_ON_ERROR:

# --- the environment: one .venv, in two steps, each with a stamp -------------------------------------------------
.venv/book.stamp: requirements-book.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("the lock needs Python 3.11.5 or newer: make PYTHON=/path/to/python3.11 ..." if sys.version_info < (3, 11, 5) else 0)'
	@echo "Creating the environment .venv (a few minutes the first time)"
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) -r requirements-book.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venv/test.stamp: requirements.txt .venv/book.stamp
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

# --- the book ---------------------------------------------------------------------------------------------------
BOOK_SOURCES := CHANGELOG.md $(shell find book rdolib -type f -not -path '*/_build/*' -not -path '*/__pycache__/*')

book: book/_build/book.stamp
	@echo "The book is at $(CURDIR)/$(HTML)/index.html"

book/_build/book.stamp: .venv/book.stamp $(BOOK_SOURCES)
	.venv/bin/jupyter-book build book --all -W --keep-going -n
	@touch $@

# --- checks -----------------------------------------------------------------------------------------------------
test: .venv/test.stamp
	$(PY) -m pytest -q -n $(JOBS) --dist loadgroup
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 -o filterwarnings= $(CHAPTERS)

run: .venv/book.stamp
	$(PY) tools/run_chapters.py --jobs $(JOBS)

lint: .venv/test.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) tools/run_chapters.py --check
	$(PY) tools/lint_chapters.py
	$(PY) tools/claims.py --check

# Needs a Chromium; looks at every built page with the network blocked.
pages: book
	$(PY) tools/check_pages.py $(HTML)

# --- maintenance ------------------------------------------------------------------------------------------------
# Resolve the lock anew. "+cpu" and the like name a build of torch, not its version.
FREEZE := .venv-lock/bin/python -m pip freeze --all --exclude pip --exclude rdolib

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -e '.[book]' 'setuptools>=77'
	(echo "# The book's environment, written by make lock."; $(FREEZE)) > requirements-book.txt
	.venv-lock/bin/python -m pip install --quiet -e '.[book,deep,test]' torch==2.13.0
	(echo "# The lock: the book's environment and what the tests add, written by make lock."; \
	 echo "-r requirements-book.txt"; \
	 $(FREEZE) | sed 's/+[a-z0-9.]*$$//' | grep -vxFf requirements-book.txt) > requirements.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv book/_build
