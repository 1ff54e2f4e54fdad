"""What else a trained network is good for: occluded and corrupted images, and calibration."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from augmentations import delete
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.data.loader import batches
from bench.models.arithmetic import full_float32
from bench.records.record import Number
from bench.robustness.corruptions import corrupt
from bench.robustness.occlusion import SHARES, cells

BINS = 15
BATCH = 128


@full_float32()
def measure(network: nn.Module, data: Dataset, device: str = "cpu") -> dict[str, Number]:
    """Measure a trained network on the test images, in float32.

    Args:
        network: The network, for images in [0, 1]; it is put into eval mode.
        data: The dataset.
        device: Device of the network.

    Returns:
        ``nll``, the mean cross-entropy in nats; ``ece``, the expected calibration error of
        `calibration_error`; ``accuracy_occlusion``, with random cells hidden as
        `bench.robustness.occlusion.cells` does, 10 to 80 % of the image; and
        ``accuracy_corruption``, under the common corruptions of `corrupt`. Which share and which
        corruption an image gets follows from its index, so all networks see the same images.
    """
    network.eval()
    mean, shares = data.mean.to(device), torch.tensor(SHARES[1:])
    plain, occluded, corrupted, labels = [], [], [], []
    parts = zip(data.test.ids.split(BATCH), batches(data.test, BATCH, device), strict=True)
    with torch.inference_mode():
        for ids, (images, truth) in parts:
            hidden = cells(ids, shares[ids % len(shares)], *images.shape[-2:]).to(device)
            damaged = as_floats(corrupt((images * 255).round().byte().cpu(), ids), device)
            plain.append(network(images))
            occluded.append(network(delete(images, hidden, mean=mean)).argmax(1) == truth)
            corrupted.append(network(damaged).argmax(1) == truth)
            labels.append(truth)
    logits, truth = torch.cat(plain).float(), torch.cat(labels)
    return {
        "nll": float(functional.cross_entropy(logits, truth)),
        "ece": calibration_error(logits, truth),
        "accuracy_occlusion": float(torch.cat(occluded).double().mean()),
        "accuracy_corruption": float(torch.cat(corrupted).double().mean()),
    }


def calibration_error(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the expected calibration error, from 0 to 1.

    Images are sorted into 15 bins of equal width by the probability of the predicted class; the
    error is the mean over images of the difference between the share of correct predictions and the
    mean probability of their bin (Guo et al., ICML 2017, eq. 3).

    Args:
        logits: Logits of each image and class.
        labels: True class of each image.

    >>> calibration_error(torch.tensor([[50.0, 0.0], [50.0, 0.0]]), torch.tensor([0, 1]))
    0.5
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    right = (predicted == labels).double()
    gap = torch.zeros(BINS, dtype=torch.float64, device=logits.device)
    gap.index_add_(0, bins, right - confidence)
    return float(gap.abs().sum() / len(labels))
