"""Sparse adversarial attacks: each turns images into images that reach a goal with few changes."""

from attacks.advmask import AdvMask
from attacks.advmask_published import PublishedAdvMask
from attacks.base import Attack, BaseAttack, Goal, Role, Traits, Unit, passes, traits
from attacks.cw_l0 import CWL0
from attacks.dense import MIFGSM, PGD
from attacks.fmn_l0 import FMNL0
from attacks.greedyfool import GreedyFool
from attacks.gse import GSE
from attacks.jsma import JSMA
from attacks.noise import RandomSigns
from attacks.pgd_l0 import PGDL0
from attacks.pgd_trim import PGDTrim
from attacks.sapf import SAPF
from attacks.sigma_zero import SigmaZero
from attacks.sparse_autoattack import SparseAutoAttack, WorstCase
from attacks.sparse_pgd import SparsePGD
from attacks.sparse_rs import SparseRS
from attacks.sparsefool import SparseFool
from attacks.vfga import VFGA

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
    "fmn-l0": FMNL0,
    "sparse-pgd": SparsePGD,
    "sparse-rs": SparseRS,
    "vfga": VFGA,
    "pgd-trim": PGDTrim,
    "gse": GSE,
    "sparse-autoattack": SparseAutoAttack,
}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = [
    "BUILTIN",
    "CWL0",
    "FMNL0",
    "GSE",
    "JSMA",
    "MIFGSM",
    "PGD",
    "PGDL0",
    "SAPF",
    "VFGA",
    "AdvMask",
    "Attack",
    "BaseAttack",
    "Goal",
    "GreedyFool",
    "PGDTrim",
    "PublishedAdvMask",
    "RandomSigns",
    "Role",
    "SigmaZero",
    "SparseAutoAttack",
    "SparseFool",
    "SparsePGD",
    "SparseRS",
    "Traits",
    "Unit",
    "WorstCase",
    "passes",
    "traits",
]
