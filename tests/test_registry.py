"""Names typed on the command line become methods, and back."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import attacks
import augmentations
from augmentations import Cutout, GridMask, Ramp
from bench import registry


@pytest.mark.parametrize("name", augmentations.BUILTIN)
def test_the_text_of_an_augmentation_gives_it_back(name: str) -> None:
    for data, side in (("cifar10", 32), ("cifar100", 32), ("digits", 8)):
        method = registry.build("augmentations", name, data=data, side=side)
        assert registry.build("augmentations", registry.express(method)) == method
        assert registry.label(method, data, side) == name


@pytest.mark.parametrize("name", attacks.BUILTIN)
def test_the_text_of_an_attack_gives_it_back(name: str) -> None:
    method = registry.build("attacks", name, eps=16 / 255)
    assert registry.build("attacks", registry.express(method)) == method


@pytest.mark.parametrize(
    ("text", "expected", "back"),
    [
        ("advmask.published", attacks.AdvMask.published(), "advmask.published"),
        ("advmask.published(eps=0.25)", attacks.AdvMask.published(0.25), None),
        ("advmask.published(steps=10)", attacks.PublishedAdvMask(steps=10), None),
        ("jsma.official", attacks.JSMA.official(), "jsma(direction='increase', gamma=0.145, "
         "single=False, untargeted='runner-up')"),
        ("cw-l0.official", attacks.CWL0.official(), "cw-l0(mode='free', steps=1000, lr=0.01, "
         "c=0.001, c_max=2000000.0, importance='released')"),
        ("sapf.official(l0=100)", attacks.SAPF.official(100), "sapf(mode='free', l0=100, "
         "strength=0.001, searches=6, steps=(2000, 2000, 1000), groups='slic')"),
    ],
)  # fmt: skip
def test_a_named_reading_can_be_typed(text: str, expected: Any, back: str | None) -> None:
    method = registry.build("attacks", text)
    assert method == expected
    assert registry.express(method) == (back or text)
    assert registry.build("attacks", registry.express(method)) == method


def test_every_named_reading_can_be_made() -> None:
    makers = registry.makers("attacks").items()
    # other tests load classes of their own, whose names have the file and a colon
    made = {name: make() for name, make in makers if "." in name and ":" not in name}
    cheaper = {
        "advmask", "cw-l0", "fmn-l0", "greedyfool", "pgd-l0", "pgd-trim", "sapf", "sigma-zero",
        "sparse-autoattack", "sparse-pgd", "sparse-rs", "sparsefool",
    }  # fmt: skip
    official = {"cw-l0.official", "jsma.official", "sapf.official"}
    assert set(made) >= official | {f"{name}.published" for name in cheaper}
    assert set(made) == {
        f"{name}.{reading}" for name, cls in attacks.BUILTIN.items() for reading in cls.readings
    }
    for method in made.values():
        assert registry.build("attacks", registry.express(method)) == method


@pytest.mark.parametrize(
    ("attack", "shortest"),
    [
        (attacks.CWL0.official(), "cw-l0.official"),
        (attacks.SAPF.official(), "sapf.official"),
        (attacks.SAPF.official(100), "sapf.official(l0=100)"),
        (attacks.JSMA.official(), "jsma.official"),
        (attacks.JSMA(gamma=0.145), "jsma(gamma=0.145)"),
        (attacks.AdvMask.published(), "advmask.published"),
        (attacks.AdvMask(), "advmask"),
    ],
)
def test_tables_name_an_attack_by_the_reading_that_is_nearest(attack: Any, shortest: str) -> None:
    assert registry.short(attack) == shortest
    assert registry.build("attacks", shortest) == attack


def test_a_named_reading_takes_the_options_that_a_caller_gives() -> None:
    assert registry.build("attacks", "advmask.published", eps=0.5).eps == 0.5
    with pytest.raises(ValueError, match=r"advmask\.published has no option 'step'; it has: alpha"):
        registry.build("attacks", "advmask.published(step=1)")
    with pytest.raises(ValueError, match=r"did you mean 'advmask\.published'\?"):
        registry.build("attacks", "advmask.publishd")


def test_options_replace_the_preset() -> None:
    method = registry.build("augmentations", "cutout(share=0.5)", data="cifar100", side=32)
    assert method == Cutout(length=8, share=Ramp(0.5))


def test_a_typed_option_wins_over_a_given_one() -> None:
    assert registry.build("attacks", "advmask(eps=4/255)", eps=8 / 255).eps == pytest.approx(
        4 / 255
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cutuot", "there is no augmentation 'cutuot': did you mean 'cutout'?"),
        ("zzzzz", "there is no augmentation 'zzzzz': there are: none, cutout"),
        ("cutout(lenght=8)", "cutout has no option 'lenght'; it has: fill, length, points, share"),
        ("cutout(length='8')", "cutout: option length is '8': it must be a whole number"),
        ("cutout(length=True)", "cutout: option length is True: it must be a whole number"),
        ("cutout(length=0)", "cutout: length is 0"),
        ("gridmask(share=Ramp(0, 2))", "Ramp: high is 2.0: it must be a fraction from 0 to 1"),
        ("cutout(length=", "cannot read 'cutout(length=': write it as name(option=value, …)"),
        ("cutout(8)", "cannot read 'cutout(8)': write it as name(option=value, …)"),
        ("cutout(length=4)(share=0.5)", "cannot read 'cutout(length=4)(share=0.5)': write it as"),
        ("cutout(length=4, length=8)", "'cutout(length=4, length=8)' gives length twice: remove"),
        ("cutout(fill=mean)", "'mean' is not a value; text needs quotes"),
        ("cutout(length=__import__('os'))", "is not a value"),
        ("cutout(length=8) # mine", "cannot read 'cutout(length=8) # mine': write it as"),
        ("advmask(length=(2,))", "advmask: option length is (2,): give 2 values"),
        ("advmask(length=(2, 3, 4))", "advmask: option length is (2, 3, 4): give 2 values"),
        ("none(share=0.5)", "none has no option 'share'"),
        ("cutout(share=1/0)", "a fraction needs two numbers and a denominator other than 0"),
    ],
)
def test_bad_text_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$") as error:
        registry.build("augmentations", text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_package_can_add_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "augmentations.gridmask:GridMask", "bench.augmentations")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert registry.classes("augmentations")["mine"] is GridMask


def test_two_methods_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("cutout", "augmentations.gridmask:GridMask", "bench.augmentations")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(
        ValueError, match=r"two augmentations are named 'cutout': augmentations\.grid"
    ):
        registry.classes("augmentations")


def test_a_method_that_is_not_registered_cannot_be_expressed() -> None:
    @dataclass(frozen=True)
    class Stranger:
        size: int = 1

    stranger: Any = Stranger()
    with pytest.raises(ValueError, match="Stranger is not registered: add it to BUILTIN, or"):
        registry.express(stranger)
    with registry.named("attacks", []), pytest.raises(ValueError, match="is not registered"):
        registry.express(stranger)


def test_an_object_goes_by_the_name_of_its_class_for_a_while() -> None:
    @dataclass(frozen=True)
    class Stranger:
        size: int = 1

        def __call__(self) -> None: ...

    published = attacks.AdvMask.published()
    with registry.named("attacks", [Stranger(), Stranger(2), attacks.JSMA(), published]):
        assert registry.express(Stranger(2)) == "Stranger(size=2)"
        assert registry.short(published) == "advmask.published"
        assert registry.short(attacks.JSMA()) == "jsma"
        assert not registry.writable(Stranger())
    assert "Stranger" not in registry.makers("attacks")
    other = type("Stranger", (Stranger,), {})
    with (
        pytest.raises(ValueError, match="two attacks are named Stranger: rename one"),
        registry.named("attacks", [Stranger(), other()]),
    ):
        pass
