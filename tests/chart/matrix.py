"""The sets of values that the chart is rendered with. Values only."""

from __future__ import annotations

from pathlib import Path

from chart import helm
from tree import ROOT

GOLDEN = ROOT / "tests" / "chart" / "golden"
IMAGES = ["--set", "image.registry=registry.example/team"]
S3 = ["--set", "store.s3.endpoint=https://s3.example,store.s3.bucket=moorage,store.s3.existingSecret=s3"]
HA: list[str | Path] = ["-f", helm.CHART / "values-ha.yaml", *S3]
EXTERNAL = "valkey.enabled=false,redis.url=rediss://redis.example:6380/0,redis.passwordSecret.name=redis,redis.caSecret.name=redis-ca"
MATRIX: dict[str, list[str | Path]] = {
    "default": [*IMAGES],
    "ha": [*IMAGES, *HA],
    "external-redis": [*IMAGES, "--set", EXTERNAL],
    "everything": ["-f", GOLDEN.parent / "everything.yaml"],
}
