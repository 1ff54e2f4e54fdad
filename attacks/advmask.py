"""AdvMask's attack: a perturbation and a mask of pixels, encoded from it, learnt together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from attacks.base import Goal, Images, Streams, check, frozen, streams
from attacks.encoder import SGD, Encoder, LinearEncoder, UNetEncoder
from attacks.norms import box, l0_pixels


@dataclass(frozen=True)
class AdvMask:
    """Work in progress."""

    eps: float = 8 / 255
    steps: int = 200
    step_size: float = 0.125
    decay: float = 1.0
    sparsity: float = 1.0
    sparsity_slope: float = 1.0
    adapt: float = 1.03
    alpha_start: float = 0.1
    alpha_end: float = 100.0
    encoder: SGD = SGD(lr=0.01, momentum=0.9)

    def __call__(self, model: nn.Module, images: Images, goal: Goal, generator: Streams) -> Images:
        """Attack ``images``; see ``attacks.base.Attack``."""
        check(images, self.eps)
        generators = streams(generator, len(images))
        images = images.detach()
        with frozen(model), torch.no_grad():
            margin = goal.margin(model(images)) if len(images) else images.new_zeros(0)
            rest = (margin > 0).nonzero()[:, 0]
            best = images.clone()
            if len(rest):
                chosen = [generators[i] for i in rest.tolist()]
                best[rest] = self._attack(model, images[rest], goal[rest], chosen, margin[rest])
        return best

    def _attack(self, model, images, goal, generators, clean):  # type: ignore[no-untyped-def]
        low, high = box(images, self.eps)
        pixels = images[0, 0].numel()
        encoder: Encoder = (
            LinearEncoder(images, generators, self.encoder, self.steps + 1)
            if pixels <= 64 * 64
            else UNetEncoder(images, generators, self.encoder)
        )
        delta, velocity = torch.zeros_like(images), torch.zeros_like(images)
        alpha = images.new_full((len(images), 1), self.alpha_start)
        factor = torch.ones_like(clean)
        best = images.clone()
        fewest = torch.full((len(images),), pixels + 1, device=images.device)
        rise = (self.alpha_end - self.alpha_start) / self.steps
        for step in range(self.steps):
            codes = encoder.encode(delta)
            mask = (alpha * codes).sigmoid()
            soft = mask.view_as(images[:, :1])
            with torch.enable_grad():
                attacked = (images + delta * soft).requires_grad_(True)
                margin = goal.margin(model(attacked))
                (slope,) = torch.autograd.grad((margin.clamp(min=0) / clean).sum(), attacked)
            reached = margin < 0
            factor = factor * torch.where(reached, self.adapt, 2 - self.adapt)
            factor = factor.clamp(0.05, 50)
            weight = factor * (self.sparsity + self.sparsity_slope * (mask > 0.5).float().mean(1))
            gain = (delta * slope).sum(1).flatten(1) + weight[:, None] / pixels
            gradient = soft * slope + encoder.learn(alpha * mask * (1 - mask) * gain)
            norm = gradient.flatten(1).abs().sum(1).clamp(min=1e-30)
            velocity = self.decay * velocity + gradient / norm[:, None, None, None]
            delta = (delta - self.step_size * self.eps * velocity.sign()).clamp(low, high)
            late = step >= 0.8 * self.steps
            binary = ((mask < 0.1) | (mask > 0.9)).float().mean(1, keepdim=True)
            alpha = alpha + rise + (10 * rise) * ((binary <= 0.9) & late)
        codes = encoder.encode(delta)
        order = codes.argsort(dim=1, descending=True).argsort(dim=1)
        few = torch.zeros_like(fewest)
        many = torch.full_like(fewest, pixels)
        keep = (codes > 0).sum(1)
        for _ in range(12):
            kept = (order < keep[:, None]).view_as(soft)
            attacked = (images + delta * kept).clamp(0, 1)
            reached = goal.reached(model(attacked))
            changes = l0_pixels(attacked - images)
            better = reached & (changes < fewest)
            fewest = torch.where(better, changes, fewest)
            best = torch.where(better[:, None, None, None], attacked, best)
            many = torch.where(reached, keep, many)
            few = torch.where(reached, few, keep)
            keep = (few + many) // 2
        return best
