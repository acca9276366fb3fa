"""`moorage.step` where nobody remembers it: what runs, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

import moorage

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOORAGE_STEPS_URL", raising=False)


def add(a: int, b: int = 0) -> int:
    return a + b


async def add_later(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


def test_a_plain_function_is_run_and_its_result_returned() -> None:
    assert moorage.step("add", add, 1, b=2) == 3


async def test_an_async_function_is_awaited_however_it_is_given() -> None:
    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return a + b

    assert await moorage.step("add", add_later, 1, b=2) == 3
    assert await moorage.step("add", functools.partial(add_later, 1), b=2) == 3
    assert await moorage.step("add", Adder(), 1, 2) == 3


def test_every_attempt_gets_what_json_makes_of_the_result() -> None:
    assert moorage.step("pair", lambda: {"pair": (1, 2), 3: None}) == {"pair": [1, 2], "3": None}


def test_a_failure_is_one_exception_with_the_real_one_behind_it() -> None:
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(moorage.StepFailed, match=r"Step 'look' failed: KeyError: 'x'") as caught:
        moorage.step("look", fails)
    assert (caught.value.name, caught.value.type, caught.value.reason) == ("look", "KeyError", "'x'")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (object(), "cannot be kept as JSON"),
        (float("nan"), "cannot be kept as JSON"),
        ("x" * (8 * 2**20), "8 MiB"),
        (add_later(1), "async def"),
    ],
    ids=["object", "nan", "large", "awaitable"],
)
def test_a_result_that_cannot_be_kept_is_a_failure_that_says_what_to_return(result: Any, says: str) -> None:
    with pytest.raises(moorage.StepFailed, match=says):
        moorage.step("odd", lambda: result)


def test_a_step_within_a_step_is_refused_with_a_sentence_also_in_a_thread_of_its_own() -> None:
    with pytest.raises(moorage.StepFailed, match="Step 'inner' is begun within step 'outer'"):
        moorage.step("outer", lambda: moorage.step("inner", add, 1))
    assert moorage.step("next", add, 1) == 1

    async def outer() -> Any:
        return await asyncio.to_thread(moorage.step, "inner", add, 1)

    with pytest.raises(moorage.StepFailed, match="within step"):
        asyncio.run(moorage.step("outer", outer))


async def test_steps_beside_each_other_are_not_within_each_other() -> None:
    assert await asyncio.gather(*(moorage.step("add", add_later, n) for n in range(5))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["", "a\nb", "n" * 129, 7])
def test_a_name_that_is_none_is_refused_before_anything_runs(name: Any) -> None:
    ran: list[int] = []
    with pytest.raises(moorage.Misuse, match="1 to 128 printable"):
        moorage.step(name, ran.append, 1)
    assert ran == []
