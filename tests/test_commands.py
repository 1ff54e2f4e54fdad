"""A written command gives back the recipe that it was written for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import pytest

import augmentations
from bench import registry
from bench.data.catalog import facts
from bench.reporting import commands
from bench.training.recipes import Recipe, usual

ADVMASK = "advmask(length=(1, 2))"


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(data="digits", model="resnet8", **usual("digits", "resnet8", 8)),
        Recipe(data="cifar10", model="resnet44", policy="autoaugment", mix="cutmix"),
        Recipe(data="cifar10", model="resnet20", padding=0, flip=False),
        Recipe(data="cifar10", model="resnet20", optimizer="adamw", learning_rate=1e-3, warmup=5),
        Recipe(data="cifar10", model="vit-96-6", **usual("cifar10", "vit-96-6", 32)),
        Recipe(
            data="digits(train=100)", model="resnet8", guide="random",
            augmentation=registry.build("augmentations", ADVMASK, data="digits", side=8),
            **(usual("digits", "resnet8", 8) | {"epochs": 3, "learning_rate": 0.2}),
        ),
    ],
)  # fmt: skip
def test_a_command_gives_the_recipe_back(recipe: Recipe) -> None:
    from bench.cli import run as module

    written = commands.run(recipe, [0, 2])
    side = facts(recipe.data).side
    given = module.run.make_context("run", shlex.split(written)[2:]).params
    assert given["seed_list"] == (0, 2)
    found = Recipe(
        data=given["data"],
        model=given["models"][0],
        augmentation=registry.build(
            "augmentations",
            given["augmentations"][0],
            data=recipe.data,
            side=side,
        ),
        guide=next(iter(given["guides"]), None),
        policy=given["policy"],
        mix=given["mix"],
        **(
            usual(given["data"], given["models"][0], side)
            | {
                name: given[name]
                for name in (*commands.OPTIONS, "flip")
                if name != "precision" and given[name] is not None
            }
        ),
    )
    assert found.key == recipe.key


def test_a_command_for_a_folder_writes_what_depends_on_the_side_of_its_images() -> None:
    for length, padding in ((16, 4), (32, 8)):
        recipe = Recipe(
            data="mine", model="resnet8", augmentation=augmentations.Cutout(length), padding=padding
        )
        written = commands.run(recipe, [0])
        assert f"cutout(length={length})" in written
        assert f"--padding {padding}" in written
    assert "--padding" not in commands.run(Recipe(data="cifar10", model="resnet8", padding=4), [0])


def test_a_method_of_ones_own_with_slots_is_written_for_a_folder_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True, slots=True)
    class Stripes:
        width: int = 4

        @classmethod
        def preset(cls, data: str, side: int) -> Stripes:
            return cls(side // 8)

    monkeypatch.setitem(augmentations.BUILTIN, "stripes", Stripes)
    assert registry.label(Stripes(4), "mine", None) == "stripes(width=4)"
    assert registry.label(Stripes(4), "cifar10", 32) == "stripes"
