"""The text of a method: ``"gridmask(ratio=0.5)"`` read as a name with options, and written.

One syntax everywhere, ``name(option=value, …)``: on the command line, in records and in MLflow.
Values are Python literals, fractions such as ``8/255``, and ``Ramp(low, high)``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any, get_args, get_type_hints

PYDANTIC = "Input should be "
WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "a text in quotes",
    "tuple_type": "several values, such as (1, 2)",
    "is_instance_of": "a number or Ramp(low, high)",  # the only class that options have
    "dataclass_exact_type": "a number or Ramp(low, high)",
}
"""What a value must be, by pydantic's name of the error."""
LONGEST = 2000  # characters that the options of a method may have


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name(option=value, …)`` into the name and its options.

    Raises:
        ValueError: The text does not have this form.

    >>> parse("advmask(length=(2, 15), share=Ramp(0, 0.8))")
    ('advmask', {'length': (2, 15), 'share': Ramp(low=0.0, high=0.8, until=1.0)})
    >>> parse("random-erasing")
    ('random-erasing', {})
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    name = name.strip()
    usage = f"cannot read {text!r}: write it as name(option=value, …)"
    if len(rest) > LONGEST:
        raise ValueError(
            f"the options of {name} have {len(rest)} characters; the most is {LONGEST}"
        )
    try:
        source = f"f({rest}"
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two: deep nesting
        raise ValueError(usage) from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(usage)
    if ast.get_source_segment(source, call) != source:  # a comment follows, which Python would drop
        raise ValueError(usage)
    given = [keyword.arg for keyword in call.keywords]
    if None in given:
        raise ValueError(usage)
    if repeated := next((each for each in given if given.count(each) > 1), None):
        raise ValueError(f"{text!r} gives {repeated} twice: remove one of the two")
    try:
        return name, {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
    except (ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ValueError(f"cannot read {text!r}: {error}") from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Ramp":
        from augmentations.base import Ramp

        try:
            keywords = {str(keyword.arg): float(_value(keyword.value)) for keyword in node.keywords}
            return Ramp(*(float(_value(argument)) for argument in node.args), **keywords)
        except TypeError:
            raise ValueError("write a ramp as Ramp(low, high, until=…)") from None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        top, bottom = _value(node.left), _value(node.right)
        if not (isinstance(top, int | float) and isinstance(bottom, int | float) and bottom):
            raise ValueError("a fraction needs two numbers and a denominator other than 0")
        return top / bottom
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(
            f"{ast.unparse(node)!r} is not a value; text needs quotes, as in option='logits'"
        ) from None


def whole(data: str) -> str:
    """The dataset that a name is a part of; a folder may be called like no option.

    >>> whole("cifar10(train=2000)"), whole("norm (1)")
    ('cifar10', 'norm (1)')
    """
    try:
        return parse(data)[0]
    except ValueError:
        return data


def write(name: str, method: Any, base: Any, always: Collection[str] = ()) -> str:
    """A name and, in brackets, the options that differ from those of ``base``, and ``always``."""
    options = [
        f"{field.name}={show(getattr(method, field.name))}"
        for field in dataclasses.fields(method)
        if field.init
        and (field.name in always or getattr(method, field.name) != getattr(base, field.name))
    ]
    return f"{name}({', '.join(options)})" if options else name


def show(value: Any) -> str:
    """Format a value as a user would type it.

    >>> from augmentations.base import Ramp
    >>> show(Ramp(0.0, 0.8)), show(Ramp(0.5)), show((2, 15))
    ('Ramp(0.0, 0.8)', '0.5', '(2, 15)')
    """
    if type(value).__name__ == "Ramp":
        if value.high is None:
            return repr(value.low)
        until = "" if value.until == 1 else f", until={value.until!r}"
        return f"Ramp({value.low!r}, {value.high!r}{until})"
    if callable(value):  # a network or function, which no text can build
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)


def configured(
    cls: Any,
    name: str,
    options: Mapping[str, Any],
    start: Any = None,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """Return an object of a dataclass with the options that a user has typed.

    Args:
        cls: The dataclass.
        name: Its name, for errors.
        options: The options, as `parse` gives them.
        start: What options that are not named are taken from; None: the defaults of the class.
        given: Options that are taken where the class has them and ``options`` do not name them.

    Raises:
        ValueError: Unknown option, or a value of the wrong type or range.
    """
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    for option in options:
        if option not in fields:
            raise ValueError(
                f"{name} has no option {option!r}; it has: {', '.join(sorted(fields))}"
            )
    typed = {option: checked(cls, name, option, value) for option, value in options.items()}
    typed = {key: value for key, value in (given or {}).items() if key in fields} | typed
    try:
        return cls(**typed) if start is None else dataclasses.replace(start, **typed)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def checked(cls: Any, name: str, option: str, value: Any) -> Any:
    """Return an option's value as the type of the option; only an int may become a float.

    Args:
        cls: Class of the method.
        name: Name of the method, for the error.
        option: Name of the option.
        value: The value.

    Raises:
        ValueError: The value has another type.
    """
    from pydantic import ValidationError

    from augmentations.base import Ramp

    hint, adapter = _adapter(cls, option)
    if hint is Ramp and isinstance(value, int | float) and not isinstance(value, bool):
        value = Ramp(float(value))
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"it must be {WORDS.get(first['type'], first['msg'].removeprefix(PYDANTIC))}"
        if first["type"] in ("missing", "too_long"):  # of a tuple, where pydantic names no length
            reason = f"give {len(get_args(hint))} values"
        raise ValueError(f"{name}: option {option} is {show(value)}: {reason}") from None


@functools.cache
def _adapter(cls: Any, option: str) -> tuple[Any, Any]:
    """The type of an option and what checks it; making one takes longer than a thousand checks."""
    from pydantic import TypeAdapter

    hint = get_type_hints(cls)[option]
    return hint, TypeAdapter(hint)
