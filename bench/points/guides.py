"""Guides: one map per image of how important each pixel is to an augmentation.

Fixed guides are computed once per training set and follow crop and flip: the adversarial points and
their controls (Table 7 of the paper). KeepAugment's saliency is not fixed: it is computed from the
network in training at each step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from attacks.norms import largest
from bench.data import file_images, seeds
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.errors import suggest
from bench.execution.executors import Executor
from bench.execution.progress import Progress, Silent
from bench.execution.workspace import Workspace
from bench.files import atomic, tensor_files
from bench.files.checksums import key
from bench.models.saliency import saliency
from bench.points import coverage, find
from bench.points.store import Points
from bench.registry import notation
from bench.training import live_saliency
from bench.training.recipes import Recipe

RESPONSES = 256  # images that are made grey at a time
FIXED = {
    "attack": "pixels that a sparse attack changes (the default of AdvMask)",
    "random": "random pixels, as many as adversarial points",
    "corners": "corners found by a Harris detector, as many as it finds",
    "corners-matched": "strongest Harris responses, as many as adversarial points",
    "saliency": "largest gradients of the label's logit, as many as adversarial points",
    "everywhere": "every pixel: the squares of AdvMask anywhere",
}
"""Fixed guides by name; any other name refers to imported points."""


def needed(recipe: Recipe) -> str | None:
    """Return the name of the fixed guide that a recipe needs, or None.

    Args:
        recipe: The recipe.
    """
    wanted = None if live_saliency.follows(recipe) else recipe.augmentation.wants
    if any(name is not None and name.startswith("ipf-") for name in (recipe.policy, recipe.mix)):
        wanted = wanted or "attack"
    return None if wanted is None else recipe.guide or wanted


OF_POINTS = ("attack", "random", "corners-matched", "saliency")
"""Guides that need the adversarial points: where they are, or how many."""


def from_points(recipe: Recipe) -> bool:
    """Whether the recipe's guide depends on the adversarial points."""
    return needed(recipe) in OF_POINTS


def takes(recipe: Recipe) -> bool:
    """Return whether a fixed guide would change how a recipe trains."""
    return live_saliency.follows(recipe) or needed(recipe) is not None


def fixed(
    name: str,
    data: Dataset,
    workspace: Workspace,
    progress: Progress,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
    attack: str | None = find.SPARSE,
) -> Bool[Tensor, "n 1 h w"]:
    """Return a fixed guide for the training images of a dataset; it is computed once and stored.

    Args:
        name: One of `FIXED`, or the name of imported points.
        data: Dataset with n training images of h times w pixels.
        workspace: Where points and guides are stored.
        progress: Shows the computation.
        executor: Where adversarial points are found, if they are not stored yet.
        stop: Whether to stop soon.
        attack: The attack that finds adversarial points; None: the dataset's own.

    Returns:
        One map per training image, True at the pixels of the guide.

    Raises:
        ValueError: The name is neither a guide nor imported points.
        Stopped: ``stop()`` returned True.
    """
    n, _, h, w = data.train.images.shape
    if (need := n * h * w) > file_images.LARGEST_IN_MEMORY:
        raise ValueError(
            f"the guides of {n} images of side {w} need {need / 1e9:.1f} GB of memory: take a part "
            f'such as "{notation.whole(data.name)}(train=20000)", or an augmentation without points'
        )
    if name == "everywhere":
        return torch.ones(n, 1, h, w, dtype=torch.bool)
    if name not in FIXED:
        return imported(name, data, workspace)
    points = None
    if name != "corners":
        points = find.adversarial(
            data, workspace, progress, attack_text=attack, executor=executor, stop=stop
        )
    if name == "attack":
        assert points is not None
        return points.guide()
    made_from = {} if points is None else {**points.about, "seconds": None}
    about = {"guide": name, "digest": data.digest, "points": made_from}
    path = workspace.cache / "guides" / f"{name}-{key(about)}.safetensors"
    try:
        return tensor_files.read(path)[0]["guide"]
    except (FileNotFoundError, ValueError, KeyError):
        pass
    if points is None:
        guide = corners(data, progress)
    else:
        guide = strongest(scores(name, data, workspace, progress), points.counts)
    atomic.write(path, tensor_files.pack({"guide": guide}, {}))
    return guide


def scores(
    name: str, data: Dataset, workspace: Workspace, progress: Progress
) -> Float[Tensor, "n 1 h w"]:
    """Return the score by which a control ranks the pixels of each training image.

    Args:
        name: ``"random"``, ``"corners-matched"`` or ``"saliency"``.
        data: The dataset.
        workspace: Where the victim model is stored.
        progress: Shows the computation.
    """
    if name == "random":
        n, _, h, w = data.train.images.shape
        return torch.rand(n, 1, h, w, generator=seeds.generator(0, "guides", "random"))
    if name == "corners-matched":
        return responses(data, progress)
    network = find.points_victim(data).load(workspace, progress)
    return gradients(data, network, workspace.device)


def imported(name: str, data: Dataset, workspace: Workspace) -> Bool[Tensor, "n 1 h w"]:
    """Return the guide of points that were imported under a name.

    Args:
        name: The name.
        data: The dataset, with n training images of h times w pixels.
        workspace: The results folder.

    Raises:
        ValueError: There are no such points, or they belong to another dataset.
    """
    return imported_points(name, data, workspace).guide()


def imported_points(name: str, data: Dataset, workspace: Workspace) -> Points:
    """Return the points that were imported under a name; arguments and errors as in `imported`."""
    path = workspace.results / "points" / f"{name}.safetensors"
    if not path.exists():
        known = [*FIXED, *sorted(file.stem for file in path.parent.glob("*.safetensors"))]
        raise ValueError(f"there is no guide {name!r}: {suggest(name, known)}")
    found = Points.load(path)
    found.fits(data)
    return found


def evidence(
    recipe: Recipe, guide: Bool[Tensor, "n 1 h w"], data: Dataset, workspace: Workspace
) -> dict[str, float]:
    """Return what a record says about the points of its guide.

    `bench.records.coverage.OF_POINTS` has the names.

    Args:
        recipe: A recipe with a fixed guide.
        guide: The guide that `fixed` gave.
        data: The dataset.
        workspace: Where the points are stored.

    Returns:
        Statistics of the points, and how their search went where the guide depends on one; empty
        for the guide ``"everywhere"``, which has no points.
    """
    name = needed(recipe)
    if name is None or name == "everywhere":
        return {}
    found = coverage.of_guide(guide)
    if name in OF_POINTS:
        attack = recipe.points or find.SPARSE
        points = find.adversarial(data, workspace, Silent(), attack_text=attack)
        found |= coverage.of_search(points)
    elif name not in FIXED:
        found |= coverage.of_search(imported_points(name, data, workspace))
    return found


def gradients(
    data: Dataset,
    network: nn.Module,
    device: str,
    batch_size: int = 256,
    ids: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 1 h w"]:
    """Return the saliency of training images under a trained network.

    Args:
        data: The dataset.
        network: The network, in eval mode.
        device: Device of the network.
        batch_size: Images per batch.
        ids: Indices of the images; None: all.
    """
    found = []
    ids = torch.arange(len(data.train.labels)) if ids is None else ids
    for some in ids.split(batch_size):
        images = as_floats(data.train.images[some], device)
        found.append(saliency(network, images, data.train.labels[some].to(device)).cpu())
    return torch.cat(found)


def responses(data: Dataset, progress: Progress) -> Float[Tensor, "n 1 h w"]:
    """Return the response of a Harris detector at every pixel of every training image."""
    n, _, h, w = data.train.images.shape
    found = torch.empty(n, 1, h, w)
    with progress.task("Harris corner responses", n) as advance:
        for places in torch.arange(n).split(RESPONSES):
            found[places] = harris(data.train.images[places])
            advance(len(places))
    return found


def harris(images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the response of a Harris detector at every pixel of some images."""
    from skimage.feature import corner_harris

    grey = images.float().mean(1) / 255
    return torch.stack([torch.from_numpy(corner_harris(each)).float() for each in grey.numpy()])[
        :, None
    ]


def corners(data: Dataset, progress: Progress) -> Bool[Tensor, "n 1 h w"]:
    """Return the peaks of the Harris response, True at each."""
    from skimage.feature import corner_peaks

    found = responses(data, progress)
    guide = torch.zeros_like(found, dtype=torch.bool)
    for i, response in enumerate(found.numpy()):
        peaks = torch.from_numpy(corner_peaks(response[0], min_distance=1, threshold_rel=0.01))
        guide[i, 0, peaks[:, 0], peaks[:, 1]] = True
    return guide


def strongest(
    scores: Float[Tensor, "n 1 h w"], counts: Int[Tensor, " n"]
) -> Bool[Tensor, "n 1 h w"]:
    """Return the pixels of the highest scores of each map.

    Args:
        scores: One map per image.
        counts: Number of pixels per image.
    """
    return largest(scores.flatten(1), counts).reshape(scores.shape)


def check(recipe: Recipe, data: Dataset, workspace: Workspace) -> None:
    """Check the guide of a recipe before anything is run.

    Raises:
        ValueError: The guide does not exist or belongs to another dataset.
    """
    name = needed(recipe)
    if name is not None and name not in FIXED:
        imported(name, data, workspace)
