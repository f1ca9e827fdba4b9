# `make demo` and `make test` need nothing but git, make and python3 on Debian;
# scripts/setup fetches the rest. PYTHON=python3.13 make test chooses an interpreter.

.PHONY: demo test long quick bench lint clean

demo: ; @scripts/setup && exec .venv/bin/certcast-lab demo

test: ; @scripts/setup --test && $(MAKE) --no-print-directory lint && exec .venv/bin/pytest -n 4 --dist loadfile

long: ; @scripts/setup --test && exec .venv/bin/pytest -n 4 --dist loadfile --long

quick: ; @scripts/setup && exec .venv/bin/pytest tests/unit

bench: ; @scripts/setup --bench && exec .venv/bin/python bench/bench.py

lint: ; @.venv/bin/ruff check && .venv/bin/ruff format --check --quiet && .venv/bin/mypy && .venv/bin/mypy bench

clean: ; rm -rf .venv .venv-clients .venv-certbot21 .venv-nginx .venv-pebble .venv-acme2certifier .lab
