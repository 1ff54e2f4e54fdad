"""Networks, augmentations and attacks of a user's own: objects in Python files and packages.

A user names one as ``FILE.py:NAME`` or ``PACKAGE:NAME``. Whatever was read is known from then on as
``FILE.py:NAME@DIGEST``, without the folder and with eight hexadecimal digits of the content of its
file: records hold this name, so a changed file is another recipe. The digest covers this one file,
not what it imports.

Only `admit` runs code, and only of what a user has typed. A name in a record is looked up among
those and never imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import Missing, reason

REFERENCE = re.compile(r"(?P<place>.+):(?P<name>[A-Za-z_]\w*)(@(?P<digest>[0-9a-f]+))?")
DIGITS = 8


@dataclass(frozen=True)
class Source:
    """Where an object comes from, such that another process finds it.

    Attributes:
        place: Absolute path of a Python file, or dotted name of a module.
        name: Name of the object in it.
        digest: First hexadecimal digits of the sha256 of the file.
    """

    place: str
    name: str
    digest: str

    @property
    def text(self) -> str:
        """The name in records: no folder, but the content."""
        place = Path(self.place).name if _is_file(self.place) else self.place
        return f"{place}:{self.name}@{self.digest}"


_sources: dict[str, Source] = {}
_objects: dict[str, Any] = {}


def is_reference(text: str) -> bool:
    """Whether a text names an object in a file or a package.

    >>> is_reference("net.py:make"), is_reference("my_package.nets:make"), is_reference("resnet8")
    (True, True, False)
    >>> is_reference("timm:resnet18")
    False
    """
    return REFERENCE.fullmatch(text) is not None and not text.startswith("timm:")


def admit(text: str) -> str:
    """Run the file or import the package that a user has named; return the name in records.

    Args:
        text: ``FILE.py:NAME`` or ``PACKAGE:NAME``. With ``@DIGEST`` the content must be that one.

    Raises:
        Missing: There is no such file or package.
        ValueError: It raises an error, has no such name, or another content than ``@DIGEST``.
    """
    match = REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read {text!r}: write it as FILE.py:NAME or PACKAGE:NAME")
    if text in _objects:
        return text  # a name that was admitted before
    place, name = match["place"], match["name"]
    if _is_file(place):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise Missing(f"there is no file {place}")
        place = str(path)
    else:
        path = _file_of(place)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
    if match["digest"] not in (None, digest):
        raise ValueError(
            f"{path.name} has changed: its content is {digest}, not {match['digest']}; "
            f"leave @{match['digest']} out to use it as it is now"
        )
    source = Source(place, name, digest)
    if source.text not in _objects:
        module = _load(source)
        if not hasattr(module, name):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise ValueError(
                f"{path.name} has no {name!r}; it has: {', '.join(known) or 'nothing'}"
            )
        _objects[source.text] = getattr(module, name)
        _sources[source.text] = source
    return source.text


def find(text: str) -> Any | None:
    """Return the object that `admit` named so, or None."""
    return _objects.get(text)


def admitted() -> dict[str, Any]:
    """Return everything that was admitted, by name."""
    return dict(_objects)


def sources() -> tuple[Source, ...]:
    """Return where everything that was admitted comes from, for `adopt` in another process."""
    return tuple(_sources.values())


def adopt(given: Iterable[Source]) -> None:
    """Admit in this process what another process has admitted.

    Raises:
        Missing: A file is not visible here.
        ValueError: Its content is another one here.
    """
    for source in given:
        admit(f"{source.place}:{source.name}@{source.digest}")


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _file_of(module: str) -> Path:
    """The file of a module that can be imported."""
    here = str(Path.cwd())
    if here not in sys.path:  # as for `python -m`; last, so that it is in nobody's way
        sys.path.append(here)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    except Exception as error:  # the package above is run, and may do anything
        raise ValueError(
            f"{module} cannot be loaded: {type(error).__name__}: {reason(error)}"
        ) from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise Missing(
            f"there is no package {module!r} here: install it, or give a file as FILE.py:NAME"
        )
    return Path(spec.origin)


def _load(source: Source) -> ModuleType:
    try:
        if not _is_file(source.place):
            return importlib.import_module(source.place)
        return _run(Path(source.place), source.digest)
    except Exception as error:
        shown = Path(source.place).name if _is_file(source.place) else source.place
        raise ValueError(
            f"{shown} cannot be loaded: {type(error).__name__}: {reason(error)}"
        ) from error


def _run(path: Path, digest: str) -> ModuleType:
    """The module of a file, under a name that tells contents apart and that pickles refer to."""
    name = f"_bench_{path.stem}_{digest}".replace("-", "_").replace(".", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # modules beside the file can be imported by it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
