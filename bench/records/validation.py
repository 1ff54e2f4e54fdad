"""What a line of ``records.jsonl`` must hold: one model, for reading and for writing.

A results folder may come from anyone. What the model accepts, every table, figure and page can
show: all texts can be encoded, all numbers are finite and can be squared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from bench.files.text import printable

VERSION = 1
IMAGES = 10**7  # most images of an attack, for tables and pages have an entry for each
LARGEST, LEAST = 1e18, 1e-100  # of a number other than 0: squares neither overflow nor vanish
LONGEST_NAME, LONGEST_TEXT = 200, 10_000  # characters
DEEPEST = 8  # lists and objects in each other in the settings of a job
LAST_SEED = 2**63 - 1  # the largest that a generator of torch takes
PLAIN = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)  # what a key may be, for files are named by it
EPS = re.compile(r"\d{1,9}/\d{1,9}|\d{0,9}\.?\d{0,30}(e-?\d{1,2})?", re.ASCII)
FRACTIONS = frozenset(
    [
        *("accuracy", "accuracy_median10", "accuracy_best_validation", "accuracy_best", "correct"),
        *("success", "success_8bit", "success_best", "success_worst", "misclassified"),
    ]
)
"""Metrics that are shares of the images."""

NEEDED = {
    "run": ("augmentation", "model", "data"),
    "attack": ("attack", "victim", "data", "goal", "eps", "bounded", "role", "model"),
}
"""The labels that a record of each kind needs to be shown in a table."""


def _name(text: str) -> str:
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable():
        raise ValueError(f"{printable(text, 80)!r} is not a name")
    return text


def _key(text: str) -> str:
    if not PLAIN.fullmatch(text):
        raise ValueError("a key has letters, digits and - _ . only")
    return text


def _value(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a label or a metric."""
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise ValueError(f"{name} is a text of {len(value)} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} is {_shown(value)}, which is not a text") from None
        wrong = name in FRACTIONS
    else:
        wrong = isinstance(value, bool) or not isinstance(value, int | float)
        wrong = wrong or not (value == 0 or LEAST <= abs(value) <= LARGEST)
        wrong = wrong or (name in FRACTIONS and not 0 <= value <= 1)
    if wrong:
        what = "fraction" if name in FRACTIONS else "text or number of a usual size"
        raise ValueError(f"{name} is {_shown(value)}, which is not a {what}")


def _job(job: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [job]
    for _ in range(DEEPEST):
        parts = [[*each, *each.values()] if isinstance(each, dict) else each for each in level]
        inner = [each for part in parts for each in part]
        for text in inner:
            if isinstance(text, str):
                _value("a text in it", text)
        level = [each for each in inner if isinstance(each, dict | list)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return job


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]


class Line(BaseModel):
    """A record as its line holds it; further texts are its labels, further numbers its metrics."""

    model_config = ConfigDict(strict=True, extra="allow")

    version: Literal[1]
    kind: Literal["run", "attack"]
    key: Annotated[str, AfterValidator(_key)]
    seed: Annotated[int, Field(ge=0, le=LAST_SEED)]
    status: Literal["finished", "failed"]
    message: Text
    job: Annotated[dict[Name, JsonValue], AfterValidator(_job)]
    machine: dict[Name, Text]

    @model_validator(mode="after")
    def _can_be_shown(self) -> Line:
        rest = self.__pydantic_extra__ or {}
        for name, value in rest.items():
            _value(_name(name), value)
        for name in NEEDED[self.kind]:
            if not isinstance(rest.get(name), str):
                raise ValueError(f"it has no label {name!r}")
        if self.kind == "attack":
            self._is_an_attack(rest)
        return self

    def _is_an_attack(self, rest: dict[str, Any]) -> None:
        images = self.job.get("images")
        if not isinstance(images, int) or isinstance(images, bool) or not 1 <= images <= IMAGES:
            raise ValueError(f"its images are {_shown(images)}, which is not a number of images")
        if (shown := rest.get("images")) is not None and not (
            isinstance(shown, int | float) and 1 <= shown <= IMAGES
        ):
            raise ValueError(f"images is {_shown(shown)}, which is not a number of images")
        interval = {"success", "success_low", "success_high"}
        if rest.keys() & interval not in (set(), {"success"}, interval):
            raise ValueError("its success has no interval of two ends")
        for name, known in (("role", ("sparse", "ceiling", "floor")), ("bounded", ("yes", "no"))):
            if rest[name] not in known:
                raise ValueError(f"{name} is {_shown(rest[name])}, not {' or '.join(known)}")
        if not positive(rest["eps"]):
            raise ValueError(f"eps is {_shown(rest['eps'])}, which is not a number above 0")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ``ValueError`` unless these are seeds of different records."""
    if not seeds or not 0 <= min(seeds) <= max(seeds) <= LAST_SEED or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}: give integers from 0 to {LAST_SEED}, each once")


def positive(eps: str) -> bool:
    """Whether a text is a number above 0, as a fraction or a decimal.

    >>> positive("8/255"), positive("1/0"), positive("zzz")
    (True, False, False)
    """
    if not EPS.fullmatch(eps):
        return False
    try:
        return Fraction(eps) > 0
    except (ValueError, ZeroDivisionError):
        return False


def _entries(curve: list[dict[str, int | float]]) -> list[dict[str, int | float]]:
    """Check names and numbers without a call for each, for a study has 100,000 of them."""
    for name in set(itertools.chain.from_iterable(curve)):
        _name(name)
    for entry in curve:
        for name, value in entry.items():
            if not (value == 0 or LEAST <= abs(value) <= LARGEST):
                _value(name, value)
    return curve


Entries = Annotated[list[dict[str, int | float]], AfterValidator(_entries)]
CURVE = TypeAdapter(Entries, config=ConfigDict(strict=True))
POINT = frozenset(["changes", "pixels", "elements"])
"""What each entry of an attack's curve has."""


def check_curve(curve: Any, needed: Collection[str] = ()) -> list[dict[str, int | float]]:
    """The curve that was read from a file; raises ``ValueError`` for anything else.

    Args:
        curve: A JSON value.
        needed: The names that each entry must have.

    >>> check_curve([{"epoch": 1, "loss": 0.5}], ["epoch"])
    [{'epoch': 1, 'loss': 0.5}]
    """
    try:
        found = CURVE.validate_python(curve)
    except ValidationError as error:
        raise ValueError(f"a curve is a list of numbers by name: {_reason(error)}") from None
    if not all(name in entry for entry in found for name in needed):
        raise ValueError(f"each entry of this curve has {', '.join(sorted(needed))}")
    return found


def check(line: Any) -> Line:
    """The line as the model; raises ``ValueError`` with the first reason why it is not a record."""
    if not isinstance(line, dict):
        raise ValueError("it is not an object")
    if line.get("version") != VERSION:
        raise ValueError(f"its version is {_shown(line.get('version'))}, not {VERSION}")
    try:
        return Line.model_validate(line)
    except ValidationError as error:
        raise ValueError(_reason(error)) from None


def _reason(error: ValidationError) -> str:
    """The first reason, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    said = str(first["msg"]).removeprefix("Value error, ")
    if not where:
        return said
    given = "missing" if first["type"] == "missing" else _shown(first["input"])
    return printable(f"{printable(where, 80)} is {given}: {said}", 300)


def _shown(value: Any) -> str:
    """A value from outside, short enough for an error."""
    try:
        return printable(repr(value), 60)
    except (RecursionError, ValueError):  # Python refuses to write very long numbers
        return f"a {type(value).__name__}"
