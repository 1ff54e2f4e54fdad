"""Saliency: what a network looks at in an image."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks.base import frozen
from augmentations.base import Guide, Images


def saliency(network: nn.Module, images: Images, labels: Int[Tensor, " b"]) -> Guide:
    """How strongly each pixel moves the label's logit: the largest absolute gradient over channels.

    Taken in eval mode, so that the running statistics stay those of the training (KeepAugment,
    section 3; Simonyan et al. 2014). The network's mode is restored.

    Args:
        network: Takes images in [0, 1], gives logits.
        images: Shape (b, c, h, w).
        labels: The class of each image whose logit is differentiated.

    Returns:
        Shape (b, 1, h, w), at least 0.
    """
    with frozen(network), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        own = network(inputs).gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(own, inputs)
    return gradient.float().abs().amax(1, keepdim=True)
