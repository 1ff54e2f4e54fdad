"""Files from outside are hostile: each reader gives something valid or one clear line.

Valid files are cut, flipped and grown at random places; crafted ones lie about their size, are
nested too deeply or carry code. Whatever they hold, nothing is executed or written, and memory
stays bounded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import IDS, READERS, answer, valid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as pack

from bench import registry
from bench.errors import Missing
from bench.files import tensor_files
from bench.training.recipes import Recipe

TIMES = 40  # damaged copies of each file
pytestmark = pytest.mark.usefixtures("no_copies")


def harmed(content: bytes, chance: random.Random) -> bytes:
    """A file with a few places cut, flipped, overwritten, inserted, doubled or left out."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(len(found) + 1) if chance.random() < 0.7 else chance.randrange(64)
        end = start + chance.choice((1, 2, 4, 8, 64))
        harm = chance.randrange(7)
        if harm == 0:
            found = found[:start]
        elif harm == 1 and start < len(found):
            found[start] ^= 1 << chance.randrange(8)
        elif harm == 2:
            found[start:end] = chance.randbytes(len(found[start:end]))
        elif harm == 3:
            found[start:start] = chance.randbytes(end - start)
        elif harm == 4:
            found[start:start] = found[start:end]
        elif harm == 5:
            del found[start:end]
        else:
            found[start:end] = chance.choice((b"\xff", b"\x00", b"9")) * (end - start)
    return bytes(found)


@pytest.mark.parametrize("what", READERS)
def test_a_whole_file_is_read(what: str, tmp_path: Path) -> None:
    name, read, _ = READERS[what]
    (tmp_path / name).write_bytes(valid(what))
    assert read(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_harmed_file_is_read_or_refused_in_one_line(what: str, tmp_path: Path, seed: int) -> None:
    answer(what, harmed(valid(what), random.Random(seed)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64) | st.text(max_size=64).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused_in_one_line(
    what: str, tmp_path: Path, content: bytes
) -> None:
    answer(what, content, tmp_path)


# --- files that are crafted -------------------------------------------------------------------


SIGNED = {
    "weights": ["conv1.weight", "linear.weight", "linear.bias", "other"],
    "checkpoint": ["network.network.linear.weight", "momentum.0", "momentum.999"],
    "points": ["places", "offsets", "reached", "other"],
    "points metadata": ["places"],
    "attack block": ["ids", "adversarial", "forwards", "backwards", "other"],
}
"""What is read → the tensors in it, and others."""
KINDS = [torch.int16, torch.int64, torch.bool, torch.float32, torch.bfloat16, torch.complex64]
TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["size", "about", "took", "errors"]), inner, max_size=3)
    ),
    max_leaves=6,
).map(json.dumps)
TENSORS = st.builds(
    lambda kind, shape, value: torch.full(shape, value).to(kind),
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(-2, 9),
)


@pytest.mark.slow
@pytest.mark.parametrize("what", SIGNED)
@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=TEXTS, whole=st.booleans())
def test_a_file_whose_checksum_is_right_is_still_not_trusted(
    what: str, tmp_path: Path, data: st.DataObject, text: str, whole: bool
) -> None:
    tensors = data.draw(st.dictionaries(st.sampled_from(SIGNED[what]), TENSORS, max_size=3))
    if whole:  # one that is right but for some tensors
        path = tmp_path / "whole"
        path.write_bytes(valid(what))
        tensors = tensor_files.read(path)[0] | tensors if what != "attack block" else {
            "ids": IDS, "adversarial": torch.zeros(3, 1, 4, 5),
            "forwards": 1 * IDS, "backwards": 2 * IDS,
        } | tensors  # fmt: skip
        path.unlink()
    metadata = {"about": text, "job": text}
    if what == "attack block":
        content = tensor_files.pack(tensors, metadata, covered="job")
    else:
        content = tensor_files.pack(tensors, metadata)
    answer(what, content, tmp_path)


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("what", READERS)
def test_a_pickle_with_code_in_it_is_never_run(what: str, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "inner" / "sprung")
    objects, saved = io.BytesIO(), io.BytesIO()
    np.savez(objects, places=np.array([trap], dtype=object))
    torch.save({"network": trap}, saved)
    for content in (objects.getvalue(), saved.getvalue(), pickle.dumps(trap), pickle.dumps([trap])):
        name, read, _ = READERS[what]
        (tmp_path / "inner").mkdir(exist_ok=True)
        (tmp_path / "inner" / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ValueError, Missing):
                read(tmp_path / "inner" / name)
        assert not trap.path.exists()


DEEP = b"[" * 100_000 + b"]" * 100_000


def nested(what: str) -> bytes:
    if what in ("points", "points metadata"):
        return tensor_files.pack(
            {"places": torch.zeros(0, 2).short(), "offsets": torch.zeros(9).long(),
             "reached": torch.zeros(8).bool()}, {"about": DEEP.decode()}
        )  # fmt: skip
    if what == "points to import":
        file = io.BytesIO()
        np.savez(file, masks=np.ones((8, 4, 5)), about=np.array(DEEP.decode()[:900]))
        return file.getvalue()
    if what == "attack block":
        return pack({"ids": IDS}, {"job": DEEP.decode(), "sha256": ""})
    return DEEP


@pytest.mark.parametrize(
    "what",
    [
        *("records", "curve", "recipe", "checkpoint.json", "occlusion curve"),
        *("points", "points metadata", "points to import", "attack block"),
    ],
)
def test_text_that_is_nested_too_deeply_is_refused(what: str, tmp_path: Path) -> None:
    answer(what, nested(what), tmp_path)


LONG = ["advmask(" + "(" * 900, "cutout(length=" + "1/" * 900 + "1)", "has(p=" + "-" * 900 + "1)"]
ODD = [
    "cutout(length=10**9)",
    "cutout(length=1e400)",
    "has(share=Ramp(a='b'))",
    "f(\0)",
    "f(x=[*1])",
]
ODD += [f"cutout(length={10**400}/1)", "has(share=Ramp(*[1]))", "cutout(length=(lambda: 1)())"]


@pytest.mark.parametrize("text", [*LONG, *ODD])
def test_odd_text_of_a_method_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        registry.build("augmentations", text)
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Recipe)]),
        st.none() | st.text(max_size=9) | st.floats() | st.integers() | st.lists(st.integers()),
        max_size=4,
    )
)
def test_a_recipe_of_odd_values_is_refused_in_one_line(job: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert Recipe.from_json(job).key
