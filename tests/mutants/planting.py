"""Puts a mutant into this very process: for a forked child, that ends with it.

The checkout is never written to, and nothing is imported twice: where the changed file compiles to
another function, the function that everybody holds gets the other code; where it says another
constant, every module that took the old one gets the new one.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

from tests.mutants.mutant import Mutant


class NotPlantedError(RuntimeError):
    """A mutant that changes neither a function nor a constant cannot be made this way."""


def plant(mutant: Mutant) -> None:
    """Change the loaded module to what the mutant says; raises `NotPlantedError`."""
    module = importlib.import_module(mutant.file.removesuffix(".py").replace("/", "."))
    compiled = compile(mutant.text, module.__file__ or mutant.file, "exec", dont_inherit=True)
    codes = {code.co_qualname: code for code in _codes(compiled)}
    planted = 0
    for function in _functions(module):
        new = codes.get(function.__code__.co_qualname)
        if new is not None and new != function.__code__:
            function.__code__ = new
            planted += 1
    planted = planted or _plant_constants(module, compiled)
    if not planted:
        raise NotPlantedError(f"{mutant.name}: neither a function nor a constant is another one")


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines."""
    waiting = list(vars(module).values())
    while waiting:
        found = waiting.pop()
        if isinstance(found, type) and found.__module__ == module.__name__:
            waiting += vars(found).values()
        elif isinstance(found, property):
            waiting += [one for one in (found.fget, found.fset) if one is not None]
        elif isinstance(found, staticmethod | classmethod):
            waiting.append(found.__func__)
        elif callable(found) and not isinstance(found, type):
            plain = inspect.unwrap(found)
            if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                yield plain


def _plant_constants(module: ModuleType, compiled: CodeType) -> int:
    """Give every module that took a constant of this one the changed value."""
    fresh = ModuleType(module.__name__)
    exec(compiled, vars(fresh))
    changed = 0
    for name, new in vars(fresh).items():
        old = vars(module).get(name)
        if not name.isupper() or old == new:
            continue
        for other in list(sys.modules.values()):
            if other.__name__.startswith("orchestrator") and vars(other).get(name) is old:
                setattr(other, name, new)
        changed += 1
    return changed
