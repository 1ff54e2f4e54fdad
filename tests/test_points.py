"""Points are kept whole, fit their data set, and go to other people and back."""

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from attacks.greedyfool import GreedyFool
from attacks.sigma_zero import SigmaZero
from augmentations import BUILTIN
from bench import registry
from bench.cli import main
from bench.data import catalog, seeds
from bench.data.dataset import Dataset
from bench.errors import Stopped
from bench.execution.processes import Processes
from bench.execution.progress import Lines, Silent
from bench.execution.workspace import Workspace
from bench.models import networks, pretrained, weight_files
from bench.points import blocks as blocks_module
from bench.points import find
from bench.points.find import find_points
from bench.points.import_export import from_numpy, to_numpy
from bench.points.store import Points, join
from bench.reporting import image_grid
from bench.training import victims


@pytest.fixture
def data() -> Dataset:
    return catalog.load("digits")


def some(data: Dataset, seed: int = 0) -> Points:
    n, _, h, w = data.train.images.shape
    changed = torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) < 0.1
    about = {"data": data.name, "digest": data.digest, "attack": "none"}
    return Points.of(changed, changed.flatten(1).any(1), about)


def same(a: Points, b: Points) -> bool:
    """Whether two sets agree in all but the seconds that they took."""
    return bool(
        torch.equal(a.places, b.places)
        and torch.equal(a.offsets, b.offsets)
        and torch.equal(a.reached, b.reached)
        and a.about | {"seconds": 0} == b.about | {"seconds": 0}
    )


def test_the_guide_is_true_at_the_points_alone() -> None:
    changed = torch.zeros(3, 4, 5, dtype=torch.bool)
    changed[0, 1, 2] = changed[0, 3, 4] = changed[2, 0, 0] = True
    points = Points.of(changed, torch.tensor([True, False, True]), {})
    assert torch.equal(points.guide()[:, 0], changed)
    assert points.counts.tolist() == [2, 0, 1]


def test_what_is_saved_is_loaded(data: Dataset, tmp_path: Path) -> None:
    points = some(data)
    points.save(tmp_path / "p.safetensors")
    assert same(Points.load(tmp_path / "p.safetensors"), points)


def test_the_gallery_shows_what_every_augmentation_leaves(data: Dataset) -> None:
    network = networks.build_for(data, "resnet8", seed=0).eval()
    images = image_grid.advmask_images(data, some(data), 5)["image"]
    shown = image_grid.deletion_images(data, some(data), 5, network)
    assert set(shown) == set(BUILTIN) - {"none", "advmask"}
    for name, left in shown.items():
        deleted = (left != images).any(1)
        assert deleted.flatten(1).any(1).sum() >= 3, name  # a mask may happen to be empty
        assert not deleted.flatten(1).all(1).any(), name
        if name != "random-erasing":  # which fills with noise
            colours = left.movedim(1, -1)[deleted]
            assert torch.allclose(colours, data.mean.expand_as(colours), atol=1e-6), name


def test_the_image_has_a_column_for_each_augmentation(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(results=tmp_path)
    network = networks.build_for(data, "resnet8", seed=0).eval()
    monkeypatch.setattr(
        "bench.cli.points.find_or_load", lambda *given: (workspace, data, some(data))
    )
    monkeypatch.setattr(victims, "obtain", lambda *args: network)
    path = tmp_path / "points.png"
    result = CliRunner().invoke(main, ["points", "show", "--count", "2", "--output", str(path)])
    assert result.exit_code == 0, result.output
    columns = len({"image", "points", "mask"}) + len(set(BUILTIN) - {"none"})
    cell = 8 * (96 // 8) + image_grid.MARGIN
    with Image.open(path) as shown:
        assert shown.width == columns * cell + image_grid.MARGIN
        assert shown.height == 2 * cell + image_grid.TITLE + image_grid.MARGIN


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("truncate", "not a safetensors file"),
        ("flip", "damaged"),
        ("text", "not a safetensors file"),
    ],
)
def test_damage_is_noticed(data: Dataset, tmp_path: Path, harm: str, message: str) -> None:
    path = tmp_path / "p.safetensors"
    some(data).save(path)
    content = bytearray(path.read_bytes())
    if harm == "truncate":
        content = content[: len(content) // 2]
    elif harm == "flip":
        content[-5] ^= 1
    else:
        content = bytearray(b"no points at all")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"p\.safetensors is {message}"):
        Points.load(path)


def test_points_of_another_data_set_are_refused_with_both_names(data: Dataset) -> None:
    with pytest.raises(ValueError, match=r"belong to digits .* not to photos"):
        some(data).fits(catalog.load("photos"))


def test_a_set_without_any_point_is_refused(data: Dataset) -> None:
    n, _, h, w = data.train.images.shape
    about = {"data": data.name, "digest": data.digest}
    nothing = Points.of(torch.zeros(n, h, w, dtype=torch.bool), torch.zeros(n).bool(), about)
    with pytest.raises(ValueError, match="no training image; give a larger eps"):
        nothing.fits(data)


def test_numpy_and_back(data: Dataset, tmp_path: Path) -> None:
    points = some(data)
    (tmp_path / "p.npz").write_bytes(to_numpy(points))
    assert same(from_numpy(tmp_path / "p.npz", data), points)


def test_masks_of_other_people_are_taken(data: Dataset, tmp_path: Path) -> None:
    points = some(data)
    np.savez(tmp_path / "m.npz", masks=points.guide()[:, 0].numpy())
    assert torch.equal(from_numpy(tmp_path / "m.npz", data).guide(), points.guide())


def arrays(data: Dataset, **changes: Any) -> bytes:
    points = some(data)
    found = {"places": points.places.numpy(), "offsets": points.offsets.numpy()} | changes
    buffer = io.BytesIO()
    np.savez(buffer, **found)
    return buffer.getvalue()


def test_hostile_files_are_refused(data: Dataset, tmp_path: Path) -> None:
    points = some(data)
    outside = points.places.numpy().copy()
    outside[0, 0] = 8
    falling = points.offsets.numpy().copy()
    falling[1] = falling[2] + 1

    class Trap:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit",))

    n = len(data.train.labels)
    cases = {
        b"PK no archive": "does not hold points",
        arrays(data, places=outside): r"outside their image of 8x8",
        arrays(data, offsets=falling): "must start at 0 and not decrease",
        arrays(data, offsets=points.offsets.numpy()[:-1]): "do not divide",
        arrays(data, masks=np.zeros((n, 9, 9))): "masks have shape",
        arrays(data, places=points.places.numpy().astype(float)): "must hold integers",
        arrays(
            data, places=np.array([Trap()], dtype=object)
        ): "holds Python objects, which are not loaded",
        arrays(data, bomb=np.zeros(10**7)): "bomb.npy unpacks to 80000128 bytes",
    }
    for content, message in cases.items():
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            from_numpy(tmp_path / "x.npz", data)


def test_parts_join_to_the_whole(data: Dataset) -> None:
    whole = some(data)
    changed = whole.guide()[:, 0]
    parts = [
        Points.of(changed[a:b], whole.reached[a:b], whole.about) for a, b in ((0, 500), (500, 1438))
    ]
    assert same(join(parts), whole)


def test_neighbours_are_counted_within_an_image() -> None:
    changed = torch.zeros(3, 5, 6, dtype=torch.bool)
    changed[0, 1:4, 1:4] = True  # a square: 8 around its centre, 5 at a side, 3 at a corner
    changed[1, 0, 0] = changed[1, 4, 5] = True  # alone, though next to each other in memory
    changed[2, 0, 5] = changed[2, 1, 4] = changed[2, 2, 5] = True  # diagonals both ways: 1, 2, 1
    points = Points.of(changed, torch.ones(3).bool(), {})
    assert points.summary()["neighbours"] == pytest.approx((8 + 4 * 5 + 4 * 3 + 0 + 4) / 14)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A place where the victim takes an epoch and the attack a few steps."""
    quick = dataclasses.replace(catalog.ENTRIES["digits"], victim_epochs=1)
    monkeypatch.setitem(catalog.ENTRIES, "digits", quick)
    return Workspace(results=tmp_path)


@pytest.mark.slow
def test_a_victim_is_the_same_when_it_was_just_trained_when_read_and_when_damaged(
    workspace: Workspace,
) -> None:
    data = workspace.dataset("digits")
    victim = find.points_victim(data)
    images = data.test.images[:64].float() / 255
    found = []
    for turn in range(3):
        network = victim.load(workspace, Silent())
        strides = [parameter.stride() for parameter in network.parameters()]
        with torch.no_grad():
            found.append((network(images), strides, network.training))
        (path,) = workspace.cache.glob("victims/*.safetensors")
        if turn == 1:
            path.write_bytes(path.read_bytes()[:-1])
    for logits, strides, trains in found:
        assert torch.equal(logits, found[0][0])
        assert strides == found[0][1]
        assert not trains


ATTACK = "sigma-zero(steps=3)"


def test_a_network_with_fewer_classes_than_the_labels_is_refused(tmp_path: Path) -> None:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dataset = torch.utils.data.TensorDataset(images, torch.arange(6))
    few = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with pytest.raises(ValueError, match=r"labels are in \[0, 5\], but the network has 4 classes"):
        find.find_points(few, dataset, attack=ATTACK, results=tmp_path, quiet=True)
    assert not list(tmp_path.glob("points/*.safetensors"))


@pytest.mark.slow
def test_a_stopped_search_continues_and_a_damaged_block_is_done_again(
    data: Dataset, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished() -> list[Path]:
        return sorted(tmp_path.glob("cache/points/*/block-*.safetensors"))

    with pytest.raises(Stopped, match="stopped in epoch 1 of 1"):
        find.adversarial(data, workspace, Silent(), attack_text=ATTACK, stop=lambda: True)
    assert not finished()
    with pytest.raises(Stopped, match="stopped after 3 of 12 blocks, which are stored"):
        find.adversarial(
            data, workspace, Silent(), attack_text=ATTACK, stop=lambda: len(finished()) == 3
        )
    blocks = finished()
    attacked: list[int] = []
    attack = blocks_module.attack

    def counted(*given: Any, **named: Any) -> Any:
        attacked.append(1)
        return attack(*given, **named)

    monkeypatch.setattr(blocks_module, "attack", counted)
    blocks[1].write_bytes(blocks[1].read_bytes()[:-3])
    found = find.adversarial(data, workspace, Silent(), attack_text=ATTACK)
    assert len(found.reached) == 1438
    assert not list(tmp_path.glob("cache/points/*/block-*.safetensors"))
    other = Workspace(results=tmp_path / "other")
    whole = find.adversarial(data, other, Silent(), attack_text=ATTACK)
    assert same(found, whole)
    assert len(attacked) == (12 - 3 + 1) + 12  # here those that lacked, elsewhere all


def test_a_search_stops_at_the_next_pass_of_a_block(data: Dataset, tmp_path: Path) -> None:
    """The attack on one block takes minutes on large images."""
    passes: list[int] = []
    network = networks.build_for(data, "resnet8", seed=0)
    network.register_forward_hook(lambda *given: passes.append(len(given[2])))
    with pytest.raises(Stopped, match="stopped after 0 of 12 blocks"):
        find.adversarial(
            data,
            Workspace(results=tmp_path),
            Silent(),
            victim=network,
            stop=lambda: len(passes) > 9,
        )
    assert len(passes) == 10
    assert not list(tmp_path.glob("cache/points/*/block-*.safetensors"))


@pytest.mark.slow
def test_an_interrupted_search_continues_bit_for_bit_in_other_processes(
    workspace: Workspace, tmp_path: Path
) -> None:
    def finished() -> int:
        return len(list(tmp_path.glob("cache/points/*/block-*.safetensors")))

    data = workspace.dataset("digits(train=300, test=20)")
    network = networks.build_for(data, "resnet8", seed=1)
    weight_files.save_weights(network, tmp_path / "w.safetensors")
    victim = find.points_victim(data, victim=str(tmp_path / "w.safetensors"), model="resnet8")
    attack = "advmask.published(eps=0.3, step_size=0.15, steps=24, start_steps=6)"
    with pytest.raises(Stopped, match="stopped after 1 of 3 blocks"):
        find.adversarial(
            data, workspace, Silent(), victim=victim, attack_text=attack,
            stop=lambda: finished() == 1,
        )  # fmt: skip
    found = find.adversarial(
        data, workspace, Silent(), victim=victim, attack_text=attack,
        executor=Processes(2, threads=torch.get_num_threads()),
    )  # fmt: skip
    other = Workspace(results=tmp_path / "other")
    whole = find.adversarial(data, other, Silent(), victim=victim, attack_text=attack)
    assert same(found, whole)
    assert found.about["victim"] == victim.name
    assert str(tmp_path) not in json.dumps(found.about)


@pytest.mark.slow
def test_the_victim_model_may_be_a_file_of_weights(data: Dataset, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weight_files.save_weights(networks.build_for(data, "resnet8", seed=1), weights)
    given = [
        *("--victim", str(weights), "--model", "resnet8", "--mean", "0.4", "--std", "0.3"),
        *("--data", "digits(train=40, test=20)", "--attack", ATTACK),
        *("--results", str(tmp_path / "a"), "--quiet"),
    ]
    result = CliRunner().invoke(main, ["points", "build", *given, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    part = catalog.load("digits(train=40, test=20)")
    network = pretrained.from_file(weights, "resnet8", part, [0.4], [0.3])
    images = part.train.images.float() / 255
    with torch.no_grad():
        labels = network(images).argmax(1)
    attack = registry.build("attacks", ATTACK, eps=0.5)
    draws = [seeds.generator(0, "points", index) for index in range(40)]
    changed = (attack(network, images, labels, draws) != images).any(1)
    counts = changed.flatten(1).sum(1).float()
    assert told["summary"]["points_mean"] == pytest.approx(counts.mean().item())
    assert told["about"]["victim"] == (
        f"resnet8 w.safetensors {pretrained.check(weights)} mean=0.4 std=0.3"
    )
    api = find.find_points(
        "resnet8", part, victim=str(weights), mean=(0.4,), std=(0.3,), attack=ATTACK,
        results=tmp_path / "b", quiet=True,
    )  # fmt: skip
    assert torch.equal(api.guide()[:, 0], changed)
    assert [each.name for each in (tmp_path / "a" / "points").glob("*.safetensors")] == [
        each.name for each in (tmp_path / "b" / "points").glob("*.safetensors")
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--victim", "resnet8"), "is the name of a network: train it on the dataset with --model"),
        (("--victim", "w.safetensors"), "there is no file of weights w.safetensors"),
        (
            ("--victim", "w.safetensors", "--model", "resnet8"),
            "there is no file of weights w.safetensors",
        ),
        (("--mean", "0.5"), "--mean and --std need --victim"),
    ],
)
def test_a_victim_model_that_cannot_be_meant_is_refused(
    given: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, ["points", "build", *given, "--results", str(tmp_path)])
    assert result.exit_code != 0
    assert message in result.output
    assert not list(tmp_path.glob("points/*"))


def test_a_search_says_beforehand_what_it_costs(tmp_path: Path) -> None:
    asked = ["points", "build", "--dry-run", "--data", "digits(train=300, test=20)"]
    asked += ["--results", str(tmp_path)]
    told = CliRunner().invoke(main, asked).stdout
    assert told.startswith(
        "300 images, 883 to 1,604 forward and backward passes each: as many as in about 440 to 800 "
        "epochs of training on these images. Estimated time: "
    )
    assert not list(tmp_path.glob("**/*.safetensors"))
    once = CliRunner().invoke(main, [*asked, "--attack", "pgd(steps=40)"]).stdout
    assert "300 images, 82 forward and backward passes each: as many as in about 41 epoch" in once
    numbers = json.loads(CliRunner().invoke(main, [*asked, "--json"]).stdout)
    assert (numbers["epochs"], numbers["most_epochs"]) == (441.5, 802)
    assert numbers["left"] == 300
    assert 0 < numbers["seconds"] < numbers["most_seconds"]


def test_the_cost_is_that_of_what_is_left(data: Dataset, tmp_path: Path) -> None:
    workspace = Workspace(results=tmp_path)
    search = find.Search.of(data, workspace, attack_text=ATTACK)
    assert [block.number for block in search.blocks] == list(range(12))
    about = json.loads(search.blocks[2].about)
    block = dataclasses.replace(some(data), about=some(data).about | about)
    block.save(search.blocks[2].path)
    cost = search.cost(data, workspace)
    assert (cost.images, cost.left) == (1438, 1438 - 128)
    assert "1,438 images, of which 1,310 are left, " in str(cost)
    block.save(search.path)
    assert search.cost(data, workspace).left == 0


def test_a_search_that_finds_nothing_leaves_no_file(data: Dataset, tmp_path: Path) -> None:
    network = networks.build_for(data, "resnet8", seed=0)
    attack = "noise(count=1, eps=0.0001)"
    with pytest.raises(
        ValueError,
        match=r"no points: .* a larger eps than that of noise\(eps=0.0",
    ):
        find.adversarial(
            data, Workspace(results=tmp_path), Silent(), victim=network, attack_text=attack
        )
    assert not list(tmp_path.glob("points/*.safetensors"))


def test_points_are_found_by_an_attack_that_is_an_object(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = (torch.rand(6, 1, 4, 4) * 255).round() / 255
    data = TensorDataset(images, network(images).argmax(1))
    search = functools.partial(find_points, network, data, results=tmp_path, quiet=True)
    named = search(attack="sigma-zero(eps=0.5, steps=20)")
    found = search(attack=SigmaZero(eps=0.5, steps=20))
    assert torch.equal(found.places, named.places)
    assert len(list(tmp_path.glob("points/*.safetensors"))) == 1
    assert search(attack=SigmaZero(steps=20)).about["attack"] == "sigma-zero(steps=20)"
    with pytest.raises(ValueError, match="has a network as an option"):
        search(attack=GreedyFool(distortion=nn.Identity()))


@pytest.mark.parametrize("right", [0, 1, 6])
def test_a_victim_model_that_is_wrong_on_the_images_is_refused_or_said(
    right: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = (torch.rand(6, 1, 4, 4) * 255).round() / 255
    labels = network(images).argmax(1)
    labels[right:] = (labels[right:] + 1) % 3
    search = functools.partial(
        find_points, network, TensorDataset(images, labels), attack="jsma(eps=1.0)",
        results=tmp_path,
    )  # fmt: skip
    if right:
        assert search().summary()["victim_accuracy"] == right / 6
    else:
        with pytest.raises(ValueError, match="classifies none of the 6 training images correctly"):
            search()
        assert not list(tmp_path.glob("points/*.safetensors"))
    assert ("classifies only 16.7% of the training" in capsys.readouterr().err) == (right == 1)


def test_the_cost_is_said_before_the_first_block(data: Dataset, tmp_path: Path) -> None:
    lines: list[str] = []

    class Listening(Silent):
        def say(self, line: str) -> None:
            lines.append(line)

    network = networks.build_for(data, "resnet8", seed=0)
    workspace = Workspace(results=tmp_path)
    with pytest.raises(Stopped, match="stopped after 0 of 12 blocks"):
        find.adversarial(data, workspace, Listening(), victim=network, stop=lambda: True)
    (line,) = lines
    assert line.startswith("Finding adversarial points: 1,438 images, 883 to 1,604 forward and ")


def test_the_training_of_a_victim_model_is_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog.load("digits(train=4, test=20)")
    recipe = dataclasses.replace(find.points_victim(data).recipe, epochs=2)
    victims.obtain(recipe, Workspace(results=tmp_path), Lines(every=0.0))
    assert "victim model, resnet8, seed 0: 2/2" in capsys.readouterr().err


@pytest.mark.parametrize(("train", "epochs"), [(4, 500), (100, 500), (1000, 100)])
def test_the_victim_model_of_a_part_is_trained_longer_but_not_for_ever(
    train: int, epochs: int
) -> None:
    recipe = find.points_victim(catalog.load(f"digits(train={train}, test=20)")).recipe
    assert recipe is not None
    assert recipe.epochs == epochs
