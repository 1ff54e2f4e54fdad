"""Lists of points that others have released become the points of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from some_points import small, some

from bench.cli import main
from bench.data.dataset import Dataset
from bench.points.import_export import from_folder
from bench.points.store import Points, stored


def lists(folder: Path, data: Dataset, points: Points, columns: tuple[int, int] = (0, 1)) -> None:
    folder.mkdir(parents=True)
    for index in range(len(data.train.labels)):
        if len(points[index]):
            np.save(folder / f"{index}.npy", points[index][:, columns].numpy())


def test_lists_of_rows_and_columns_are_the_points_of_their_images(tmp_path: Path) -> None:
    data = small()
    points = some(data, 0.05)
    assert (points.counts == 0).any()
    lists(tmp_path / "lists", data, points)
    found = from_folder(tmp_path / "lists", data)
    assert found.guide().equal(points.guide())
    assert found.reached.equal(points.counts > 0)
    assert found.about["imported"] == "lists"
    lists(tmp_path / "xy", data, points, (1, 0))
    assert from_folder(tmp_path / "xy", data, xy=True).guide().equal(points.guide())


def test_lists_may_be_floats_unsorted_and_repeated_and_are_numbered_by_their_last_digits(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "set2_image_007.npy", np.array([[3.0, 1.2], [0, 0], [3, 1]]))
    np.save(tmp_path / "10.npy", np.zeros((0, 2)))
    (tmp_path / "._7.npy").write_text("of another system")
    found = from_folder(tmp_path, small())
    assert found[7].tolist() == [[0, 0], [3, 1]]
    assert found.counts.sum() == 2


@pytest.mark.parametrize("names", ["classes", "others"])
def test_lists_in_folders_of_classes_belong_to_the_images_of_the_class_in_order(
    tmp_path: Path, names: str
) -> None:
    data = small()
    points = some(data, 0.2)
    for label, name in enumerate(data.classes):
        folder = tmp_path / (name if names == "classes" else f"n{label + 5}")
        folder.mkdir()
        for number, index in enumerate((data.train.labels == label).nonzero()[:, 0].tolist()):
            np.save(folder / f"{number}.npy", points[index].numpy())
    assert from_folder(tmp_path, data).guide().equal(points.guide())
    first = tmp_path / ("0" if names == "classes" else "n5") / "0.npy"
    first.unlink()
    with pytest.raises(ValueError, match=r"training images: the lists are of other images"):
        from_folder(tmp_path, data)


HARMS: dict[str, tuple[str, Any, str]] = {
    "outside": ("3.npy", [[1, 2], [2, 8]], r"3\.npy has the point \(2, 8\), .* outside an image"),
    "negative": ("3.npy", [[-1, 2]], r"has the point \(-1, 2\)"),
    "undefined": ("3.npy", [[np.nan, 2.0]], r"has the point \(nan, 2\)"),
    "beyond": ("60.npy", [[1, 2]], r"60\.npy is of image 60, but digits.* has 60 training images"),
    "far": (f"{'9' * 40}.npy", [[1, 2]], "has 60 training images"),
    "twice": ("07.npy", [[1, 2]], r"are both of image 7"),
    "nameless": ("list.npy", [[1, 2]], r"list\.npy has no number in its name"),
    "shape": ("3.npy", [1, 2, 3], r"3\.npy has shape \(3,\): a list of points has shape \(n, 2\)"),
    "columns": ("3.npy", [[1, 2, 3]], r"has shape \(1, 3\)"),
    "kind": ("3.npy", [["a", "b"]], "holds <U1: a list of points holds integers or floats"),
    "objects": ("3.npy", np.array([[print, 2]], dtype=object), "Python objects, which are not"),
    "large": ("3.npy", np.zeros((1000, 2)), "more than a list of 8x8 pixels can have"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_bad_list_is_one_line_and_nothing_is_written(tmp_path: Path, harm: str) -> None:
    name, values, message = HARMS[harm]
    folder = tmp_path / "lists"
    folder.mkdir()
    np.save(folder / "7.npy", np.array([[1, 2]]))
    np.save(folder / name, np.array(values), allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        from_folder(folder, small())
    arguments = ["points", "import", str(folder), "--name", "mine", "--results", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, "--data", "digits(train=60, test=20)"])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_folders_without_lists_or_without_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no lists of points: give one"):
        from_folder(tmp_path, small())
    np.save(tmp_path / "0.npy", np.zeros((0, 2)))
    with pytest.raises(ValueError, match="has 1 lists, but no point in them"):
        from_folder(tmp_path, small())
    (tmp_path / "0.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=r"0\.npy is not an array of numbers"):
        from_folder(tmp_path, small())
    (tmp_path / "0.npy").unlink()
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "0.npy", np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"has 1 folders with lists, but .* has 10 classes"):
        from_folder(tmp_path, small())


def test_imported_lists_guide_a_run(tmp_path: Path) -> None:
    data = small()
    lists(tmp_path / "lists", data, some(data, 0.3))
    arguments = ["points", "import", str(tmp_path / "lists"), "--name", "mine"]
    arguments += ["--results", str(tmp_path), "--data", "digits(train=60, test=20)"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "--guide mine --data 'digits(train=60, test=20)'" in result.stdout
    assert "have no list" not in result.stderr
    for index in (7, 50):
        (tmp_path / "lists" / f"{index}.npy").unlink()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "2 of 60 images have no list in" in result.stderr
    assert list(stored(tmp_path, data)) == ["mine"]
