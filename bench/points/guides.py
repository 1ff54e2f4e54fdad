"""Guides: a map per picture of how much each pixel matters.

Fixed guides are made once per training set and moved with the crop and the flip; they are the
adversarial points and the controls of the paper's Table 7. KeepAugment's saliency is live: it is
taken from the network in training, at each step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks.norms import largest
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.execution.executors import Executor
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import atomic, tensor_files
from bench.files.checksums import key
from bench.models.saliency import saliency
from bench.points import find
from bench.points.store import Points
from bench.training import victims
from bench.training.loop import live
from bench.training.recipes import Recipe

FIXED = {
    "attack": "where a sparse attack changes the picture (AdvMask's own)",
    "random": "as many points at random places",
    "corners": "the corners that a Harris detector finds, as many as there are",
    "corners-matched": "the strongest corner responses, as many as adversarial points",
    "saliency": "the largest gradients of the label's logit, as many as adversarial points",
    "everywhere": "every pixel: squares at random places",
}
"""Guides by name; any other name is a set of points imported under that name."""


def needed(recipe: Recipe) -> str | None:
    """The fixed guide that a recipe needs, if any."""
    wanted = None if live(recipe) else recipe.augmentation.wants
    if any(name is not None and name.startswith("ipf-") for name in (recipe.policy, recipe.mix)):
        wanted = wanted or "attack"
    return None if wanted is None else recipe.guide or wanted


def takes(recipe: Recipe) -> bool:
    """Whether a fixed guide would change how the recipe trains."""
    return live(recipe) or needed(recipe) is not None


def fixed(
    name: str,
    data: Dataset,
    workspace: Workspace,
    progress: Progress,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Bool[Tensor, "n 1 h w"]:
    """The guide of that name for the training images of a dataset; made once and then loaded.

    Args:
        name: One of `FIXED`, or the name of an imported set of points.
        data: Dataset with n training images of h times w pixels.
        workspace: Where points and guides are kept.
        progress: Shows how far the work has come.
        executor: Where adversarial points are found, if they are not there yet.
        stop: Tells whether to stop soon.

    Returns:
        One map per training image, True where the guide points.

    Raises:
        ValueError: The name is neither a guide nor an imported set of points.
        Stopped: ``stop()`` turned true while the points were found.
    """
    n, _, h, w = data.train.images.shape
    if name == "everywhere":
        return torch.ones(n, 1, h, w, dtype=torch.bool)
    if name not in FIXED:
        return imported(name, data, workspace)
    points = None
    if name != "corners":
        points = find.adversarial(data, workspace, progress, executor=executor, stop=stop)
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
    """What a control ranks the pixels of each training image by."""
    if name == "random":
        n, _, h, w = data.train.images.shape
        return torch.rand(n, 1, h, w, generator=seeds.generator(0, "guides", "random"))
    if name == "corners-matched":
        return responses(data, progress)
    network = victims.obtain(find.points_victim(data), workspace, progress)
    return gradients(data, network, workspace.device)


def imported(name: str, data: Dataset, workspace: Workspace) -> Bool[Tensor, "n 1 h w"]:
    """The guide of a set of points that was imported under a name."""
    path = workspace.results / "points" / f"{name}.safetensors"
    if not path.exists():
        known = [*FIXED, *sorted(file.stem for file in path.parent.glob("*.safetensors"))]
        raise ValueError(f"there is no guide {name!r}: {registry.suggest(name, known)}")
    found = Points.load(path)
    found.fits(data)
    return found.guide()


def gradients(
    data: Dataset, network: nn.Module, device: str, batch_size: int = 256
) -> Float[Tensor, "n 1 h w"]:
    """The saliency of every training picture under a trained network."""
    found = []
    for ids in torch.arange(len(data.train.labels)).split(batch_size):
        images = data.train.images[ids].to(device).float() / 255
        found.append(saliency(network, images, data.train.labels[ids].to(device)).cpu())
    return torch.cat(found)


def responses(data: Dataset, progress: Progress) -> Float[Tensor, "n 1 h w"]:
    """The response of a Harris detector at every pixel of every training picture."""
    from skimage.feature import corner_harris

    grey = data.train.images.float().mean(1) / 255
    found = torch.empty(len(grey), 1, *grey.shape[1:])
    with progress.task("corner responses", len(grey)) as advance:
        for i, picture in enumerate(grey.numpy()):
            found[i, 0] = torch.from_numpy(corner_harris(picture))
            advance()
    return found


def corners(data: Dataset, progress: Progress) -> Bool[Tensor, "n 1 h w"]:
    """The peaks of the Harris response: conventional corners, as many as there are."""
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
    """The highest scores of each map, as many as ``counts`` says."""
    return largest(scores.flatten(1), counts).reshape(scores.shape)


def check(recipe: Recipe, data: Dataset, workspace: Workspace) -> None:
    """Refuse a guide that does not exist, before anything is run."""
    name = needed(recipe)
    if name is not None and name not in FIXED:
        imported(name, data, workspace)
