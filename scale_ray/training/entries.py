"""A user's own entries of the registries, and the digests of their source.

An experiment adds an entry from its own file, `scale_ray.METHODS["mine"] = Mine`. The digest of its source is an input
of every trial that uses it, so that a change of the code gives other ids.
"""

import dis
import functools
import hashlib
import inspect
import linecache
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS
from scale_ray.models import BACKBONES
from scale_ray.registry import Registry


class _Kind(NamedTuple):
    registry: Registry[Any]
    used: Callable[[TrialConfig], Iterable[str]]  # names of the entries that a config uses


_KINDS: dict[str, _Kind] = {
    "method": _Kind(METHODS, lambda config: [config.method]),
    "loss term": _Kind(LOSSES, lambda config: config.losses.terms),
    "backbone": _Kind(BACKBONES, lambda config: [config.model.backbone]),
    "strong view": _Kind(STRONG_VIEWS, lambda config: [config.views.strong]),
}

_SCALARS = (bool, int, float, complex, str, bytes, type(None))

Entries = dict[tuple[str, str], Any]  # (kind, name) -> entry


def own_entries() -> Entries:
    """All entries that are not the package's."""
    return {(kind, name): entry for kind, each in _KINDS.items() for name, entry in each.registry.own().items()}


def add_entries(entries: Entries) -> None:
    """Add a user's entries to the registries of this process."""
    for (kind, name), entry in entries.items():
        _KINDS[kind].registry[name] = entry


def code_digests(config: TrialConfig) -> dict[str, str]:
    """Digests of the source of the user's own entries that a config uses, by role: `method mine`, `loss term mine`.

    Raises:
        ConfigError: the source of an entry cannot be read.
    """
    own = own_entries()
    if not own:
        return {}
    return {
        f"{kind} {name}": _digest(kind, name)
        for kind, each in _KINDS.items()
        for name in each.used(config)
        if (kind, name) in own
    }


def read_by(config: TrialConfig, inputs: Mapping[str, str]) -> dict[str, str]:
    """The inputs without the source of entries that the config does not use."""
    used = {f"{kind} {name}" for kind, each in _KINDS.items() for name in each.used(config)}
    return {role: digest for role, digest in inputs.items() if not is_code(role) or role in used}


def is_code(role: str) -> bool:
    """Whether an input is the source of a user's entry."""
    return role.startswith(tuple(f"{kind} " for kind in _KINDS))


# (kind, name) -> the entry and its digest, until `forget_code`: a study asks once a cell.
_known: dict[tuple[str, str], tuple[Any, str]] = {}


def forget_code() -> None:
    """Compute digests of source again: the user may have changed in this process what an entry reaches."""
    _known.clear()
    linecache.checkcache()


def _digest(kind: str, name: str) -> str:
    entry = _KINDS[kind].registry[name]
    if (kind, name) not in _known or _known[kind, name][0] is not entry:
        _known[kind, name] = (entry, source_digest(f"{kind} {name!r}", entry))
    return _known[kind, name][1]


def source_digest(what: str, entry: Any) -> str:
    """sha256 of an entry: of the source of its class or function, and of all the user's code that this reaches.

    What is reached are base classes, the global names that functions read, what they close over and import, arguments
    of partials, and values of attributes. Of installed packages and of this package only names count. Comments on
    lines of their own and blank lines do not count.

    Args:
        what: names the entry in an error.

    Raises:
        ConfigError: the source of something that is reached cannot be read.
    """
    reached = Reached(what)
    reached.add(entry)
    return hashlib.sha256("\n".join(sorted(set(reached.texts))).encode()).hexdigest()


class Reached:
    """Collects what objects consist of.

    Attributes:
        texts: source code and values.
        modules: the user's modules that the code is in.
    """

    def __init__(self, what: str):
        self._what = what
        self._seen: dict[int, Any] = {}  # keeps the objects, so that no other one gets their id
        self.texts: list[str] = []
        self.modules: set[ModuleType] = set()

    def add(self, thing: Any, name: str = "") -> None:
        """Collect an object, and all that it reaches.

        Args:
            name: under which it was found, so that equal values of two names are two texts.
        """
        if isinstance(thing, _SCALARS):
            self.texts.append(f"{name}={thing!r}")
            return
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, Mapping):
            for key, value in thing.items():
                self.add(value, f"{name}[{key!r}]")
        elif isinstance(thing, list | tuple):
            for index, value in enumerate(thing):
                self.add(value, f"{name}[{index}]")
        elif isinstance(thing, set | frozenset):
            self.texts.append(f"{name}={sorted(map(repr, thing))}")
        elif isinstance(thing, functools.partial):
            self.add(thing.func, f"{name}.func")
            self.add(thing.args, f"{name}.args")
            self.add(thing.keywords, f"{name}.keywords")
        elif isinstance(thing, ModuleType):
            self._add_module(thing)
        elif isinstance(thing, type):
            self._add_class(thing, name)
        elif isinstance(thing, FunctionType):
            self._add_function(thing, name)
        elif isinstance(thing, staticmethod | classmethod) or inspect.ismethod(thing):
            self.add(thing.__func__, name)
        elif isinstance(thing, property):
            self.add([thing.fget, thing.fset], name)
        elif hasattr(thing, "__dict__"):
            self.add(type(thing), name)
            for attribute, value in vars(thing).items():
                self.add(value, f"{name}.{attribute}")
        else:
            self.texts.append(f"{name} is a {type(thing).__module__}.{type(thing).__qualname__}")

    def _add_module(self, module: ModuleType) -> None:
        if _is_own(module) and module.__file__ is not None:
            self.modules.add(module)
            self.texts.append(_without_remarks(Path(module.__file__).read_text(encoding="utf-8")))
        else:
            self.texts.append(f"module {module.__name__}")

    def _add_class(self, found: type, name: str) -> None:
        module = sys.modules.get(found.__module__)
        own = _is_own(module)
        if own:
            self._add_source(found, module)
            for base in found.__bases__:
                self.add(base)
        else:
            self.texts.append(f"{name} is {found.__module__}.{found.__qualname__}")
        # A class that a function of a package has made, such as `training_function`, holds the user's code.
        if own or getattr(module, found.__name__, None) is not found:
            for attribute, value in vars(found).items():
                if attribute != "_abc_impl" and (inspect.isfunction(value) or not attribute.startswith("__")):
                    self.add(value, f"{found.__qualname__}.{attribute}")

    def _add_function(self, function: FunctionType, name: str) -> None:
        module = sys.modules.get(function.__module__ or "")
        if not _is_own(module):
            self.texts.append(f"{name} is {function.__module__}.{function.__qualname__}")
            return
        self._add_source(function, module)
        for values in (function.__defaults__ or (), function.__kwdefaults__ or {}):
            self.add(values, f"{function.__qualname__} defaults")
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if free != "__class__":
                self.add(cell.cell_contents, f"{function.__qualname__} closes over {free}")
        for read in _global_names(function.__code__):
            if read in function.__globals__:
                self.add(function.__globals__[read], read)
        for imported in _imported_modules(function.__code__):
            if (found := sys.modules.get(imported)) is not None and _is_own(found):
                self.add(found)

    def _add_source(self, thing: Any, module: ModuleType | None) -> None:
        try:
            source = inspect.getsource(thing)
        except (OSError, TypeError):
            raise ConfigError(
                f"{self._what}: the source of {thing.__qualname__!r} cannot be read: define it in a .py file"
            ) from None
        assert module is not None
        self.modules.add(module)
        self.texts.append(_without_remarks(source))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of all that is defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _global_names(code: CodeType) -> set[str]:
    return {
        instruction.argval
        for each in _codes(code)
        for instruction in dis.get_instructions(each)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _imported_modules(code: CodeType) -> set[str]:
    return {
        instruction.argval
        for each in _codes(code)
        for instruction in dis.get_instructions(each)
        if instruction.opname == "IMPORT_NAME"
    }


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Folders of installed packages, of the standard library and of this package."""
    paths = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    return (Path(__file__).parents[1], *(Path(path).resolve() for path in paths))


def _is_own(module: ModuleType | None) -> bool:
    """Whether a module is the user's: neither this package's nor installed."""
    if module is None or module.__name__.partition(".")[0] == "scale_ray":
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__"
    return not any(Path(file).resolve().is_relative_to(folder) for folder in _libraries())


def _without_remarks(source: str) -> str:
    """The source without blank lines, comments on lines of their own, and common indentation."""
    lines = inspect.cleandoc("\n" + source).splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
