"""Fast points: predicted by one network, for the right dataset and victim, at a known cost."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import bench
from attacks import AdvMask, Goal
from attacks.advmask_published import PublishedAdvMask
from bench.cli import main
from bench.data import catalog, dataset
from bench.data.dataset import Dataset
from bench.errors import Missing, Stopped
from bench.execution.processes import Processes
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.points import coverage, estimator, fast, find
from bench.points.agreement import shares
from bench.points.cost import Counted
from bench.points.predicting import Fast, Trained, is_fast
from bench.points.store import Points
from bench.records.coverage import NAMES
from bench.studies.tracking import TrackingOptions

FEW = "advmask.fast(examples=24, check=8)"
DIGITS = "digits(train=200)"
PLACES = (9, 12, 18, 27, 36, 45, 50, 53)
"""The pixels that `Ridge` looks at, of 64."""


class Ridge(nn.Module):
    """Two classes by the sum of a few pixels; no other pixel can matter to an attack."""

    def __init__(self, places: tuple[int, ...] = PLACES) -> None:
        super().__init__()
        weight = torch.zeros(64)
        weight[list(places)] = 1.0
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        score = (images.flatten(1) - 0.5) @ self.weight
        return torch.stack([score, -score], dim=1)


def few(count: int = 96, seed: int = 0, side: int = 8, name: str = "few") -> Dataset:
    """Grey images of both of `Ridge`'s classes."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(120, 137, (count + 2, 1, side, side), generator=draws, dtype=torch.uint8)
    labels = torch.arange(count + 2) % 2
    return dataset.from_arrays(name, images[2:], labels[2:], images[:2], labels[:2])


def made(
    place: Path, text: str = FEW, network: nn.Module | None = None, **more: Any
) -> tuple[Workspace, Dataset, Points]:
    workspace, data = Workspace(results=place), few()
    workspace.adopt(data)
    found = find.adversarial(
        data, workspace, Silent(), victim=network or Ridge(), attack_text=text, **more
    )
    return workspace, data, found


@pytest.fixture(scope="module", autouse=True)
def _trained_soon() -> Iterator[None]:
    """The usual victim model of a part of a dataset sees 100,000 images; fewer will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.training.victims.PASSES", 2000)
        yield


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the usual victim model of `DIGITS`, which takes longer to train than all else."""
    workspace = Workspace(results=tmp_path_factory.mktemp("victims"))
    find.points_victim(catalog.load(DIGITS)).load(workspace, Silent())
    return workspace.cache / "victims"


def estimator_file(place: Path) -> Path:
    (found,) = (place / "cache" / "estimators").glob("*.safetensors")
    return found


def test_the_points_of_a_victim_that_sees_few_pixels_are_those_pixels(tmp_path: Path) -> None:
    _, _, found = made(tmp_path)
    seen = torch.zeros(64, dtype=torch.bool)
    seen[list(PLACES)] = True
    predicted = found.guide().flatten(1)
    assert found.counts.min() >= 4
    assert found.counts.max() <= len(PLACES)
    assert not (predicted & ~seen).any()
    assert found.about["agreement"]["found"] > 5 * found.about["agreement"]["chance"]


def test_the_gains_of_a_linear_victim_are_its_weights(tmp_path: Path) -> None:
    images = few().train.images[:5].float() / 255
    walk = estimator.walk(Ridge(), images, 3, 0.1)
    for gains in walk.gains.flatten(2).unbind(1):
        # a gradient of l1 norm 1 over eight equal pixels, times a change of 0.1
        expected = torch.zeros(64)
        expected[list(PLACES)] = 0.1 / len(PLACES)
        assert torch.allclose(gains, expected.expand(5, -1), atol=1e-6)
    assert torch.equal(walk.labels, Ridge()(images).argmax(1))


def test_passes_are_counted_as_an_independent_counter_does(tmp_path: Path) -> None:
    class Watched(Ridge):
        forwards, backwards = 0, 0

        def forward(self, images: Tensor) -> Tensor:
            type(self).forwards += len(images)
            if images.requires_grad:
                images.register_hook(self.back)
            return super().forward(images)

        def back(self, gradient: Tensor) -> None:
            type(self).backwards += len(gradient)

    _, data, found = made(tmp_path, network=Watched())
    workspace = Workspace(results=tmp_path)
    trained = Trained.load(estimator_file(workspace.results))
    n, own = len(data.train.labels), trained.about["cost"]
    # one image measures how long a pass takes, one counts its operations, and one shows how many
    # classes the network has: none is a point's
    inside = own["share_of_pass"] * (fast.STEP * estimator.EPOCHS * 24 + 8)
    counted = found.about["passes"] + own["passes"] - inside
    assert found.about["passes"] == n * (2 * 3 + 1)
    measuring = Watched.forwards + Watched.backwards - counted
    timing = [8, 8, n, n]  # `cost.measured`: forward and backward of each
    assert measuring == 2 * sum(timing) + 2
    cost = found.about["cost"]
    assert cost["passes"] == pytest.approx((counted + inside) / n + own["share_of_pass"])
    assert cost["epochs"] == cost["passes"] / 2


def test_the_planned_cost_is_that_without_second_tries(tmp_path: Path) -> None:
    _, data, found = made(tmp_path, "advmask.fast(examples=24, check=8, refine=2)")
    how, n = Fast.read(found.about["attack"]), len(data.train.labels)
    shape = (1, 8, 8)
    each = 2 * 3 + 1 + how.built.shortened(2).usual_passes(shape) + 1
    examples = 24 * how.built.shortened().usual_passes(shape) + 8 * 883
    assert fast.planned(how, n, shape) == -(-(n * each + examples) // n)
    assert fast.planned(how, n, shape) <= found.about["cost"]["passes"]


@pytest.mark.slow
def test_the_same_points_come_again_from_other_processes_and_after_an_interruption(
    victims: Path, tmp_path: Path,
) -> None:  # fmt: skip
    data = catalog.load(DIGITS)
    once, again = Workspace(results=tmp_path / "once"), Workspace(results=tmp_path / "again")

    def search(workspace: Workspace, **more: Any) -> Points:
        shutil.copytree(victims, workspace.cache / "victims", dirs_exist_ok=True)
        victim = find.points_victim(data, model="resnet8")
        return find.adversarial(data, workspace, Silent(), victim=victim, attack_text=FEW, **more)

    first = search(once)
    calls = iter([False] * 2)
    with pytest.raises(Stopped):
        search(again, stop=lambda: next(calls, True))
    assert not list((again.results / "points").glob("*.safetensors"))
    second = search(again, executor=Processes(2))
    assert torch.equal(first.places, second.places)
    assert torch.equal(first.offsets, second.offsets)
    for name in ("estimator", "agreement", "passes"):
        assert first.about[name] == second.about[name]


def test_a_damaged_estimator_is_trained_again_to_the_same(tmp_path: Path) -> None:
    workspace, data, first = made(tmp_path)
    path = estimator_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: its checksum differs"):
        Trained.load(path)
    for stored in (tmp_path / "points").glob("*.safetensors"):
        stored.unlink()
    second = find.adversarial(data, workspace, Silent(), victim=Ridge(), attack_text=FEW)
    assert torch.equal(first.places, second.places)
    assert Trained.load(path).digest == first.about["estimator"] == second.about["estimator"]


def test_an_estimator_lacks_nothing_that_is_used_of_it(tmp_path: Path) -> None:
    made(tmp_path)
    path, given = estimator_file(tmp_path), tmp_path / "given.safetensors"
    whole = Trained.load(path)
    used = ("attack", "examples", "check", "gradients", "channels", "density", "agreement", "cost")
    broken = [{name: value for name, value in whole.about.items() if name != lost} for lost in used]
    for name in ("passes", "seconds", "share_of_pass"):
        cost = {one: value for one, value in whole.about["cost"].items() if one != name}
        broken.append(whole.about | {"cost": cost})
    wrong = {
        "attack": 3, "examples": "24", "check": 0, "density": "1", "agreement": {"found": "all"}
    }  # fmt: skip
    broken += [whole.about | {name: value} for name, value in wrong.items()]
    for about in broken:
        Trained.of(whole.network, about).save(given)
        with pytest.raises(ValueError, match=r"given\.safetensors does not hold an estimator of"):
            Trained.load(given)
    Trained.of(whole.network, whole.about).save(given)
    assert Trained.load(given).digest == whole.digest


def test_no_estimator_is_kept_that_has_no_points_to_learn_from(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="found no points in any of the 24 images to learn"):
            made(tmp_path, FEW.replace("advmask.fast(", "advmask.fast(attack='noise(eps=1e-9)', "))
    assert not list(tmp_path.glob("cache/estimators/*.safetensors"))


def test_what_records_say_of_predicted_points(tmp_path: Path) -> None:
    _, _, found = made(tmp_path)
    known = coverage.of_search(found)
    assert known["points_agreement"] == found.about["agreement"]["found"]
    assert known["points_epochs"] == found.about["cost"]["epochs"]
    assert known.keys() <= set(NAMES)


def test_a_stored_estimator_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    monkeypatch.setattr(fast, "_train", lambda *given: pytest.fail("trained again"))
    _, _, refined = made(tmp_path, FEW.replace(")", ", refine=4)"))
    assert refined.about["attack"] == FEW.replace(")", ", refine=4)")


@pytest.mark.parametrize(
    ("data", "victim", "said"),
    [
        (few(seed=1, name="other"), Ridge(), "belongs to the dataset few ("),
        (few(side=9, name="large"), Ridge(), "is for images of 1x8x8, not 1x9x9 as in large"),
        (few(), Ridge(PLACES[:4]), "belongs to the victim model Ridge ("),
    ],
)
def test_an_estimator_of_something_else_is_refused_by_name(
    tmp_path: Path, data: Dataset, victim: nn.Module, said: str
) -> None:
    workspace, _, _ = made(tmp_path)
    trained = Trained.load(estimator_file(tmp_path))
    line = rf"^the estimator {trained.digest} {re.escape(said)}.*; train one with: bench .* --fast$"
    with pytest.raises(ValueError, match=line):
        trained.fits(data, find.describe(victim))
    with pytest.raises(ValueError, match=line):
        fast.give(estimator_file(tmp_path), workspace, data, find.describe(victim), Fast())


def test_an_estimator_from_elsewhere_gives_the_same_points(tmp_path: Path) -> None:
    _, data, first = made(tmp_path / "a")
    other = Workspace(results=tmp_path / "b")
    identity = find.describe(Ridge())
    how = fast.give(estimator_file(tmp_path / "a"), other, data, identity, Fast())
    assert how.estimator == first.about["estimator"]
    assert (how.examples, how.check) == (24, 8)
    _, _, second = made(tmp_path / "b", str(how))
    assert torch.equal(first.places, second.places)
    with pytest.raises(Missing, match=r"the estimator 0123456789ab is not in .*--estimator FILE"):
        made(tmp_path / "c", "advmask.fast(estimator='0123456789ab')")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--refine", "5"], "--refine has no effect on points without --fast; remove it"),
        (["--fast", "--estimator", __file__], "is not a safetensors file"),
        (["--fast", "--attack", "sigma-zero", "--refine", "3"], "sigma-zero cannot start from"),
    ],
)
def test_the_command_refuses_what_cannot_be(tmp_path: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["points", "build", "--results", str(tmp_path), *options])
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_prints_cost_and_agreement(victims: Path, tmp_path: Path) -> None:
    shutil.copytree(victims, tmp_path / "cache" / "victims")
    options = ["--data", DIGITS, "--fast", "--examples", "24", "--exact-images", "8"]
    done = CliRunner().invoke(
        main, ["points", "build", *options, "--results", str(tmp_path), "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"passes", "epochs", "seconds", "exact_passes"} <= found["cost"].keys()
    assert {"found", "near", "chance", "images"} <= found["agreement"].keys()
    assert found["about"]["attack"].startswith("advmask.fast(")
    # a record of a training with them says so, and old recipes keep their keys
    assert find.chosen_attack("cifar10", "advmask.fast") == "advmask.fast"


def test_the_text_of_fast_points_is_read_as_it_is_written() -> None:
    for how in (Fast(), Fast(refine=10), Fast(attack="sigma-zero", examples=7, check=3)):
        assert Fast.read(str(how)) == how
        assert is_fast(str(how))
    with pytest.raises(ValueError, match=r"advmask.fast has no option 'step'; it has: attack"):
        Fast.read("advmask.fast(step=3)")
    with pytest.raises(ValueError, match=r"advmask.fast: gradients is 0: it must be at least 1"):
        Fast.read("advmask.fast(gradients=0)")


@pytest.mark.slow
def test_a_training_can_use_fast_points_by_name(victims: Path, tmp_path: Path) -> None:
    shutil.copytree(victims, tmp_path / "cache" / "victims")
    study = bench.compare(
        ["advmask"], data=DIGITS, model="resnet8", seeds=1, epochs=1,
        points=FEW, results=tmp_path, quiet=True, tracking=TrackingOptions(no_tracking=True),
    )  # fmt: skip
    (record,) = study.records
    assert "advmask.fast(" in record.job["points"]
    assert record.metrics["points_mean"] > 1
    stored = bench.load_points(DIGITS, results=tmp_path)
    assert record.metrics["points_agreement"] == stored.about["agreement"]["found"]
    assert record.metrics["points_epochs"] == stored.about["cost"]["epochs"]


def test_codes_that_are_decided_stay_where_the_attack_starts() -> None:
    """The attack from known codes has hardly moved after one step of a tiny learning rate."""
    images = few().train.images[:6].float() / 255
    wanted = torch.zeros(6, 64)
    wanted[:, list(PLACES)] = 1.0
    codes = 2 * wanted - 1
    attack = PublishedAdvMask(eps=0.3, steps=2, start_steps=3, step_size=0.15, lr=1e-9)
    goal = Goal(Ridge()(images).argmax(1))
    draws = [torch.Generator().manual_seed(i) for i in range(6)]
    found = attack.refine(Ridge(), images, goal, draws, codes)
    changed = (found != images).flatten(1)
    assert torch.equal(changed, wanted.bool())
    assert goal.reached(Ridge()(found)).all()
    large = torch.rand(1, 1, 80, 80)
    with pytest.raises(ValueError, match="only the fully-connected encoder can start from known"):
        attack.refine(Ridge(), large, Goal(torch.zeros(1).long()), draws[:1], codes[:1])


def test_a_shortened_attack_moves_its_codes_as_far() -> None:
    whole = AdvMask.published()
    short = whole.shortened(20)
    assert (short.steps, short.start_steps) == (20, 5)
    assert short.lr * short.steps == pytest.approx(whole.lr * whole.steps)
    assert short.usual_passes((3, 32, 32)) == 2 * 5 + 2 * 20 + 3


def test_as_many_points_as_the_probabilities_add_up_to() -> None:
    scores = torch.full((2, 1, 4, 4), -torch.inf)
    scores[0, 0, 1, :3] = torch.inf  # probability 1 each
    scores[1, 0, 0] = 0.0  # 1/2 each
    counts = estimator.expected(scores, 1.0)
    assert counts.tolist() == [3, 2]
    assert estimator.expected(scores, 2.0).tolist() == [6, 4]
    assert estimator.expected(scores, 99.0).tolist() == [16, 16]
    assert estimator.chosen(scores, counts)[0, 1, :3].all()


@pytest.mark.parametrize("side", [5, 28, 32, 64])
def test_the_estimator_takes_images_of_any_size(side: int) -> None:
    network = estimator.Estimator(3, 2).eval()
    scores = network(torch.rand(2, 3, side, side), torch.rand(2, 2, side, side))
    assert scores.shape == (2, 1, side, side)


def test_shares_of_random_points_are_those_of_chance() -> None:
    draws = torch.Generator().manual_seed(0)
    exact, others = (torch.rand(400, 32, 32, generator=draws) < p for p in (0.15, 0.1))
    found = shares(exact, others)
    assert found["found"] == pytest.approx(0.1, abs=0.003)
    assert found["right"] == pytest.approx(0.15, abs=0.003)
    assert found["chance"] == pytest.approx(0.1, abs=0.001)
    # nine neighbours inside, six at an edge, four in a corner
    near = [30**2 * (1 - 0.9**9), 4 * 30 * (1 - 0.9**6), 4 * (1 - 0.9**4)]
    assert found["near"] == pytest.approx(sum(near) / 32**2, abs=0.01)


def test_the_counter_counts_images_and_gradients() -> None:
    network: Callable[[Tensor], Tensor] = (counted := Counted(Ridge()))
    images = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        network(images)
    assert counted.passes == 5
    network(images.requires_grad_(True)).sum().backward()
    assert counted.passes == 15
