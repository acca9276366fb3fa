"""What a server was shown does not come back in what it says, however its answer is cut into pieces."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway.models import hiding

pytestmark = pytest.mark.unit

KEY = 'sk-/a"b-0123456789'


def fed(pieces: list[bytes], secret: str = KEY) -> list[bytes]:
    """What passes of each piece, and of the end."""
    made = hiding.Hiding(secret)
    return [*(made.feed(piece) for piece in pieces), made.end()]


@pytest.mark.parametrize(
    "said",
    [KEY.encode(), rb"sk-/a\"b-0123456789", rb"sk-\/a\"b-0123456789", b"sk-%2Fa%22b-0123456789", base64.b64encode(KEY.encode())],
    ids=["as it is", "JSON", "JSON with escaped slashes", "URL", "Base64"],
)  # fmt: skip
def test_each_form_is_replaced_at_every_cut(said: bytes) -> None:
    whole = b"before " + said + b" after"
    for at in range(len(whole)):
        assert b"".join(fed([whole[:at], whole[at:]])) == b"before [credential] after"
    assert b"".join(fed([whole[at : at + 1] for at in range(len(whole))])) == b"before [credential] after"


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_what_holds_no_credential_is_passed_as_it_is(pieces: list[bytes]) -> None:
    assert b"".join(fed(pieces)) == b"".join(pieces)


def test_whole_events_pass_in_the_pieces_in_which_they_came() -> None:
    events = [b"data: sk-\n\n", b"data: s\n\n", b"data: [DONE]\n\n"]
    assert fed(events) == [*events, b""]


def test_what_only_began_like_it_comes_with_the_next_piece_or_the_end() -> None:
    assert fed([b"a sk-", b"x", b"sk"]) == [b"a ", b"sk-x", b"", b"sk"]


@pytest.mark.parametrize("secret", ["", "short"])
def test_no_word_is_taken_for_a_credential(secret: str) -> None:
    assert fed([b"a short word"], secret)[0] == b"a short word"
