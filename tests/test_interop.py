"""Other libraries' erasers as augmentations, and augmentations inside other libraries."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from timm.data import create_loader
from timm.data.random_erasing import RandomErasing as TimmErasing
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from augmentations import (
    BUILTIN,
    AdvMask,
    Augmentation,
    Cutout,
    GridMask,
    HideAndSeek,
    KeepAugment,
    Ramp,
    RandomErasing,
    _torchvision,
)
from augmentations.interop import Foreign, MaskedLoader, as_albumentations, as_torchvision

GREY, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
POINTS = AdvMask(length=(1, 1), ratio=(1.0, 1.0), share=Ramp(1.0))  # deletes exactly the points


def stream(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


ERASERS = {
    "torchvision": v2.RandomErasing(p=1.0),
    "timm": TimmErasing(probability=1.0, mode="pixel", device="cpu"),
    "albumentations": albumentations.Erasing(scale=(0.1, 0.3), p=1.0),
    "albumentations, white": albumentations.CoarseDropout(fill=255, p=1.0),
    "pipeline": albumentations.Compose(
        [albumentations.CoarseDropout((1, 1), (4, 4), (4, 4), p=1.0)] * 2
    ),
}


@pytest.mark.parametrize("name", ERASERS)
def test_any_eraser_is_an_augmentation(name: str) -> None:
    method = Foreign(ERASERS[name])
    assert isinstance(method, Augmentation)
    images = torch.rand(6, 3, 24, 32)
    before = images.clone(), torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    mask = method.mask(images, stream())
    assert mask.shape == (6, 1, 24, 32)
    assert mask.flatten(1).any(1).all()
    assert len(mask.flatten(1).unique(dim=0)) == 6
    assert torch.equal(mask, method.mask(images, stream()))
    assert not torch.equal(mask, method.mask(images, stream(1)))
    assert torch.equal(images, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert np.array_equal(np.random.get_state()[1], before[3][1])  # noqa: NPY002


def test_an_eraser_s_pixels_are_those_it_was_told_to_erase() -> None:
    method = Foreign(v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value="random"))
    mask = method.mask(torch.zeros(50, 1, 16, 16), stream())
    assert (mask.sum((1, 2, 3)) == 64).all()
    rows = mask[:, 0].any(2).sum(1)
    assert (rows == 8).all()
    assert method.mask(torch.zeros(0, 3, 8, 8), stream()).shape == (0, 1, 8, 8)


def test_siblings_of_an_albumentations_pipeline_draw_apart() -> None:
    mask = Foreign(ERASERS["pipeline"]).mask(torch.zeros(40, 3, 32, 32), stream())
    assert (mask.sum((1, 2, 3)) > 16).float().mean() > 0.8


def image(kind: type = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(1, 256, (32, 40, 3)).astype(np.uint8)
    return values if kind is np.uint8 else (values / np.float32(255)).astype(np.float32)


def side_data(method: Augmentation) -> dict[str, Any]:
    if method.wants is None:
        return {}
    return {"guide": np.random.default_rng(1).random((32, 40)) ** 8}


@pytest.mark.parametrize("name", sorted(BUILTIN))
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_every_method_works_in_albumentations(name: str, kind: type, tmp_path: Path) -> None:
    method = BUILTIN[name]()
    deletion = as_albumentations(method, mean=(0.1, 0.2, 0.3), std=STD)
    before = image(kind)
    given = before.copy()
    out = albumentations.Compose([deletion], seed=4)(image=given, **side_data(method))["image"]
    assert np.array_equal(given, before)
    assert out.dtype == before.dtype
    assert out.shape == before.shape
    changed = (out != before).any(-1)
    assert changed.any() == (name != "none")
    if method.fill == "mean":
        colour = np.array([0.1, 0.2, 0.3], np.float32)
        colour = (colour * 255).round() if kind is np.uint8 else colour
        assert np.allclose(out[changed], colour)

    path = str(tmp_path / "pipeline.json")
    albumentations.save(albumentations.Compose([deletion]), path)
    loaded = albumentations.load(path)
    assert loaded.transforms[0].augmentation == method
    rebuilt = albumentations.from_dict(json.loads(json.dumps(albumentations.to_dict(deletion))))
    for other in (loaded, rebuilt):
        other.set_random_seed(4)
        assert np.array_equal(other(image=before, **side_data(method))["image"], out)


def test_replay_repeats_the_mask_and_the_noise_and_fits_into_json() -> None:
    deletion = as_albumentations(RandomErasing(), mean=GREY, std=STD)
    pipeline = albumentations.ReplayCompose([albumentations.HorizontalFlip(p=0.5), deletion])
    first = pipeline(image=image())
    record = json.loads(json.dumps(first["replay"], default=lambda value: None))
    assert record["transforms"][1]["params"]["bits"]
    again = albumentations.ReplayCompose.replay(first["replay"], image=image())
    assert np.array_equal(first["image"], again["image"])


def test_points_follow_crops_and_flips_as_keypoints() -> None:
    image = np.zeros((32, 40, 3), np.uint8)
    places = [(3, 5), (30, 20), (12, 31), (39, 0)]  # x, y
    for x, y in places:
        image[y, x] = 255
    moves = [albumentations.RandomCrop(24, 24), albumentations.HorizontalFlip(p=0.5)]
    both = [
        albumentations.Compose(
            transforms,
            keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False),
        )
        for transforms in (moves, [*moves, as_albumentations(POINTS, mean=GREY)])
    ]
    seen = 0
    for seed in range(20):
        outs = []
        for pipeline in both:
            pipeline.set_random_seed(seed)
            outs.append(pipeline(image=image, keypoints=np.array(places, np.float32))["image"])
        assert np.array_equal(outs[1] == 128, outs[0] == 255)
        seen += (outs[1] == 128).any()
    assert seen > 10


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"method": "cutuot"}, "method is 'cutuot': there are: none, cutout"),
        ({"options": {"lenght": 3}}, "lenght"),
        ({"options": {"length": 0}}, "length is 0"),
        ({"p": 1.5}, "less than or equal to 1"),
        ({"mean": "grey"}, "mean"),
    ],
)
def test_albumentations_constructor_refuses_what_is_wrong(wrong: dict[str, Any], text: str) -> None:
    cls = type(as_albumentations(Cutout(), mean=GREY))
    with pytest.raises(ValueError, match=text):
        cls(**wrong)


def test_only_built_in_methods_become_albumentations_transforms() -> None:
    with pytest.raises(ValueError, match="Foreign is not built in"):
        as_albumentations(Foreign(v2.RandomErasing()), mean=GREY)


def test_missing_points_are_told() -> None:
    with pytest.raises(ValueError, match="AdvMask needs a guide"):
        as_albumentations(AdvMask(), mean=GREY)(image=image())
    with pytest.raises(ValueError, match="AdvMask needs a guide"):
        as_torchvision(AdvMask(), mean=GREY)(torch.zeros(3, 8, 8))


def test_what_a_missing_guide_is_passed_as_is_said() -> None:
    with pytest.raises(ValueError, match=r"AdvMask needs a guide.*guide=map or keypoints=points"):
        as_albumentations(AdvMask(), mean=GREY)(image=image())
    with pytest.raises(ValueError, match=r"AdvMask needs a guide.*give tv_tensors.KeyPoints"):
        as_torchvision(AdvMask(), mean=GREY)(torch.zeros(3, 8, 8))
    batches = [(torch.ones(4, 3, 32, 32), torch.arange(4))]
    with pytest.raises(ValueError, match=r"KeepAugment needs a guide: .*give MaskedLoader guide="):
        list(MaskedLoader(batches, KeepAugment(), stream()))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.int64, torch.bool])
def test_tensors_of_other_whole_numbers_are_refused(dtype: torch.dtype) -> None:
    images = torch.ones(3, 16, 16).to(dtype)
    with pytest.raises(ValueError, match=f"images are {dtype}: they must be floats .* or uint8"):
        as_torchvision(Cutout(4), mean=GREY)(images)


def adapted(library: str, **options: Any) -> Any:
    """What deletes from a grey image of one channel."""
    if library == "torchvision":
        return lambda: as_torchvision(Cutout(4), **options)(torch.ones(1, 8, 8))
    if library == "albumentations":
        image = np.ones((8, 8, 1), np.float32)
        return lambda: as_albumentations(Cutout(4), **options)(image=image)
    batches = [(torch.ones(2, 1, 8, 8), torch.arange(2))]
    return lambda: list(MaskedLoader(batches, Cutout(4), stream(), **options))


@pytest.mark.parametrize("library", ["torchvision", "albumentations", "loader"])
def test_a_mean_that_does_not_fit_the_image_is_refused(library: str) -> None:
    with pytest.raises(ValueError, match="mean has 3 values, but the image has 1 channel: give"):
        adapted(library, mean=GREY)()
    adapted(library, mean=(0.5,))()


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
@pytest.mark.parametrize("mean", [(125.0,), (-0.1,), (float("nan"),)])
def test_a_mean_outside_of_0_and_1_is_refused(library: str, mean: tuple[float]) -> None:
    with pytest.raises(ValueError, match=r"mean is \(.*: give values in \[0, 1\]"):
        adapted(library, mean=mean)()


@pytest.mark.parametrize(
    "make",
    [
        lambda: as_torchvision(Cutout, mean=GREY),
        lambda: as_albumentations(Cutout, mean=GREY),
        lambda: MaskedLoader([], Cutout, stream()),
    ],
)
def test_a_class_is_no_augmentation(make: Any) -> None:
    with pytest.raises(ValueError, match=r"such as Cutout\(\), not the class Cutout"):
        make()


class Tensors(Dataset[Tensor]):
    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        if isinstance(self.transform, albumentations.BaseCompose | albumentations.BasicTransform):
            out = self.transform(image=np.full((32, 32, 3), 255, np.uint8))["image"]
            return torch.from_numpy(out).permute(2, 0, 1).float() / 255
        out = self.transform(torch.ones(3, 32, 32))
        assert isinstance(out, Tensor)
        return out


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("library", ["albumentations", "torchvision"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_and_epochs_get_masks_of_their_own(library: str, persistent: bool) -> None:
    def epochs() -> list[Tensor]:
        method = HideAndSeek(sizes=(4,), share=Ramp(1.0))
        transform: Any
        if library == "albumentations":
            transform = albumentations.Compose([as_albumentations(method, mean=GREY)], seed=1)
        else:
            transform = as_torchvision(method, mean=GREY)
            transform(torch.ones(3, 32, 32))  # workers inherit a generator in use
        loader = DataLoader(
            Tensors(transform),
            batch_size=3,
            num_workers=2,
            persistent_workers=persistent,
            generator=stream(),
        )
        return [torch.cat(list(loader)) for _ in range(2)]

    first = epochs()
    assert len(torch.cat(first).flatten(1).unique(dim=0)) == 24
    assert all(torch.equal(*pair) for pair in zip(first, epochs(), strict=True))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_progress_reaches_workers_that_persist(persistent: bool) -> None:
    transform = as_torchvision(Cutout(share=Ramp(0.0, 1.0)), mean=GREY, progress=0.0)
    loader = DataLoader(
        Tensors(transform), 3, num_workers=2, persistent_workers=persistent, generator=stream()
    )
    for progress in (0.0, 1.0, 0.0):
        transform.progress = progress
        masked = (torch.cat(list(loader)) < 1).flatten(1).any(1)
        assert masked.all() if progress else not masked.any()
    assert transform.progress == 0.0


@pytest.mark.slow
def test_coins_are_tossed_apart_in_workers() -> None:
    deletion = as_albumentations(Cutout(), mean=GREY, p=0.5)
    loader = DataLoader(Tensors(deletion), batch_size=None, num_workers=2, generator=stream())
    tossed = [[bool((one < 1).any()) for one in loader] for _ in range(4)]
    assert len({tuple(epoch) for epoch in tossed}) == 4
    assert any(epoch[::2] != epoch[1::2] for epoch in tossed)


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"keepaugment"}))
def test_every_method_works_in_torchvision(name: str) -> None:
    transform = as_torchvision(BUILTIN[name](), mean=(0.25, 0.5, 0.75), std=STD, seed=4)
    batch = tv_tensors.Image(torch.rand(16, 3, 32, 32, generator=stream()))
    corners = torch.rand(16, 40, 2, generator=stream()) * 32
    points = tv_tensors.KeyPoints(corners, canvas_size=(32, 32))
    before, state = batch.clone(), torch.get_rng_state()
    out, kept, labels = transform(batch, points, torch.arange(16))
    assert isinstance(out, tv_tensors.Image)
    assert torch.equal(batch, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(labels, torch.arange(16))
    assert torch.equal(kept, points)
    changed = (out != before).any(1).flatten(1)
    assert changed.any() == (name != "none")
    if name != "none":  # per image, not one for the batch
        assert len(changed.unique(dim=0)) > 6


def test_torchvision_pipelines_move_points_and_pickle() -> None:
    move = v2.Compose([v2.RandomCrop(24), v2.RandomHorizontalFlip()])
    deletion = pickle.loads(pickle.dumps(as_torchvision(POINTS, mean=GREY)))
    image = torch.zeros(3, 32, 40, dtype=torch.uint8)
    places = torch.tensor([[3, 5], [30, 20], [12, 31]])  # x, y
    image[:, places[:, 1], places[:, 0]] = 255
    points = tv_tensors.KeyPoints(places, canvas_size=(32, 40))
    seen = 0
    torch.manual_seed(0)
    for _ in range(20):
        moved, followed = move(tv_tensors.Image(image), points)
        out, _ = deletion(moved, followed)
        assert torch.equal(out == 128, moved == 255)
        seen += bool((out == 128).any())
    assert seen > 5


def test_torchvision_takes_pil_images() -> None:
    image = v2.functional.to_pil_image(torch.full((3, 16, 16), 255, dtype=torch.uint8))
    out = as_torchvision(Cutout(8), mean=GREY)(image)
    assert sorted(set(np.asarray(out).flatten().tolist())) == [128, 255]


class Grey(Dataset[tuple[Any, int]]):
    transform: Any = None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = v2.functional.to_pil_image(torch.full((3, 32, 32), 200, dtype=torch.uint8))
        return self.transform(image), index


def test_a_timm_loader_yields_masked_batches() -> None:
    loader = create_loader(
        Grey(), (3, 32, 32), 4, num_workers=0, device=torch.device("cpu"), persistent_workers=False
    )
    masked = MaskedLoader(loader, GridMask(share=Ramp(0.0, 1.0)), stream())
    assert len(masked) == 2
    plain = list(loader)
    for batch, (images, targets) in enumerate(masked):
        assert torch.equal(targets, plain[batch][1])
        gone = images != plain[batch][0]
        assert gone.flatten(1).any(1).all()
        assert (images[gone] == 0).all()  # the mean colour once normalised
    masked.progress = 0.0
    assert all(torch.equal(one[0], two[0]) for one, two in zip(masked, plain, strict=True))
    masked.mixup_enabled = True  # reaches timm's loader
    assert "mixup_enabled" not in vars(masked)
    assert masked.mixup_enabled == loader.mixup_enabled
    assert masked.dataset is loader.dataset


def test_a_masked_loader_asks_for_guides() -> None:
    batches = [(torch.ones(4, 3, 32, 32), torch.arange(4))]

    def top_half_matters(images: Tensor, targets: Tensor) -> Tensor:
        guide = torch.zeros(len(images), 1, 32, 32)
        guide[:, :, :16] = 1.0
        return guide

    [(images, _)] = MaskedLoader(
        batches, KeepAugment(length=8, quantile=0.2), stream(), top_half_matters
    )
    assert (images[:, :, :16] == 1).all()
    assert (images[:, :, 16:] == 0).any()
    with pytest.raises(ValueError, match="KeepAugment needs a guide"):
        list(MaskedLoader(batches, KeepAugment(), stream()))


@pytest.mark.parametrize(
    "method", [Cutout(points="seek"), RandomErasing(points="avoid"), GridMask(points="seek")]
)
def test_points_of_images_on_a_gpu_become_a_guide_there(method: Augmentation) -> None:
    """Points lie on the processor, where torchvision has them; tensors on CUDA are imitated."""
    transform = as_torchvision(method, mean=GREY)
    points = tv_tensors.KeyPoints(torch.tensor([[1.0, 2], [3, 4]]), canvas_size=(8, 8))
    seen = []

    def devices(_: object, images: Tensor, *__: object, guide: Tensor, **___: object) -> Tensor:
        seen.append((images.device.type, guide.device.type))
        return torch.zeros(1, 1, 8, 8, dtype=torch.bool)

    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_torchvision, "draw", devices)
        patch.setattr(_torchvision, "guided", lambda *_: None)
        patch.setattr(_torchvision, "points_to_guide", lambda _, h, w: torch.zeros(h, w))
        transform.make_params([torch.empty(3, 8, 8, device="cuda"), points])
    assert seen == [("cuda", "cuda")]


def test_one_list_of_points_is_that_of_every_image_of_a_batch() -> None:
    transform = as_torchvision(POINTS, mean=GREY)
    images = tv_tensors.Image(torch.zeros(2, 3, 8, 8))
    for count in (3, 4):
        places = torch.arange(count)[:, None].expand(count, 2)
        out, _ = transform(images, tv_tensors.KeyPoints(places, canvas_size=(8, 8)))
        assert out.any(1).sum((1, 2)).tolist() == [count, count]
    three = tv_tensors.KeyPoints(torch.zeros(3, 1, 2), canvas_size=(8, 8))
    with pytest.raises(
        ValueError, match=r"key points have shape \(3, 1, 2\), the images \(2, 3, 8"
    ):
        transform(images, three)
