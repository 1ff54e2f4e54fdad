"""The numbers that the paper prints, in percent as printed; a star marks those of other papers.

Each text has one line for each column of a table and one number for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.reporting.cells import Column, Published

if TYPE_CHECKING:
    from bench.paper.experiments import Cell

TABLE1 = """
95.28* 96.01* 96.10* 96.38 95.69* 96.44
94.10 94.78 94.97 95.02 94.87* 95.49
95.66 95.81 95.60 96.15 95.82 96.69
95.52 96.92 96.94 97.23 96.92 97.02
94.90 96.96* 96.89* 96.91 96.46* 97.03
77.54* 78.04* 78.19 75.23 75.97* 78.43
74.80 74.84 75.82 76.07 75.71* 76.44
77.41 78.62 78.76 78.38 77.79 78.99
78.96 79.84 80.22 80.40 80.57 80.70
76.65 77.37 76.89 77.28 77.30 79.96
"""
TABLE2 = """
96.10 96.79 96.64 96.81 96.07* 96.69 95.99 96.52 96.28 96.58 96.10* 96.37
94.85 95.08 93.96 95.08 95.01 96.30 93.80 95.42 95.00 95.30 95.35 95.46
96.92 97.21 96.93 97.14 97.01* 97.59 96.81 97.52 97.18 97.55 97.30* 97.30*
"""
TABLE3 = """
73.25 74.02 73.97 74.08 76.36 77.41 76.04 76.27 76.80 78.96 76.29 77.62
82.46 83.93 81.34 81.60 81.34 82.62 79.08 81.18 81.34 81.29 78.90 81.25
83.00 83.46 82.67 81.31 82.21 83.01 79.95 81.45 82.75 83.19 77.52 79.81
"""
TABLE4 = """
64.87 64.30 67.28 68.15 69.97
75.33 76.22 75.29 75.11 79.23
78.58 81.18 79.99 82.90 82.16
"""
TABLE5 = """
80.20 88.53 84.12 90.19 88.43 91.57
"""
TABLE7 = """
95.28 95.66 95.11 95.78 96.23
94.12 95.61 95.41 95.77 96.69
"""
TABLE8 = """
92.96 95.28 96.23
94.52 94.12 96.69
"""
FIGURE3 = "61.38\n73.61\n81.55"
"""Of the baseline."""


TABLE6: Mapping[tuple[str, str], tuple[float, float, float, float]] = {
    ("jsma.official", "8/255"): (78.9, 440.8, 0.611, 0.031),
    ("pgd-l0", "8/255"): (73.9, 1199.7, 1.078, 0.031),
    ("greedyfool", "8/255"): (100.0, 468.2, 0.547, 0.031),
    ("cw-l0.official", "8/255"): (100.0, 326.6, 0.542, 0.068),
    ("sapf.official", "8/255"): (100.0, 321.8, 0.523, 0.085),
    ("advmask", "8/255"): (100.0, 320.1, 0.532, 0.031),
    ("jsma.official", "16/255"): (97.3, 247.7, 0.896, 0.063),
    ("pgd-l0", "16/255"): (72.8, 498.0, 1.390, 0.063),
    ("greedyfool", "16/255"): (100.0, 238.3, 0.707, 0.063),
    ("cw-l0.official", "16/255"): (100.0, 136.7, 0.691, 0.118),
    ("sapf.official", "16/255"): (100.0, 133.7, 0.718, 0.159),
    ("advmask", "16/255"): (100.0, 131.3, 0.689, 0.063),
}
"""Success in percent, l0 in elements, l2 and linf, by attack and eps; of targeted attacks on
CIFAR-10, on a network that the paper does not name.

JSMA, C&W-l0 and SAPF stand for the attacks of their papers: the last two have no bound there, and
leave eps in the paper's table too."""


def read_numbers(
    text: str, rows: Sequence[str], columns: Sequence[Column]
) -> dict[Cell, Published]:
    """Read one of the texts of this module.

    Args:
        text: One line for each column, one number for each row.
        rows: The names of the rows.
        columns: The columns.

    Returns:
        The numbers in percent, with their stars.

    >>> list(read_numbers("95.1* 96.0", ["a", "b"], [Column("x")]).values())
    [Published(value=95.1, starred=True), Published(value=96.0, starred=False)]
    """
    return {
        (row, column): Published(float(word.rstrip("*")), word.endswith("*"))
        for column, line in zip(columns, text.strip().splitlines(), strict=True)
        for row, word in zip(rows, line.split(), strict=True)
    }
