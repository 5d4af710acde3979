"""What the library offers can be imported from one place, by names that mean one thing."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import typing
from collections import defaultdict
from dataclasses import is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import esx
from esx import errors
from esx.errors import EsxError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(esx.__file__).parent
DOCUMENTED = ("esx", "esx.embedded", "esx.doctor", "esx.store.views", "esx.store.appenders")
"""The modules whose names are the library's."""
INSIDE = (
    *("esx.store.views", "esx.store.appenders", "esx.store.feed.history", "esx.store.read.event_list"),
    "esx.layouts.foreign.kind",
    "esx.layouts.foreign.tables",
)
"""What users hand over as it is: the methods of these are for other parts of esx."""


@pytest.mark.slow
def test_every_type_in_a_public_signature_can_be_imported() -> None:
    missing = {
        f"{use.name} of {use.module}, in {use.where}"
        for use in _used_by_all()
        if use.module.startswith("esx") and not _offered(use)
    }
    assert not missing, "\n".join(sorted(missing))


def test_every_error_that_a_public_docstring_names_can_be_imported() -> None:
    raised = {error.__name__: error for error in _every_error()}
    missing = {
        f"{name} of {raised[name].__module__}, in {thing.__name__}.{member}"
        for thing in _reached()
        if inspect.isclass(thing)
        for member, function in _methods(thing)
        for name in re.findall(r"\b[A-Z]\w+\b", inspect.getdoc(function) or "")
        if name in raised and not _offered(Use("", name, raised[name].__module__, raised[name]))
    }
    assert not missing, "\n".join(sorted(missing))


@pytest.mark.slow
def test_no_two_public_classes_have_one_name() -> None:
    """Those inside of another class, such as a widget's messages, go by its name."""
    places = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(SOURCE.parent)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_tree_of_errors_is_what_the_code_says() -> None:
    def drawn(error: type[EsxError], depth: int = 0) -> Iterator[str]:
        yield "    " * (depth + 1) + error.__name__
        for below in error.__subclasses__():
            if below.__module__ == errors.__name__:
                yield from drawn(below, depth + 1)

    assert errors.__doc__ is not None
    tree = [line for line in errors.__doc__.splitlines() if re.fullmatch(r" {4,}[A-Z]\w+", line)]
    assert tree == list(drawn(EsxError))


class Use(NamedTuple):
    """A type that stands in a public signature: where, its name, the module that defines it, and itself."""

    where: str
    name: str
    module: str
    value: Any


def _offered(use: Use) -> bool:
    return any(getattr(importlib.import_module(module), use.name, None) is use.value for module in DOCUMENTED)


@cache
def _used_by_all() -> list[Use]:
    """Return the types that all public signatures name, those of the classes that they name included."""
    found = []
    waiting = _offers()
    seen = {id(thing) for thing in waiting}
    while waiting:
        for where, text, module in _annotations(waiting.pop()):
            for use in _names(where, text, module):
                found.append(use)
                if _walked(use.value) and id(use.value) not in seen:
                    seen.add(id(use.value))
                    waiting.append(use.value)
    return found


def _reached() -> list[Any]:
    return [*_offers(), *(use.value for use in _used_by_all() if _walked(use.value))]


def _offers() -> list[Any]:
    modules = map(importlib.import_module, DOCUMENTED)
    values = (getattr(module, name) for module in modules for name in module.__all__)
    return [value for value in values if inspect.isfunction(value) or _walked(value)]


def _walked(value: Any) -> bool:
    """Return whether it is a class of esx whose methods are public too."""
    return inspect.isclass(value) and value.__module__.startswith("esx") and not value.__module__.startswith(INSIDE)


def _every_error() -> Iterator[type[EsxError]]:
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        if name.startswith(("esx.store", "esx.layouts", "esx.postgres", "esx.embedded", "esx.libpq")):
            importlib.import_module(name)
    waiting = [EsxError]
    while waiting:
        error = waiting.pop()
        yield error
        waiting += error.__subclasses__()


def _annotations(thing: Any) -> Iterator[tuple[str, str, str]]:
    """Yield where each annotation of something public stands, its text, and the module whose names it uses."""
    if not inspect.isclass(thing):
        if inspect.isfunction(thing):
            for name, text in _written(thing):
                yield f"{thing.__name__}({name})", text, thing.__module__
        return
    for base in thing.__mro__:
        if base.__module__.startswith("esx") and (is_dataclass(base) or hasattr(base, "_fields")):
            for name, text in _written(base):
                if not name.startswith("_"):
                    yield f"{thing.__name__}.{name}", text, base.__module__
    for name, function in _methods(thing):
        for argument, text in _written(function):
            yield f"{thing.__name__}.{name}({argument})", text, function.__module__


def _written(thing: Any) -> Iterator[tuple[str, str]]:
    """Yield the annotations of a function or of a class's fields as the source has them: aliases keep their names."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    if isinstance(node, ast.ClassDef):
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                yield each.target.id, ast.unparse(each.annotation)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        given = node.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if argument is not None and argument.annotation is not None:
                yield argument.arg, ast.unparse(argument.annotation)
        if node.returns is not None:
            yield "return", ast.unparse(node.returns)


def _methods(thing: type) -> Iterator[tuple[str, Any]]:
    for base in thing.__mro__:
        if base.__module__.startswith("esx"):
            for name, member in vars(base).items():
                function: Any = member
                for kind, inner in ((property, "fget"), (cached_property, "func"), (classmethod, "__func__")):
                    if isinstance(member, kind):
                        function = getattr(member, inner)
                function = inspect.unwrap(function)
                # What users do not make themselves, they need not know how to make.
                public = not name.startswith("_") or (name == "__init__" and issubclass(base, Exception))
                if public and inspect.isfunction(function):
                    yield name, function


def _names(where: str, text: str, module: str) -> Iterator[Use]:
    """Yield what the names of an annotation mean."""
    meanings = _meanings(module)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _names(where, node.value, module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            outer = meanings.get(node.value.id)
            if outer is not None and inspect.ismodule(outer[1]):
                yield Use(where, node.attr, outer[1].__name__, getattr(outer[1], node.attr))
        if isinstance(node, ast.Name) and node.id in meanings:
            source, value = meanings[node.id]
            if not inspect.ismodule(value) and not isinstance(value, typing.TypeVar):
                yield Use(where, node.id, source, value)


@cache
def _meanings(module: str) -> dict[str, tuple[str, Any]]:
    """Return where each name of a module comes from, and what it is, those included that only types need."""
    loaded = importlib.import_module(module)
    meanings = {name: (getattr(value, "__module__", module), value) for name, value in vars(loaded).items()}
    for node in ast.walk(ast.parse(Path(str(loaded.__file__)).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            source = importlib.import_module(node.module)
            for each in node.names:
                # What is there for types only, such as an alias, is nobody else's.
                value = getattr(source, each.name, None)
                meanings[each.asname or each.name] = (node.module, value)
    return meanings
