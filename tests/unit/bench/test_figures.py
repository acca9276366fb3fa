"""Medians, percentiles, ratios and alternation, as the recorded figures need them."""

from __future__ import annotations

import pytest

from bench import figures

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("samples", "middle"), [([3], 3), ([1, 9, 2], 2), ([4, 1, 3, 2], 2.5)])
def test_the_median_is_the_middle_or_the_mean_of_the_middle_two(samples: list[float], middle: float) -> None:
    assert figures.median(samples) == middle


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)], ids=lambda v: f"{v:g}"
)
def test_a_percentile_is_the_smallest_sample_that_covers_it(percent: float, value: float) -> None:
    assert figures.percentile(list(range(100, 0, -1)), percent) == value


@pytest.mark.parametrize("of", [figures.median, figures.spread, lambda none: figures.percentile(none, 50)])
def test_no_samples_give_no_figure(of: object) -> None:
    with pytest.raises(ValueError, match="no samples"):
        of([])  # type: ignore[operator]


def test_a_spread_names_the_lowest_and_the_highest_repetition() -> None:
    found = figures.spread([120.0, 98.4, 101.0])
    assert (found.middle, found.low, found.high) == (101.0, 98.4, 120.0)
    assert str(found) == "98.4–120"


def test_the_interval_of_a_clear_ratio_excludes_one_and_that_of_noise_does_not() -> None:
    clear = figures.ratio([10.0, 11, 10, 12, 11], [5.0, 5, 6, 5, 5])
    assert clear.low > 1 and clear.low <= clear.middle <= clear.high
    noise = figures.ratio([10.0, 14, 9, 12, 11], [12.0, 10, 11, 9, 13])
    assert noise.low <= 1 <= noise.high


def test_a_ratio_is_the_same_on_every_evaluation_of_the_same_samples() -> None:
    samples = [3.0, 4, 5, 4], [2.0, 2, 3, 2]
    assert figures.ratio(*samples) == figures.ratio(*samples)


def test_a_slope_leaves_out_what_both_points_spend_beside_the_unit() -> None:
    assert figures.slope((32, 0.5 + 32 * 0.01), (3232, 0.5 + 3232 * 0.01)) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="more units"):
        figures.slope((5, 1), (5, 2))


def test_subjects_are_measured_in_turn_and_no_subject_is_always_first() -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = figures.alternated(3, ["a", "b"], measure)
    assert "".join(order) == "abbaab"
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12346"),
        (-1.239, "-1.24"),
    ],
)
def test_short_numbers_keep_three_digits_and_no_power_of_ten(value: float, text: str) -> None:
    assert figures.short(value) == text
