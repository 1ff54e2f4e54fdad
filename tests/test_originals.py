"""Every row of a batch is counted for the image that it was made from."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from smooth import draw_images, network
from torch import Generator, Tensor

import attacks
import bench
from attacks.originals import Originals, copies
from bench.robustness.pass_counter import Counted


def test_a_row_belongs_to_the_image_with_which_it_has_most_in_common() -> None:
    black, grey = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.6)
    images = torch.stack([black, grey])
    attempts = images.repeat(2, 1, 1, 1)
    attempts[0, :, :2] = 0.9  # half of black's elements, nearer to grey
    attempts[1, :, :2] = 0.1
    assert (attempts[0] - grey).norm() < (attempts[0] - black).norm()
    attempts[2] += 0.05  # dense and small
    attempts[3] -= 0.05
    assert Originals(images).owner(attempts).tolist() == [0, 1, 0, 1]


def test_the_nearest_image_owns_a_row_that_has_nothing_in_common_with_any() -> None:
    images = torch.rand(5, 1, 3, 3, generator=Generator().manual_seed(0))
    attempts = torch.rand(40, 1, 3, 3, generator=Generator().manual_seed(1))
    nearest = torch.cdist(attempts.flatten(1), images.flatten(1)).argmin(1)
    assert torch.equal(Originals(images).owner(attempts), nearest)


def test_dense_rows_keep_the_owners_that_the_same_rows_had_in_the_last_batch() -> None:
    images = torch.rand(5, 1, 6, 6, generator=Generator().manual_seed(0))
    dense = torch.rand(5, 1, 6, 6, generator=Generator().manual_seed(1))
    order = torch.tensor([3, 0, 4, 1, 2])
    found = Originals(images)
    assert torch.equal(found.owner(images[order]), order)
    assert torch.equal(found.owner(dense), order)
    sparse = images[[0, 0, 1, 2, 3]].clone()
    sparse[..., :2, :] = 1  # in another order: what they have in common decides
    assert found.owner(sparse).tolist() == [0, 0, 1, 2, 3]


def test_passes_of_a_dense_attack_do_not_depend_on_the_batch() -> None:
    model, images = network().float(), draw_images(8).float()
    labels = model(images).argmax(1)

    def passes(rows: Tensor) -> list[list[int]]:
        counted = Counted(model, images[rows], labels[rows])
        streams = [Generator().manual_seed(int(row)) for row in rows]
        attacks.PGDTrim(eps=1.0)(counted, images[rows], labels[rows], streams)
        return torch.stack([counted.forwards, counted.backwards], 1).tolist()

    whole = torch.arange(8)
    assert passes(whole) == [passes(row)[0] for row in whole[:, None]]


def test_a_single_image_owns_every_row() -> None:
    images = torch.zeros(1, 1, 2, 2)
    assert Originals(images).owner(torch.ones(3, 1, 2, 2)).tolist() == [0, 0, 0]


def test_copies_are_numbered_in_their_order() -> None:
    first, second = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    batch = torch.cat([second, first, second, second, first])
    assert copies(batch).tolist() == [0, 0, 1, 2, 1]
    assert copies(batch[:1]).tolist() == [0]
    assert copies(batch[:0]).tolist() == []


@pytest.fixture
def repeated() -> tuple[torch.nn.Module, Tensor, Tensor, Tensor]:
    """One image for each of the four classes that it is not in, and their indices as targets."""
    model = network().float()
    images = draw_images(1).float().repeat(4, 1, 1, 1)
    label = int(model(images[:1]).argmax())
    targets = torch.tensor([each for each in range(5) if each != label])
    return model, images, torch.full((4,), label), targets


@pytest.mark.parametrize("attack", ["sparse-rs(queries=30)", "sigma-zero(steps=10)"])
def test_passes_of_one_image_with_several_targets_are_those_of_each_alone(
    attack: str, repeated: tuple[torch.nn.Module, Tensor, Tensor, Tensor]
) -> None:
    model, images, labels, targets = repeated
    together, alone = (
        bench.evaluate_attacks(
            attack, model=model, images=images, labels=labels, targets=targets, eps=1.0,
            query_cap=25, batch_size=size,
        ).records[0].metrics
        for size in (4, 1)
    )  # fmt: skip
    assert together["forwards_max"] <= 25
    same = ("success", "l0_pixels_mean", "forwards", "backwards", "forwards_max")
    assert {name: together[name] for name in same} == {name: alone[name] for name in same}


def test_the_closest_attempt_of_equal_images_does_not_depend_on_their_batch(
    repeated: tuple[torch.nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, _, targets = repeated
    goal = attacks.Goal(targets, targeted=True)
    attack = attacks.SigmaZero(eps=0.001, steps=8)
    streams = [[Generator().manual_seed(row) for row in range(4)] for _ in range(2)]
    together = attack(model, images, goal, streams[0], failures="closest")
    alone = [
        attack(model, images[row : row + 1], goal[torch.tensor([row])], [stream], "closest")
        for row, stream in enumerate(streams[1])
    ]
    assert (together != images).flatten(1).any(1).all()
    assert torch.equal(together, torch.cat(alone))


@dataclasses.dataclass(frozen=True)
class Careless(attacks.BaseAttack):
    """Puts the model in training mode, changes its weights, and leaves it so."""

    eps: float | None = 1.0

    def passes(self, shape: tuple[int, ...]) -> int:
        return 1

    def _attack(
        self, model: torch.nn.Module, images: Tensor, goal: attacks.Goal, generators: object
    ) -> Tensor:
        model.train()
        model(images)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.neg_()
        return images.clone()


def test_an_attack_that_trains_the_network_leaves_it_as_it_was(
    monkeypatch: pytest.MonkeyPatch, repeated: tuple[torch.nn.Module, Tensor, Tensor, Tensor]
) -> None:
    monkeypatch.setitem(attacks.BUILTIN, "careless", Careless)
    model, images, labels, targets = repeated
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bench.evaluate_attacks(
        "careless", model=model, images=images, labels=labels, targets=targets, eps=1.0
    )
    assert not any(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
