"""How far points agree with those of the exact attack."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional


def shares(exact: Bool[Tensor, "b h w"], others: Bool[Tensor, "b h w"]) -> dict[str, float]:
    """Compare points with exact ones, image by image; images without exact points don't count.

    Args:
        exact: True at the exact points.
        others: True at the other points.

    Returns:
        ``found``, the share of the exact points that are among the others; ``near``, the share that
        lie within one pixel of one; ``right``, the share of the others that are exact points; and
        ``chance``, what ``found`` would be for as many pixels at random. All are means over images.

    >>> import torch
    >>> exact, others = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    >>> exact[0, 0, 0] = exact[0, 2, 2] = others[0, 0, 0] = others[0, 3, 3] = True
    >>> shares(exact, others)
    {'found': 0.5, 'near': 1.0, 'right': 0.5, 'chance': 0.125}
    """
    some = exact.flatten(1).any(1)
    exact, others = exact[some].flatten(1), others[some]
    around = functional.max_pool2d(others[:, None].float(), 3, stride=1, padding=1) > 0
    others = others.flatten(1)
    both, count = (exact & others).double().sum(1), exact.double().sum(1)

    def mean(values: Tensor) -> float:
        return float(values.mean()) if len(values) else 0.0

    return {
        "found": mean(both / count),
        "near": mean((exact & around.flatten(1)).double().sum(1) / count),
        "right": mean(both / others.double().sum(1).clamp(min=1)),
        "chance": mean(others.double().mean(1)),
    }
