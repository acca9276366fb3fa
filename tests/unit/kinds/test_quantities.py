"""Quantities read as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.kinds import quantities

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("text", "value"), [("500m", 500), ("1", 1000), ("0.25", 250), ("2.5", 2500), ("1500m", 1500)])
def test_cpu_is_read_in_thousandths(text: str, value: int) -> None:
    assert quantities.millicores(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("512Mi", 512 * 2**20), ("1Gi", 2**30), ("1.5Gi", 3 * 2**29), ("500M", 500_000_000), ("1024", 1024), ("1k", 1000)],
)
def test_sizes_are_read_in_bytes(text: str, value: int) -> None:
    assert quantities.octets(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("15m", 900), ("8h", 28800), ("30d", 2592000), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_durations_are_read_in_seconds(text: str, value: float) -> None:
    assert quantities.seconds(text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "1 Gi", "1GiB", "Gi", "٣Gi", "1e9999", "0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|more than 0"):
        quantities.octets(text)


@given(st.text(max_size=30))
def test_no_text_breaks_a_reader_otherwise_than_by_refusal(text: str) -> None:
    for reader in (quantities.millicores, quantities.octets, quantities.seconds):
        try:
            assert reader(text) > 0
        except ValueError:
            pass
