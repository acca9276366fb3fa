"""Says what an image holds; run by the Dockerfiles in their build stage, by the Python whose packages are meant.

--sbom FILE      writes a CycloneDX list of the environment's Python packages and the base's Debian packages
--project FILE   the pyproject.toml whose name and version the image goes by; its metadata is put into the environment, because our
                 own packages are copied and not installed, and yet tell their version

The same packages give the same bytes: no time, no serial number. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG = Path("/var/lib/dpkg/status")


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="image_contents", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--sbom", type=Path, required=True)
    given = parser.parse_args()
    project = tomllib.loads(given.project.read_text(encoding="utf-8"))["project"]
    packages = Path(sysconfig.get_path("purelib"))
    debian = DPKG.read_text(encoding="utf-8") if DPKG.is_file() else ""
    given.sbom.write_text(
        json.dumps(sbom(project, packages, debian), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    describe(project, packages)
    return 0


def describe(project: dict[str, Any], packages: Path) -> None:
    """Writes `NAME-VERSION.dist-info/METADATA` into the folder of packages."""
    name, version = project["name"], project["version"]
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: {project['license']}\n"
    # What the SDK needs: a build makes the wheel of agents' environments out of it.
    text += "".join(f"Requires-Dist: {line}\n" for line in project.get("dependencies", ()))
    (folder / "METADATA").write_text(text, encoding="utf-8")


def sbom(project: dict[str, Any], packages: Path, debian: str) -> dict[str, Any]:
    """A CycloneDX 1.6 document. `debian`: text of a dpkg status file, empty for none."""
    found = [*_python(packages), *_debian(debian)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": project["name"], "version": project["version"]}},
        "components": sorted(found, key=lambda each: each["purl"]),
    }


def _python(packages: Path) -> list[dict[str, Any]]:
    found = []
    for each in metadata.distributions(path=[str(packages)]):
        name, version = each.metadata["Name"], each.version
        one: dict[str, Any] = _component(
            name, version, f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}"
        )
        if licence := each.metadata.get("License-Expression"):
            one["licenses"] = [{"expression": licence}]
        found.append(one)
    return found


def _debian(status: str) -> list[dict[str, Any]]:
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            found.append(_component(name, version, purl))
    return found


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


if __name__ == "__main__":
    sys.exit(main())
