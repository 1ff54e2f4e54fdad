"""Methods by the text that a user types: ``"gridmask(ratio=0.5)"`` and ``GridMask(ratio=0.5)``.

Not here: the methods (they are in ``augmentations`` and ``attacks``), networks and datasets by name
(they are in ``models`` and ``data``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib import metadata
from types import MappingProxyType
from typing import Any, Literal

from bench.errors import reason, suggest
from bench.files import code
from bench.registry.notation import configured, parse, whole, write

Kind = Literal["augmentations", "attacks"]

_named: ContextVar[Mapping[str, type[Any]]] = ContextVar("_named", default=MappingProxyType({}))
"""The classes that go by their own names for the time being; see `named`."""


@functools.cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Return the entry points of installed packages, cached: a look-up takes 10 ms."""
    return tuple(metadata.entry_points(group=group))


@functools.cache
def _loaded(entry: metadata.EntryPoint) -> Any | None:
    """What an entry point names; None, with a warning, if its package cannot be imported."""
    try:
        return entry.load()
    except Exception as error:
        warnings.warn(
            f"the plug-in {entry.name!r} ({entry.value}, in the group {entry.group}) is left out: "
            f"{type(error).__name__}: {reason(error)}",
            stacklevel=2,
        )
        return None


def plugins(kind: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what other packages add: the entry points of the group ``bench.KIND``, by name.

    One that cannot be imported costs a warning.

    Args:
        kind: ``"augmentations"``, ``"attacks"`` or ``"models"``.
        known: What there is already.

    Raises:
        ValueError: Two have the same name.
    """
    found: dict[str, Any] = {}
    for entry in entry_points(group=f"bench.{kind}"):
        if (other := (known | found).get(entry.name)) is not None:  # type: ignore[operator]
            named = getattr(other, "__qualname__", None)
            place = f"{other.__module__}:{named}" if named else "another"
            raise ValueError(
                f"two {kind} are named {entry.name!r}: {entry.value} and {place}; "
                "rename or uninstall one"
            )
        if (loaded := _loaded(entry)) is not None:
            found[entry.name] = loaded
    return found


def classes(kind: Kind) -> Mapping[str, type[Any]]:
    """Return the classes of all methods by name: the built-in ones, then those of other packages.

    Other packages register theirs through the entry point groups ``bench.augmentations`` and
    ``bench.attacks``.

    Args:
        kind: ``"augmentations"`` or ``"attacks"``.

    Raises:
        ValueError: Two methods have the same name.
    """
    import importlib

    found: dict[str, type[Any]] = dict(importlib.import_module(kind).BUILTIN)
    return found | plugins(kind, found)


def admit(kind: Kind, text: str) -> str:
    """Return the text of a method that a user has typed, ready for `build`.

    A name passes as it is. The class of ``FILE.py:CLASS`` or ``PACKAGE:CLASS`` is loaded, and the
    text that is returned names the content of its file; see `bench.files.code`.

    Args:
        kind: ``"augmentations"`` or ``"attacks"``.
        text: Name or reference, with options, as ``"stripes.py:Stripes(width=2)"``.

    Raises:
        ValueError: The file cannot be loaded, or holds no such class.
        Missing: There is no such file or package.
    """
    name, bracket, options = text.strip().partition("(")
    if not code.is_reference(name):
        return text
    name = code.admit(name)
    cls: Any = code.find(name)
    _check_class(kind, name, cls)
    return f"{name}{bracket}{options}"


def _check_class(kind: Kind, name: str, cls: Any) -> None:
    """Refuse what is no class of a method, or lacks defaults."""
    if not _of_kind(kind, cls):
        wanted = "a method `mask`" if kind == "augmentations" else "a method `__call__`"
        raise ValueError(f"{name} is not an {kind[:-1]}: it must be a dataclass with {wanted}")
    try:
        cls()
    except TypeError as error:
        raise ValueError(f"{name}: give each of its fields a default: {reason(error)}") from None


def _of_kind(kind: Kind, cls: Any) -> bool:
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return False
    method = "mask" if kind == "augmentations" else "__call__"
    return any(method in vars(base) for base in cls.__mro__)


def check(kind: Kind, method: Any) -> None:
    """Refuse an object that cannot be named: it must be a frozen dataclass with defaults.

    Args:
        kind: ``"augmentations"`` or ``"attacks"``.
        method: The object.

    Raises:
        ValueError: It is none, is a class, or its class is not frozen or lacks a default.
    """
    name = getattr(method, "__name__", type(method).__name__)
    if isinstance(method, type):
        raise ValueError(f"{name} is a class: give an object, {name}()")
    _check_class(kind, name, type(method))
    if type(method).__hash__ is None:
        raise ValueError(f"{name} can be changed: write @dataclass(frozen=True) above the class")


@contextlib.contextmanager
def named(kind: Kind, methods: Iterable[Any]) -> Iterator[None]:
    """Let objects whose class has no name go by the name of the class, while nothing is stored.

    Args:
        kind: ``"augmentations"`` or ``"attacks"``.
        methods: Objects that `check` accepts.

    Raises:
        ValueError: A class is called like another method.
    """
    known = makers(kind)
    has_name = {make if isinstance(make, type) else type(make()) for make in known.values()}
    found: dict[str, type[Any]] = {}
    for cls in dict.fromkeys(map(type, methods)):
        if cls in has_name:
            continue
        if cls.__name__ in {*known, *found}:
            raise ValueError(f"two {kind} are named {cls.__name__}: rename one")
        found[cls.__name__] = cls
    before = _named.set({**_named.get(), **found})
    try:
        yield
    finally:
        _named.reset(before)


def makers(kind: Kind) -> dict[str, Callable[[], Any]]:
    """Return everything that `build` accepts by name, with what creates it with its defaults.

    These are all classes, those that `admit` loaded, those of `named`, and their named readings:
    class methods that a class lists in ``readings``, as ``"advmask.published"`` for
    ``AdvMask.published``.
    """
    own = {name: each for name, each in code.admitted().items() if _of_kind(kind, each)}
    unstored = {name: each for name, each in _named.get().items() if _of_kind(kind, each)}
    known = {**classes(kind), **own, **unstored}
    readings = {
        f"{name}.{reading}": getattr(cls, reading)
        for name, cls in known.items()
        for reading in getattr(cls, "readings", ())
    }
    return {**known, **readings}


def build(kind: Kind, text: str, *, data: str = "", side: int = 32, **given: Any) -> Any:
    """Build the method that a text describes.

    An augmentation starts from the hyperparameters published for the dataset; options in the text
    replace them. A named reading starts from its own. ``NAME.published`` is every attack with the
    budget of its authors, also where that is the attack's defaults.

    Args:
        kind: ``"augmentations"`` or ``"attacks"``.
        text: Name with options, as ``"gridmask(ratio=0.5)"``.
        data: Name of the dataset; empty: the defaults of the class.
        side: Side of the images in pixels.
        **given: Options for classes that have them, such as an attack's ``eps``; those in the text
            take precedence.

    Raises:
        ValueError: Unknown name or option, or a value of the wrong type or range.
    """
    name, options = parse(text)
    known = makers(kind)
    make = known.get(name) or _published(known, name)
    if make is None:
        raise ValueError(f"there is no {kind[:-1]} {name!r}: {suggest(name, known)}")
    start = None if isinstance(make, type) else make()
    cls: Any = make if isinstance(make, type) else type(start)
    try:
        if start is None and data and hasattr(cls, "preset"):
            start = cls.preset(whole(data), side)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return configured(cls, name, options, start, given)


def _published(known: Mapping[str, Callable[[], Any]], name: str) -> Callable[[], Any] | None:
    """The published budget of an attack whose defaults it is; `makers` lists it only once."""
    plain, _, reading = name.rpartition(".")
    found = getattr(known.get(plain), reading, None) if reading == "published" else None
    return found if callable(found) else None


def express(method: Any, base: Any = None, always: Collection[str] = ()) -> str:
    """Return the text from which `build` builds the same method.

    A class that has no name of its own but is what a named reading gives goes by the name of the
    reading.

    Args:
        method: An augmentation or attack.
        base: Method whose options are left out where they are equal; None: the defaults of the
            class. With the preset of a dataset, the text is what a user of that dataset would type.
        always: Options that are written even where they are equal.

    Raises:
        ValueError: The class is not registered.
    """
    kind: Kind
    for kind in ("augmentations", "attacks"):
        for name, make in makers(kind).items():
            cls: Any = make if isinstance(make, type) else type(make())
            if type(method) is cls:
                return write(name, method, make() if base is None else base, always)
    name = type(method).__name__
    raise ValueError(
        f"{name} is not registered: add it to BUILTIN, or give the text 'FILE.py:{name}'"
    )


def short(attack: Any, always: Collection[str] = ()) -> str:
    """Return the shortest text of an attack: from its defaults or from one of its named readings.

    Keys and records have what `express` gives, which never depends on the readings of a class.

    Args:
        attack: The attack.
        always: Options that are written even where they are equal.

    >>> from attacks import CWL0
    >>> short(CWL0.official()), short(CWL0(steps=20))
    ('cw-l0.official', 'cw-l0(steps=20)')
    """
    texts = [express(attack, always=always)]
    for name, make in makers("attacks").items():
        if not isinstance(make, type) and type(base := make()) is type(attack):
            texts.append(write(name, attack, base, always))
    return min(texts, key=lambda text: (text.count("="), len(text)))


def writable(method: Any) -> bool:
    """Whether the text of a method builds it again: it has no network, and no name of `named`."""
    if type(method) in _named.get().values():
        return False
    return not any(callable(getattr(method, field.name)) for field in dataclasses.fields(method))


def label(augmentation: Any, data: str, side: int | None) -> str:
    """Return the short text of an augmentation on a dataset: name and options unlike the preset's.

    Args:
        augmentation: The augmentation.
        data: Name of the dataset.
        side: Side of its images in pixels; None where it is not known: the options that the preset
            takes from it are then written.
    """
    cls = type(augmentation)
    if not hasattr(cls, "preset"):
        return express(augmentation)
    if side is not None:
        return express(augmentation, cls.preset(whole(data), side))
    small, large = (cls.preset(whole(data), each) for each in (32, 64))
    names = [field.name for field in dataclasses.fields(cls)]
    moved = [name for name in names if getattr(small, name) != getattr(large, name)]
    return express(augmentation, small, moved)
