# Everything runs in .venv; `make demo` and `make test` set it up first.
VENV ?= .venv
