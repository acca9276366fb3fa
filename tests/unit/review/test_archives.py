import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from review import archives, errors
from review.budget import Budget, Limits

pytestmark = pytest.mark.unit


def tar_with(*members, payload=b"x = 1\n"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(payload) if info.type == tarfile.REGTYPE else None)
    return packed.getvalue()


def unpack(tmp_path, content, name="bad-1.0.tar.gz", limits=None):
    archive = tmp_path / name
    archive.write_bytes(content)
    return archives.unpack(archive, tmp_path / "out", Budget.start(limits))


def outside(tmp_path):
    """What lies beside the output folder, or anywhere that a traversal of these tests could have reached."""
    beside = [p.name for p in tmp_path.iterdir() if p.name != "out" and not p.name.startswith("bad-1.0")]
    return beside + [p for p in (tmp_path.parent / "evil.py", Path("/evil.py")) if p.exists()]


def test_sources_and_metadata_are_written_and_nothing_else(tmp_path, tar_gz):
    files = {
        "p-1/p/__init__.py": "a = 1\n",
        "p-1/PKG-INFO": "Name: p\n",
        "p-1/p/data.so": "ELF",
        "p-1/x.pth": "import os",
    }
    done = unpack(tmp_path, tar_gz(files))
    written = sorted(p.relative_to(done.root).as_posix() for p in done.root.rglob("*") if p.is_file())
    assert written == ["p-1/PKG-INFO", "p-1/p/__init__.py"]
    assert done.written == 2


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "p/../../evil.py", "/evil.py", "C:/evil.py", "p\\..\\evil.py", "p/\nevil.py", "a/" * 40 + "e.py"],
)
def test_a_member_that_points_outside_ends_the_unpacking_and_leaves_nothing(tmp_path, name):
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, tar_with(("good.py", {}), (name, {})))
    assert not (tmp_path / "out").exists()
    assert outside(tmp_path) == []


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "p/../../evil.py"])
def test_a_zip_member_that_points_outside_is_refused_as_well(tmp_path, zipped, name):
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, zipped({name: "x"}), "bad-1.0-py3-none-any.whl")
    assert outside(tmp_path) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_devices_pipes_and_sparse_files_are_refused(tmp_path, kind):
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, tar_with(("device.py", {"type": kind, "size": 0})))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_left_out_so_nothing_can_be_written_through_them(tmp_path, kind):
    content = tar_with(("p/link", {"type": kind, "linkname": "/etc", "size": 0}), ("p/real.py", {}))
    done = unpack(tmp_path, content)
    assert done.links == 1
    assert [p.name for p in done.root.rglob("*") if not p.is_dir()] == ["real.py"]


def test_a_file_below_a_link_lands_in_a_folder_of_the_output(tmp_path):
    content = tar_with(("p", {"type": tarfile.SYMTYPE, "linkname": "/tmp", "size": 0}), ("p/inside.py", {}))
    done = unpack(tmp_path, content)
    assert (done.root / "p" / "inside.py").is_file()
    assert not (done.root / "p").is_symlink()


def test_a_link_in_a_zip_is_left_out(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        link = zipfile.ZipInfo("p/link.py")
        link.external_attr = 0o120777 << 16
        bundle.writestr(link, "/etc/passwd")
    assert unpack(tmp_path, packed.getvalue(), "p-1-py3-none-any.whl").written == 0


@pytest.mark.parametrize("pair", [("a.py", "a.py"), ("a.py", "a.py/b.py")])
def test_one_name_for_two_things_is_refused(tmp_path, pair):
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, tar_with(*((name, {}) for name in pair)))


def test_a_compression_bomb_stops_at_the_cap(tmp_path):
    bomb = gzip.compress(b"\0" * 40_000_000)
    with pytest.raises(errors.TooLarge):
        unpack(tmp_path, bomb, limits=Limits(unpacked_bytes=1_000_000))
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 200_000


def test_a_zip_bomb_stops_at_the_cap_whatever_sizes_it_declares(tmp_path, zipped):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for n in range(30):
            bundle.writestr(f"p/m{n}.py", b"#" * 100_000)
    with pytest.raises(errors.TooLarge):
        unpack(tmp_path, packed.getvalue(), "b-1-py3-none-any.whl", Limits(unpacked_bytes=1_000_000))


def test_a_tar_header_that_claims_a_huge_name_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1 << 33
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, gzip.compress(header + b"a" * 5000))


def test_a_zip_that_lists_millions_of_members_is_refused_before_they_are_read(tmp_path, zipped):
    content = bytearray(zipped({"a.py": "x"}))
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = (64 * 1024 * 1024).to_bytes(4, "little")
    with pytest.raises(errors.TooLarge):
        unpack(tmp_path, bytes(content), "m-1-py3-none-any.whl")


def test_more_members_than_the_cap_are_refused(tmp_path, tar_gz):
    with pytest.raises(errors.TooLarge):
        unpack(tmp_path, tar_gz({f"p/m{n}.py": "" for n in range(30)}), limits=Limits(files=20))


def test_one_oversized_source_is_left_out_and_named(tmp_path, tar_gz):
    done = unpack(tmp_path, tar_gz({"p/big.py": "#" * 5000, "p/a.py": "a"}), limits=Limits(source_bytes=1000))
    assert done.oversized == ("p/big.py",)
    assert done.written == 1


@pytest.mark.parametrize("name", ["x-1.tar.gz", "x-1.zip"])
def test_garbage_is_not_an_archive(tmp_path, name):
    with pytest.raises(errors.Hostile):
        unpack(tmp_path, b"\x1f\x8b\x08garbage" * 10, name)


def test_an_unknown_format_is_said_to_be_one(tmp_path):
    with pytest.raises(errors.NotFound):
        unpack(tmp_path, b"7z", "x-1.7z")


def test_cancelling_stops_in_the_middle(tmp_path, tar_gz):
    archive = tmp_path / "x-1.tar.gz"
    archive.write_bytes(tar_gz({"p/a.py": "a"}))
    with pytest.raises(errors.Cancelled):
        archives.unpack(archive, tmp_path / "out", Budget.start(cancelled=lambda: True))
    assert not (tmp_path / "out").exists()
