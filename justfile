# The words of .ci/run, one by one. `just` lists them (https://just.systems). They use .venv, which `just setup` makes.

bin := env("ESX_BIN", ".venv/bin")

_list:
    @just --list --unsorted

# install esx for development into .venv, with the locked versions
setup:
    .ci/install .venv

# an answer in 90 seconds: all tests but the slow ones
test *args:
    {{bin}}/pytest -m "not slow" {{args}}

# all tests, as .ci/run does
pytest *args:
    {{bin}}/pytest {{args}}

# lint and formatting
ruff:
    {{bin}}/ruff check .
    {{bin}}/ruff format --check .

# types
mypy:
    {{bin}}/mypy

# who may import whom
import-linter:
    {{bin}}/lint-imports

# the documentation as a site in build/site, warnings are errors
docs:
    NO_MKDOCS_2_WARNING=1 {{bin}}/mkdocs build --strict -f .ci/mkdocs.yml

# what can be told without a test
check: ruff mypy import-linter docs

# the checks of a clean clone, and the long ones
ci:
    .ci/run
    .ci/full

# both lock files, with the newest versions within the bounds
lock:
    .ci/lock
