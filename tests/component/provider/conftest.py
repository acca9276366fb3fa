"""Policy of these tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("component.provider.conformance")
