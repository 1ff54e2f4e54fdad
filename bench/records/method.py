"""What is compared in runs, as tables, progress and lists name it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.records.record import Record


@dataclass(frozen=True)
class Method:
    """What is compared in runs: an augmentation with what surrounds it.

    Attributes:
        augmentation: Its name, with the hyperparameters that are not the dataset's.
        guide: The points that guide it, where they are not those that it asks for.
        policy: The policy that is applied before it.
        mix: How images of a batch are mixed after it.
        robust: The adversarial training.
    """

    augmentation: str
    guide: str = ""
    policy: str = ""
    mix: str = ""
    robust: str = ""

    @classmethod
    def of(cls, record: Record) -> Method:
        """The method of a run."""
        return cls(**{name: record.labels.get(name, "") for name in cls.__dataclass_fields__})

    @property
    def name(self) -> str:
        """How tables name it.

        >>> Method("advmask", guide="random").name, Method("none", mix="cutmix").name
        ('advmask + random', 'cutmix')
        """
        every = self.augmentation, self.guide, self.policy, self.mix, self.robust
        parts = [part for part in every if part]
        return " + ".join(parts[1:] if len(parts) > 1 and parts[0] == "none" else parts)
