"""What a shim is told: read strictly, and never two secrets or none."""

import json

import pytest

from moorage_sandbox.config import ShimConfig

pytestmark = pytest.mark.unit

TOLD = {
    "sandbox": "sb-1", "tenant": "t", "agent": "a", "revision": "r1", "endpoint": "unix:/s", "token": "tok.en", "volume": "/v",
}  # fmt: skip
HASH = "ab" * 32


@pytest.mark.parametrize(
    "more", [{"secret": "s"}, {"secret_sha256": HASH}, {"secret_sha256": HASH, "token_file": "/run/token"}]
)
def test_one_secret_or_the_hash_of_one_is_told_and_reads_back_the_same(more):
    config = ShimConfig.from_dict(TOLD | more)
    assert ShimConfig.from_json(config.to_json()) == config
    assert {name: value for name, value in json.loads(config.to_json()).items() if name in more} == more


@pytest.mark.parametrize("more", [{}, {"secret": ""}, {"secret": "s", "secret_sha256": HASH}])
def test_no_secret_at_all_or_both_forms_is_refused_by_name(more):
    with pytest.raises(ValueError, match="exactly one of secret and secret_sha256"):
        ShimConfig.from_dict(TOLD | more)


@pytest.mark.parametrize("found", ["ab", HASH.upper(), HASH + "\n", "g" * 64])
def test_what_is_no_hash_is_refused_before_it_locks_everybody_out(found):
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        ShimConfig.from_dict(TOLD | {"secret_sha256": found})
