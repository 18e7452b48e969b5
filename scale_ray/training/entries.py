"""A user's own entries of the registries, and the digests of their source.

An experiment adds an entry from its own file, `scale_ray.METHODS["mine"] = Mine`. The digest of its source is an input
of every trial that uses it, so that a change of the code gives other ids.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS
from scale_ray.models import BACKBONES


class _Registry(NamedTuple):
    entries: dict[str, Any]
    used: Callable[[TrialConfig], Iterable[str]]  # names of the entries that a config uses


_REGISTRIES: dict[str, _Registry] = {
    "method": _Registry(METHODS, lambda config: [config.method]),
    "loss term": _Registry(LOSSES, lambda config: config.losses.terms),
    "backbone": _Registry(BACKBONES, lambda config: [config.model.backbone]),
    "strong view": _Registry(STRONG_VIEWS, lambda config: [config.views.strong]),
}

# Values that a class or a closure holds beside its code, and that are part of what it does.
_PLAIN = (bool, int, float, complex, str, bytes, type(None), tuple, list, dict, frozenset)

Entries = dict[tuple[str, str], Any]  # (kind, name) -> entry


def code_digests(config: TrialConfig) -> dict[str, str]:
    """Digests of the source of the user's own entries that a config uses, by role: `method mine`, `loss term mine`.

    Raises:
        ConfigError: the source of an entry cannot be read.
    """
    return {
        f"{kind} {name}": source_digest(kind, name, registry.entries[name])
        for kind, registry in _REGISTRIES.items()
        for name in registry.used(config)
        if name in registry.entries and _own_objects(registry.entries[name])
    }


def read_by(config: TrialConfig, inputs: Mapping[str, str]) -> dict[str, str]:
    """The inputs without the source of entries that the config does not use."""
    used = {f"{kind} {name}" for kind, registry in _REGISTRIES.items() for name in registry.used(config)}
    kinds = tuple(f"{kind} " for kind in _REGISTRIES)
    return {role: digest for role, digest in inputs.items() if not role.startswith(kinds) or role in used}


def own_entries() -> tuple[Entries, set[ModuleType]]:
    """All entries that are not the package's, and the user's modules that they reach.

    Raises:
        ConfigError: the source of an entry cannot be read.
    """
    entries: Entries = {}
    modules: set[ModuleType] = set()
    for kind, registry in _REGISTRIES.items():
        for name, entry in registry.entries.items():
            for thing in _own_objects(entry):
                entries[kind, name] = entry
                modules |= {module for module, _ in _reached(kind, name, thing)}
    return entries, modules


def add_entries(entries: Entries) -> None:
    """Add a user's entries to the registries of this process."""
    for (kind, name), entry in entries.items():
        _REGISTRIES[kind].entries[name] = entry


def source_digest(kind: str, name: str, entry: Any) -> str:
    """sha256 of the source of an entry: of its class or function, and of all of the user's code that this reaches.

    That is every top-level statement of the user's files whose name is used there, also through imports. Comments on
    lines of their own and blank lines do not count. Plain values that a class or closure holds do count.
    """
    document = []
    for thing in _own_objects(entry):
        document += [text for _, text in _reached(kind, name, thing)]
        document += _plain_values(thing)
    if dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        document += [
            f"{field.name}={_text(getattr(entry, field.name))}"
            for field in dataclasses.fields(entry)
            if not callable(getattr(entry, field.name))
        ]
    return hashlib.sha256("\n".join(sorted(set(document))).encode()).hexdigest()


def _own_objects(entry: Any) -> list[Any]:
    """The classes and functions of an entry that are the user's: itself, or what it holds."""
    held: Iterable[Any] = ()
    if isinstance(entry, type):
        held = [value.__func__ if isinstance(value, staticmethod) else value for value in vars(entry).values()]
    elif dataclasses.is_dataclass(entry):
        held = [getattr(entry, field.name) for field in dataclasses.fields(entry)]
    objects = [_unwrapped(each) for each in (entry, *held) if callable(each)]
    return [each for each in objects if _is_own(sys.modules.get(getattr(each, "__module__", None) or ""))]


def _unwrapped(thing: Any) -> Any:
    while isinstance(thing, partial):
        thing = thing.func
    return inspect.unwrap(thing) if inspect.isfunction(thing) else thing


@cache
def _libraries() -> tuple[Path, ...]:
    """Folders of installed packages, of the standard library and of this package."""
    paths = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    return (Path(__file__).parents[1], *(Path(path).resolve() for path in paths))


def _is_own(module: ModuleType | None) -> bool:
    if module is None or module.__name__.partition(".")[0] == "scale_ray":
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__"
    return not any(Path(file).resolve().is_relative_to(folder) for folder in _libraries())


def _reached(kind: str, name: str, thing: Any) -> list[tuple[ModuleType, str]]:
    """(module, source) of each top-level statement of the user's that `thing` reaches."""
    module = sys.modules[thing.__module__]
    waiting = [(module, thing.__qualname__.partition(".")[0])]
    seen: set[tuple[ModuleType, str]] = set()
    found = []
    while waiting:
        module, wanted = waiting.pop()
        if (module, wanted) in seen:
            continue
        seen.add((module, wanted))
        file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_file():
            raise ConfigError(
                f"{kind} {name!r}: its source cannot be read, because module {module.__name__!r} is no file: define it "
                "in a .py file"
            )
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        for statement in ast.parse("\n".join(lines)).body:
            imported = _imported(statement, module)
            if wanted == "*" or wanted in _names_bound(statement):
                if not imported:
                    found.append((module, _source(statement, lines)))
                    waiting += [(module, used) for used in _names_used(statement)]
                waiting += [each for bound, each in imported.items() if wanted in (bound, "*")]
    return found


def _names_bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _names_used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _imported(statement: ast.stmt, module: ModuleType) -> dict[str, tuple[ModuleType, str]]:
    """Bound name -> (the user's module, name in it) of an import; `*` is the whole module."""
    found = {}
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            imported = sys.modules.get(alias.name)
            if imported is not None and _is_own(imported):
                found[alias.asname or alias.name.partition(".")[0]] = (imported, "*")
    elif isinstance(statement, ast.ImportFrom):
        base = "." * statement.level + (statement.module or "")
        package = getattr(module, "__package__", None) or ""
        origin = importlib.util.resolve_name(base, package) if statement.level else base
        for alias in statement.names:
            submodule = sys.modules.get(f"{origin}.{alias.name}")
            imported = submodule or sys.modules.get(origin)
            if imported is not None and _is_own(imported):
                found[alias.asname or alias.name] = (imported, "*" if submodule else alias.name)
    return found


def _source(statement: ast.stmt, lines: list[str]) -> str:
    first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))])
    kept = (line.rstrip() for line in lines[first - 1 : statement.end_lineno])
    return "\n".join(line for line in kept if line and not line.lstrip().startswith("#"))


def _plain_values(thing: Any) -> Iterator[str]:
    """Plain values that a class holds as attributes, or that its functions or a function close over."""
    functions = [thing]
    if isinstance(thing, type):
        for name, value in vars(thing).items():
            if isinstance(value, _PLAIN) and not (name.startswith("__") and name.endswith("__")):
                yield f"{name}={_text(value)}"
        functions = [getattr(value, "__func__", value) for value in vars(thing).values()]
    for function in functions:
        if inspect.isfunction(function):
            closed = inspect.getclosurevars(function).nonlocals
            yield from (f"{name}={_text(value)}" for name, value in closed.items() if isinstance(value, _PLAIN))


def _text(value: Any) -> str:
    return repr(sorted(value, key=repr)) if isinstance(value, frozenset | set) else repr(value)
