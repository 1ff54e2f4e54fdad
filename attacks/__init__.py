"""Sparse adversarial attacks: each turns images into images that reach a goal with few changes."""

from attacks.advmask import AdvMask
from attacks.advmask_published import PublishedAdvMask
from attacks.base import Attack, BaseAttack, Goal, Role, Traits, Unit, passes, traits
from attacks.cw_l0 import CWL0
from attacks.dense import MIFGSM, PGD
from attacks.greedyfool import GreedyFool
from attacks.jsma import JSMA
from attacks.noise import RandomSigns
from attacks.pgd_l0 import PGDL0
from attacks.sapf import SAPF
from attacks.sigma_zero import SigmaZero
from attacks.sparsefool import SparseFool

BUILTIN: dict[str, type[Attack]] = {
    "greedyfool": GreedyFool,
    "pgd-l0": PGDL0,
    "mi-fgsm": MIFGSM,
    "pgd": PGD,
    "noise": RandomSigns,
    "jsma": JSMA,
    "advmask": AdvMask,
    "cw-l0": CWL0,
    "sapf": SAPF,
    "sigma-zero": SigmaZero,
    "sparsefool": SparseFool,
}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = [
    "BUILTIN",
    "CWL0",
    "JSMA",
    "MIFGSM",
    "PGD",
    "PGDL0",
    "SAPF",
    "AdvMask",
    "Attack",
    "BaseAttack",
    "Goal",
    "GreedyFool",
    "PublishedAdvMask",
    "RandomSigns",
    "Role",
    "SigmaZero",
    "SparseFool",
    "Traits",
    "Unit",
    "passes",
    "traits",
]
