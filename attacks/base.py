"""The attack protocol: what an attack is called with, and what its class declares about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from attacks.closest import Closest
from attacks.goal import Goal, Images, Labels, Logits, Region, Shape, as_goal, differentiable
from attacks.originals import copies
from attacks.victim import (
    first_answer_checked,
    first_gradient_checked,
    frozen,
    images_kept,
    out_of_memory,
)

__all__ = [
    "Attack", "BaseAttack", "Goal", "Images", "Labels", "Logits", "Region", "Role", "Shape",
    "Streams", "Traits", "Unit", "check", "frozen", "passes", "streams", "traits",
]  # fmt: skip

Streams = Generator | Sequence[Generator]
"""One generator for the batch, or one per image, which makes results independent of the batch."""
Unit = Literal["pixels", "elements"]
"""What a sparse attack counts: pixels with all their channels, or single values."""
Role = Literal["sparse", "ceiling", "floor"]
"""The part of an attack in a comparison of sparse attacks.

``"sparse"`` attacks are compared. A ``"ceiling"`` is dense: it shows what eps allows at all. A
``"floor"`` knows nothing of the model: it shows what chance finds.
"""


@runtime_checkable
class Attack(Protocol):
    """Turns images into images of the same shape, in [0, 1], that reach the goal with few changes.

    This is all that a comparison asks for. Implementations are frozen dataclasses whose fields are
    the hyperparameters. They return images and nothing else: success, norms and passes are measured
    by who compares. `BaseAttack` adds what the attacks of this package share.

    >>> from attacks import JSMA
    >>> isinstance(JSMA(), Attack)
    True
    """

    def __call__(self, model: nn.Module, images: Images, goal: Goal, generator: Streams) -> Images:
        """Attack a batch of images.

        Images that already reach the goal come back unchanged; so do images for which nothing was
        found. The arguments, the model's mode and its ``requires_grad`` flags stay as they were.

        Args:
            model: Maps images in [0, 1] to logits.
            images: Batch of shape (b, c, h, w) in [0, 1], before normalisation.
            goal: What counts as a success, image by image.
            generator: Source of every random draw: one, or one per image.

        Returns:
            The adversarial images, of the shape, dtype and device of ``images``.
        """
        ...


class BaseAttack(ABC):
    """An attack that takes plain labels, needs no generator and declares what it does.

    Subclasses are frozen dataclasses that implement ``_attack``, which gets checked, detached
    images, at least one, a `Goal`, a generator for each image and a frozen model, with gradients
    switched off. A ``__post_init__`` of their own begins with ``super().__post_init__()``.

    Attributes:
        role: The part of the attack in a comparison; see `Role`.
        combined: Whether it consists of other attacks. A comparison of all attacks leaves it out.
        unit: What the attack minimises, ``"pixels"`` or ``"elements"``; None where it minimises
            neither, as dense attacks do. Some attacks have it as an option.
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        readings: Names of class methods that give the attack with other constants, such as those of
            a released program, and that can be called with their defaults. Their names can be typed
            wherever the attack's can: ``advmask.published``.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Brighten(BaseAttack):
    ...     eps: float | None = 0.1
    ...     unit = "pixels"
    ...     def passes(self, shape):
    ...         return 2
    ...     def _attack(self, model, images, goal, generators):
    ...         brighter = (images + self.eps).clamp(max=1)
    ...         useful = goal.reached(model(brighter)) & ~goal.reached(model(images))
    ...         return torch.where(useful[:, None, None, None], brighter, images)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> Brighten()(model, images, labels).shape
    torch.Size([3, 1, 2, 2])
    """

    role: ClassVar[Role] = "sparse"
    combined: ClassVar[bool] = False
    readings: ClassVar[tuple[str, ...]] = ()
    eps: float | None

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal | Tensor,
        generator: Streams | None = None,
        failures: Literal["unchanged", "closest"] = "unchanged",
    ) -> Images:
        """Attack a batch of images.

        Images that already reach the goal come back unchanged; so do images for which nothing was
        found. The arguments, the model's mode and its ``requires_grad`` flags stay as they were;
        during the attack the model is in eval mode, and ``torch.inference_mode`` is left. A batch
        for which memory is too short is attacked in halves, whose passes come on top of those that
        were made in vain.

        Args:
            model: Maps images in [0, 1] to logits of shape (b, classes).
            images: Batch of shape (b, c, h, w) in [0, 1], before normalisation, on the model's
                device.
            goal: What counts as a success: a `Goal`, or integer labels of shape (b,), the classes
                to leave.
            generator: Source of every random draw: one for the batch, which gives each image a seed
                in turn, or one per image, with which no image depends on its batch. None stands
                for ``torch.Generator().manual_seed(0)``, so that a call repeats itself.
            failures: What stands for an image for which nothing was found: the image itself, or
                with ``"closest"`` the attempt with the smallest margin among the failed ones that
                the attack showed the model and that keep to [0, 1], eps and the region.

        Returns:
            The adversarial images, of the shape, dtype and device of ``images``.

        Raises:
            ValueError: If images leave [0, 1], aren't finite or aren't float32 or float64, ``eps``
                isn't in (0, 1], labels aren't one integer per image, the region isn't one mask per
                image, there is not one generator per image, the attack cannot reach such a goal, or
                the model doesn't return numbers of shape (b, classes), two classes at least, has
                no gradient where the attack needs one, or changes its images in place.
        """
        return self._call(model, images, goal, generator, failures)

    @torch.inference_mode(mode=False)
    def _call(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal | Tensor,
        generator: Streams | None,
        failures: Literal["unchanged", "closest"] = "unchanged",
        *others: Tensor,
    ) -> Images:
        """What a call does; ``others`` have a row for each image and go to `_attack` too."""
        check(images, self.eps)
        goal = as_goal(goal, images)
        generator = Generator().manual_seed(0) if generator is None else generator
        generators = streams(generator, len(images))
        images = differentiable(images.detach())
        others = tuple(map(differentiable, others))
        if failures not in ("unchanged", "closest"):
            raise ValueError(f"failures is {failures!r}: choose 'unchanged' or 'closest'")
        if not len(images):
            return images.clone()
        answer_checked = first_answer_checked(model, goal.labels)
        gradient_checked = first_gradient_checked(model)
        with frozen(model), torch.no_grad(), images_kept(model), answer_checked, gradient_checked:
            if failures == "unchanged":
                return self._in_parts(model, images, goal, generators, *others)
            found = images.clone()
            earlier = copies(images)  # equal images one after the other: attempts tell no one apart
            for turn in earlier.unique():
                rows = (earlier == turn).nonzero()[:, 0]
                chosen = [generators[row] for row in rows.tolist()]
                parts = [other[rows] for other in others]
                closest = Closest(
                    model, images[rows], goal[rows], self.eps if self.bounded else None
                )
                attacked = self._in_parts(closest, images[rows], goal[rows], chosen, *parts)
                found[rows] = closest.instead_of_failures(attacked)
            return found

    def _in_parts(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        generators: Sequence[Generator],
        *others: Tensor,
    ) -> Images:
        """Attack the batch; in halves, with the same draws, if memory is too short."""
        states = [generator.get_state() for generator in generators]
        try:
            return self._attack(model, images, goal, generators, *others)
        except (MemoryError, RuntimeError) as error:
            if len(images) == 1 or not out_of_memory(error):
                raise
        # out of the handler, which would keep the tensors of the attempt
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        halves = []
        for rows in torch.arange(len(images), device=images.device).chunk(2):
            chosen = [generators[row] for row in rows.tolist()]
            parts = [other[rows] for other in others]
            halves.append(self._in_parts(model, images[rows], goal[rows], chosen, *parts))
        return torch.cat(halves)

    @abstractmethod
    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        """The adversarial images, new tensors; ``images`` must not be written to."""

    @classmethod
    def published(cls, eps: float | None = None) -> BaseAttack:
        """The attack with the budget of its authors, where the defaults are cheaper.

        Attacks whose defaults are the published ones give those.

        Args:
            eps: Largest change of an element; None: the default of the attack.
        """
        attack = cls()
        # every attack is a frozen dataclass
        return attack if eps is None else replace(attack, eps=eps)  # type: ignore[type-var]

    @property
    def bounded(self) -> bool:
        """Whether ``eps`` bounds every change."""
        return self.eps is not None

    @property
    def bound(self) -> float:
        """Largest change of an element: ``eps``, or 1 where nothing bounds it but [0, 1]."""
        return 1.0 if self.eps is None else self.eps

    @abstractmethod
    def passes(self, shape: Shape) -> int:
        """The most forward and backward passes, added up, that a call makes for one image.

        Args:
            shape: Channels, height and width of the image.
        """

    def usual_passes(self, shape: Shape) -> int:
        """The passes for an image on which nothing has to be repeated; `passes` by default.

        Args:
            shape: Channels, height and width of the image.
        """
        return self.passes(shape)


class Traits(NamedTuple):
    """What an attack declares about itself; see `traits`.

    Attributes:
        role: Its part in a comparison; see `Role`.
        unit: What it minimises, ``"pixels"`` or ``"elements"``; None where it minimises neither.
        bounded: Whether an eps bounds every change.

    >>> from attacks import JSMA
    >>> traits(JSMA()).role
    'sparse'
    """

    role: Role
    unit: Unit | None
    bounded: bool


def traits(attack: Attack) -> Traits:
    """What an attack declares, with what is assumed of one that declares nothing.

    Classes that only follow the protocol `Attack` count as sparse attacks on pixels, which are
    bounded unless they have an ``eps`` that is None.

    Args:
        attack: The attack.

    Raises:
        ValueError: If the attack declares a role that doesn't exist.

    >>> from attacks import PGD, SigmaZero
    >>> traits(SigmaZero(eps=None))
    Traits(role='sparse', unit='elements', bounded=False)
    >>> traits(PGD())
    Traits(role='ceiling', unit=None, bounded=True)
    """
    role: Any = getattr(attack, "role", "sparse")
    if role not in get_args(Role):
        raise ValueError(
            f"{type(attack).__name__} declares the role {role!r}: "
            f"it must be one of {', '.join(get_args(Role))}"
        )
    bounded = getattr(attack, "bounded", getattr(attack, "eps", 0) is not None)
    return Traits(role, getattr(attack, "unit", "pixels"), bool(bounded))


def passes(attack: Attack, shape: Shape) -> int:
    """The most forward and backward passes of an attack for an image of ``shape``.

    0 for one that declares nothing.

    Args:
        attack: The attack.
        shape: Channels, height and width of the image.

    >>> from attacks import PGD
    >>> passes(PGD(steps=40), (3, 32, 32))
    82
    """
    declared: Any = getattr(attack, "passes", None)
    return 0 if declared is None else int(declared(shape))


def streams(generator: Streams, count: int) -> Sequence[Generator]:
    """One CPU generator per image.

    A sequence is returned as it is. A single generator is asked for one seed per image, in order,
    so that splitting a batch leaves every image's stream the same.

    Args:
        generator: One generator, or one per image.
        count: Number of images.

    Raises:
        ValueError: If the sequence has another length than ``count``.
    """
    if not isinstance(generator, Generator):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} images: give one per image")
        return generator
    seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device)
    return [Generator().manual_seed(seed) for seed in seeds.tolist()]


def check(images: Images, eps: float | None) -> None:
    """Refuse an eps outside (0, 1] and images of another type, outside [0, 1] or not finite.

    Args:
        images: Batch of shape (b, c, h, w), float32 or float64.
        eps: Largest change of an element; None for no bound.

    Raises:
        ValueError: They are no batch, or with the offending value.
    """
    check_eps(eps)
    if not isinstance(images, Tensor) or images.ndim != 4:
        what = f"of shape {tuple(images.shape)}" if isinstance(images, Tensor) else "no tensor"
        raise ValueError(f"images are {what}: give a float tensor of shape (b, c, h, w)")
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"images are {images.dtype}: give float32 or float64 images and a model that takes them"
        )
    if not torch.isfinite(images).all():
        raise ValueError("images hold values that are not finite (NaN or infinity)")
    if images.numel() and (images.min() < 0 or images.max() > 1):
        raise ValueError(
            f"images lie in [{images.min():.3g}, {images.max():.3g}]: attacks take [0, 1], "
            "before normalisation"
        )


def check_eps(eps: Any) -> None:
    """Refuse an eps outside (0, 1].

    Args:
        eps: Largest change of an element; None for no bound.

    Raises:
        ValueError: With the value.
    """
    if eps is None:
        return
    if isinstance(eps, str):
        raise ValueError(f"eps is {eps!r}: it must be a number, such as 8 / 255")
    if not 0 < eps <= 1:
        raise ValueError(f"eps is {eps}: it must be above 0 and at most 1, such as 8/255")
