"""The leaderboard ranks what was checked, says how it is known, and shows hostile texts as text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting.leaderboard import Board, Number, distances, make_boards, write_leaderboard
from bench.robustness.rejudging import SOURCE
from bench.robustness.submissions import About


def record(attack: str, won: list[int], n: int = 10, seed: int = 0, **changes: str) -> Record:
    """An attack that breaks some of n images with so many pixels each."""
    labels = {
        "attack": attack, "victim": "net a1b2", "model": "resnet8", "data": "digits",
        "eps": "8/255", "goal": "untargeted", "bounded": "yes", "role": "sparse",
    }  # fmt: skip
    curve = [
        {"changes": float(k), "pixels": sum(each <= k for each in won) / n, "elements": 0.0}
        for k in sorted(set(won))
    ]
    return Record(
        kind="attack",
        key=re.sub(r"[^\w.-]", "-", f"{attack}-{changes.get('source', '')}"),
        seed=seed,
        labels=labels | changes,
        metrics={"success": len(won) / n, "images": n, "forwards": 30.0, "backwards": 12.0},
        job={"images": n},
        curve=curve,
    )


def board(*records: Record, reported: tuple[About, ...] = ()) -> Board:
    (found,) = make_boards(records, lambda each: each.curve, reported)
    return found


def about(attack: str = "theirs", median: float | None = 1.0, **fields: Any) -> About:
    usual = {
        "format": 1, "attack": attack, "victim": "net a1b2", "data": "digits", "eps": "8/255",
        "images": 10, "claims": {"success": 1.0, "pixels_median": median},
    }  # fmt: skip
    return About.model_validate(usual | fields)


def names(found: Board) -> list[str]:
    return [entry.attack for entry in found.entries]


def test_attacks_are_ordered_by_the_median_with_failures_as_infinite() -> None:
    found = board(
        record("often", [9] * 10),
        record("rarely", [1] * 4),  # few pixels, but more failures than successes
        record("best", [8] * 6),
        record("dense", [1] * 10, role="ceiling"),
        record("noise", [1] * 10, role="floor"),
    )
    assert names(found) == ["best", "often", "rarely"]
    assert [entry.pixels.value for entry in found.entries] == [8, 9, math.inf]


def test_the_distances_of_the_images_come_back_from_the_curve() -> None:
    won = [3, 3, 5, 40]
    steps = [(3.0, 2 / 7), (5.0, 3 / 7), (40.0, 4 / 7)]
    assert distances(steps, 7) == [*won, *[math.inf] * 3]


def test_what_nobody_checked_comes_last_and_is_not_ranked() -> None:
    found = board(record("ours", [20] * 10), reported=(about(),))
    assert names(found) == ["ours", "theirs"]
    assert [entry.known for entry in found.entries] == ["measured here", "self-reported"]
    assert [entry.ranked for entry in found.entries] == [True, False]
    assert found.verdict.startswith("ours needs the fewest pixels")


def test_images_outweigh_claims() -> None:
    found = board(record("theirs", [5] * 10, source=SOURCE), reported=(about(),))
    (entry,) = found.entries
    assert (entry.known, entry.pixels.value, entry.ranked) == (SOURCE, 5, True)
    assert "claims 100.0 %, median 1 pixels" in entry.remarks


def test_ours_and_a_submission_of_the_same_name_keep_rows_of_their_own() -> None:
    found = board(record("x", [5] * 10), record("x", [4] * 10, source=SOURCE))
    assert [entry.known for entry in found.entries] == [SOURCE, "measured here"]


def test_claims_about_another_setting_get_a_board_of_their_own() -> None:
    boards = make_boards(
        [record("ours", [5] * 10)], lambda each: each.curve, [about(images=11), about(eps=None)]
    )
    assert [names(each) for each in boards] == [["ours"], ["theirs"], ["theirs"]]
    assert boards[1].verdict == "Nothing on this board was checked, so nothing is ranked."


def test_without_a_success_nobody_is_ahead() -> None:
    found = board(record("a", []), record("b", []))
    assert found.verdict == "No attack succeeds on any image, so none is ahead."
    rare = board(record("a", [1]), record("b", []))
    assert rare.verdict == "No attack succeeds on half of the images, so none has a median."


def test_intervals_that_overlap_are_said_to() -> None:
    near = board(record("a", [5] * 6 + [9] * 4), record("b", [6] * 10))
    assert near.verdict.endswith("before b with 6 [6, 6]; the two intervals overlap.")
    far = board(record("a", [5] * 10), record("b", [6] * 10))
    assert far.verdict.endswith("before b with 6 [6, 6].")


def test_nobody_is_ahead_in_a_tie() -> None:
    found = board(record("jsma", [7] * 10), record("greedyfool", [7] * 10), record("a", [9] * 10))
    assert found.verdict == (
        "greedyfool needs 7 [7, 7] pixels in the median, as many as jsma; none needs fewer."
    )
    assert [(entry.attack, entry.rank) for entry in found.entries] == [
        ("greedyfool", 1), ("jsma", 1), ("a", 3)
    ]  # fmt: skip
    unequal = board(record("b", [7] * 9), record("a", [7] * 10), record("free", [1], bounded="no"))
    assert unequal.verdict.startswith("a needs 7 [7, 7] pixels in the median, as many as b;")
    assert [entry.rank for entry in unequal.entries] == [1, 2, None]


def test_intervals_that_do_not_exist_do_not_overlap() -> None:
    few = board(record("a", [5] * 4, n=4), record("b", [6] * 4, n=4))  # too few images for one
    assert few.verdict == "a needs the fewest pixels in the median, 5, before b with 6."


def test_intervals_over_seeds_are_shares_and_need_a_spread() -> None:
    found = board(record("a", [5] * 10), record("a", [5] * 2 + [9] * 4, seed=1))
    assert found.entries[0].success == Number(0.8, 0.0, 1.0)
    same = board(record("a", [5] * 6), record("a", [5] * 6, seed=1))
    assert (same.entries[0].success, same.entries[0].pixels) == (Number(0.6), Number(5.0))


def test_goals_that_share_an_image_give_no_interval_of_the_median() -> None:
    found = record("a", [5] * 10, goal="all")
    found = replace(found, metrics={**found.metrics, "l0_pixels_median": 4.5})
    assert board(found).entries[0].pixels == Number(4.5)


def test_only_the_last_submission_of_a_name_and_seed_counts() -> None:
    def sent(pixels: int, seed: int = 0) -> Record:
        found = record("my-attack", [pixels] * 10, seed=seed, source=SOURCE)
        return replace(found, key=f"sent-{pixels}")

    (entry,) = board(sent(9), sent(2), sent(5)).entries
    assert (entry.seeds, entry.pixels.value) == (1, 5)
    (entry,) = board(sent(9), sent(5), sent(7, seed=1)).entries
    assert (entry.seeds, entry.pixels.value) == (2, 6)


def test_a_lost_curve_has_no_median() -> None:
    (found,) = make_boards([record("a", [1] * 10)], lambda each: [])
    assert found.entries[0].pixels.value is None
    assert found.svg == ""


def test_several_seeds_are_one_row() -> None:
    found = board(record("a", [5] * 10), record("a", [7] * 10, seed=1))
    (entry,) = found.entries
    assert (entry.seeds, entry.pixels.value) == (2, 6)


def test_evaluations_with_a_limit_on_passes_and_other_images_keep_boards_of_their_own() -> None:
    def limited(n: int) -> Record:
        found = record("x", [5] * n, n)
        return replace(found, key=f"x-{n}", job={"images": n, "query_cap": 300})

    boards = make_boards([limited(6), limited(50)], lambda each: each.curve)
    assert [each.title.split(", ")[-2:] for each in boards] == [
        ["6 images", "at most 300 passes"],
        ["50 images", "at most 300 passes"],
    ]


def test_large_numbers_of_pixels_are_written_without_an_exponent(tmp_path: Path) -> None:
    found = record("x", [1234] * 10)
    means = {"l0_pixels_mean": 1234.4, "l0_elements_mean": 999.6}
    Store(tmp_path).add(replace(found, metrics={**found.metrics, **means}))
    (made,), _ = write_leaderboard(Store(tmp_path), [], tmp_path / "board.html")
    assert made.verdict == "x needs the fewest pixels in the median, 1234 [1234, 1234]."
    page = (tmp_path / "board.html").read_text()
    assert re.findall(r'<td class="number">(\d{4}.*?)</td>', page) == [
        "1234 [1234, 1234]", "1234", "1000"
    ]  # fmt: skip


def test_a_page_that_its_numbers_would_overwrite_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).add(record("x", [1] * 10))
    with pytest.raises(ValueError, match=r"board\.json is the page, .*: end it in \.html"):
        write_leaderboard(Store(tmp_path), [], tmp_path / "board.json")
    assert not (tmp_path / "board.json").exists()


def test_a_name_in_the_numbers_stays_as_it_is_and_infinity_is_null(tmp_path: Path) -> None:
    Store(tmp_path).add(record("Infinity-RS", []))
    write_leaderboard(Store(tmp_path), [], tmp_path / "board.html")
    ((entry,),) = [each["entries"] for each in json.loads((tmp_path / "board.json").read_text())]
    assert (entry["attack"], entry["pixels"]["value"]) == ("Infinity-RS", None)


class Page(HTMLParser):
    """Collects tags and addresses, and checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "link", "br", "img", "path", "use", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and tag == self.open[-1]:
            self.open.pop()


def test_hostile_texts_are_shown_as_text(tmp_path: Path) -> None:
    store, evil = Store(tmp_path), "<script>alert(1)</script>"
    store.add(record(evil[:20], [1] * 10, source=SOURCE, link="javascript:alert(1)", note=evil))
    path = tmp_path / "page.html"
    write_leaderboard(store, [about(evil, authors=evil, note=evil, victim=evil)], path)
    page = Page(path.read_text())
    assert "script" not in page.tags
    assert not any("javascript" in each for each in page.links)
    assert "&lt;script&gt;" in path.read_text()


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record("a", [1, 2, 3] * 3))
    path = tmp_path / "page.html"
    boards, _ = write_leaderboard(store, [about(link="https://example.org/x")], path)
    text = path.read_text()
    page = Page(text)
    assert {each for each in page.links if not each.startswith(("#", "data:"))} == {
        "https://example.org/x"  # followed by a click only
    }
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    numbers = json.loads(path.with_suffix(".json").read_text())
    assert numbers[0]["entries"][0]["attack"] == "a"
    assert len(numbers) == len(boards) == 1


def test_the_command_writes_the_page_and_says_what_is_missing(tmp_path: Path) -> None:
    def bench(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["leaderboard", *arguments, "--results", str(tmp_path)])

    nothing = bench()
    assert nothing.exit_code == 2
    assert "has no attack for a leaderboard: bench attack-eval and bench judge" in nothing.output
    Store(tmp_path).add(record("a", [1] * 10))
    assert bench().stdout.strip().endswith("leaderboard/index.html: 1 row on 1 board")
    lost = bench(str(tmp_path / "none"))
    assert (lost.exit_code, "no submission.json" in lost.output) == (2, True)
    (tmp_path / "s.json").write_text('{"format": 1, "attack": "x"}')
    assert "makes no claims" in bench(str(tmp_path / "s.json")).output
    (tmp_path / "s.json").write_text('{"format": 2, "attack": "x"}')
    assert "format: Input should be 1" in bench(str(tmp_path / "s.json")).output


@pytest.mark.parametrize("eps", ["8/255", "0.5"])
def test_an_eps_is_the_same_however_it_is_written(eps: str) -> None:
    ours = record("ours", [5] * 10, eps={"0.5": "1/2"}.get(eps, eps))
    assert names(board(ours, reported=(about(eps=eps),))) == ["ours", "theirs"]
