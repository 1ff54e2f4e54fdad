"""A recipe is its own configuration, and its key stays the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import BUILTIN
from bench import registry
from bench.training.recipes import Recipe, usual


@given(
    name=st.sampled_from(list(BUILTIN)),
    epochs=st.integers(1, 2000),
    rate=st.floats(1e-4, 1),
    model=st.sampled_from(["resnet18", "wrn-28-10"]),
    guide=st.none() | st.just("random"),
)
def test_json_gives_the_recipe_back(
    name: str, epochs: int, rate: float, model: str, guide: str | None
) -> None:
    recipe = Recipe(
        augmentation=BUILTIN[name](), epochs=epochs, learning_rate=rate, model=model, guide=guide
    )
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.key == recipe.key


def test_defaults_are_left_out_of_the_key() -> None:
    assert Recipe().to_json() == {}
    assert Recipe(epochs=300).key == Recipe().key
    assert Recipe(epochs=299).key != Recipe().key


def test_keys_of_the_paper_are_pinned() -> None:
    """A change here orphans every record that users have: it needs an entry under Numbers."""
    assert Recipe().key == "44136fa355b3"
    assert Recipe(data="cifar100", model="wrn-28-10").key == "70a468dc1366"
    masked = registry.build("augmentations", "advmask", data="cifar100", side=32)
    assert Recipe(data="cifar100", augmentation=masked).key == "7d652d4d4818"


def test_settings_of_the_paper() -> None:
    assert usual("cifar10", "resnet18", 32) == {"padding": 4}
    recipe = Recipe(model="shake-shake-26-2x32d", **usual("cifar10", "shake-shake-26-2x32d", 32))
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (1800, 256, 0.01)
    assert recipe.weight_decay == 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: it must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0: it must be at least 0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"validation": 1.0}, "validation is 1.0"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)  # type: ignore[arg-type]


def test_a_recipe_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fields: colour"):
        Recipe.from_json({"colour": "red"})


@pytest.mark.parametrize(
    ("field", "word", "message"),
    [
        ("optimizer", "adam", "optimizer is 'adam': choose 'sgd' or 'adamw'"),
        ("schedule", "linear", "schedule is 'linear': choose 'cosine' or 'steps'"),
        ("precision", "float16", "precision is 'float16': choose 'float32' or 'bfloat16'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_an_unknown_setting_is_refused_and_never_another_one(
    field: str, word: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{field: word})


def test_a_transformer_has_its_rate_on_every_dataset() -> None:
    for data in ("digits", "photos", "cifar10"):
        settings = usual(data, "vit-96-6", 8)
        assert (settings["optimizer"], settings["learning_rate"]) == ("adamw", 1e-3)
