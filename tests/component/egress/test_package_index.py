"""This machine's package index inside a sandbox: settings found, hosts derived, credentials kept out."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moorage_gateway import package_index
from moorage_gateway.egress.rules import Target

pytestmark = pytest.mark.component

PAGE = (
    b'<!DOCTYPE html><a href="https://files.example/packages/pip-1.whl#sha256=0">pip</a>'
    b'<a data-x="1" HREF=\'../../own/pip-2.whl\'>x</a><a href="ftp://odd.example/x">y</a><a href="https://u:p@bad.example/">z</a>'
)


def never(url: str, ca_file: Path | None) -> bytes:
    raise OSError("no network")


def read(tmp_path: Path, **environ: str) -> package_index.Settings:
    return package_index.read_settings(environ, tmp_path / "home", root=tmp_path / "root")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_any_setting_the_index_is_the_public_one(tmp_path: Path) -> None:
    assert read(tmp_path) == package_index.Settings(package_index.pips_own().index)


def test_the_environment_counts_before_files_and_uv_before_pip(tmp_path: Path) -> None:
    write(
        tmp_path / "root/etc/pip.conf",
        "[global]\nindex-url = https://system.example/simple\nextra-index-url = https://b.example\n",
    )
    assert read(tmp_path).index == "https://system.example/simple"
    write(tmp_path / "home/.config/pip/pip.conf", "[install]\nindex-url=https://user.example/simple\n")
    assert read(tmp_path).index == "https://user.example/simple"
    write(
        tmp_path / "home/.config/uv/uv.toml",
        '[[index]]\nurl="https://x.example"\n[[index]]\nurl="https://uv.example"\ndefault=true\n',
    )
    found = read(tmp_path)
    assert found.index == "https://uv.example" and found.extra == ("https://x.example", "https://b.example")
    assert read(tmp_path, PIP_INDEX_URL="https://env.example").index == "https://env.example"
    both = read(tmp_path, PIP_INDEX_URL="https://env.example", UV_DEFAULT_INDEX="own=https://uvenv.example")
    assert both.index == "https://uvenv.example"


def test_files_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    write(tmp_path / "root/etc/pip.conf", "index-url = no section\n\xff")
    write(tmp_path / "home/.config/uv/uv.toml", "[[broken")
    assert read(tmp_path) == package_index.Settings(package_index.pips_own().index)


def test_the_ca_file_is_taken_where_it_exists(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    assert read(tmp_path, SSL_CERT_FILE=str(ca)).ca_file is None
    ca.write_text("x")
    assert read(tmp_path, SSL_CERT_FILE=str(ca)).ca_file == ca
    write(tmp_path / "root/etc/pip.conf", f"[global]\ncert = {ca}\n")
    assert read(tmp_path).ca_file == ca


async def test_the_hosts_are_the_index_and_the_file_hosts_of_its_pages() -> None:
    asked: list[str] = []

    def fetch(url: str, ca_file: Path | None) -> bytes:
        asked.append(url)
        return PAGE

    settings = package_index.Settings("https://index.example:8443/simple/", ("http://extra.example",))
    found = await package_index.discover(settings, fetch=fetch)
    assert asked[0] == "https://index.example:8443/simple/pip/"
    assert found.hosts == {
        Target("index.example", 8443), Target("extra.example", 80), Target("files.example", 443),
    }  # fmt: skip
    assert found.env["PIP_INDEX_URL"] == found.env["UV_DEFAULT_INDEX"] == settings.index
    assert found.env["PIP_EXTRA_INDEX_URL"] == "http://extra.example" and "SSL_CERT_FILE" not in found.env


async def test_an_index_that_does_not_answer_still_has_its_hosts(tmp_path: Path) -> None:
    own = package_index.pips_own()
    found = await package_index.discover(package_index.Settings(own.index, ca_file=tmp_path), fetch=never)
    assert own.file_host and found.hosts == {
        Target(urlsplit(own.index).hostname or "", 443),
        Target(own.file_host, 443),
    }
    assert found.env["SSL_CERT_FILE"] == found.env["PIP_CERT"] == package_index.INSIDE_CA


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:canary@index.example/simple", "credentials"),
        ("https://canary@index.example/simple", "credentials"),
        ("https://:canary@index.example/simple", "credentials"),
        ("https://@index.example/simple", "credentials"),
        ("https://index.example/simple?token=canary", "query"),
        ("file:///srv/index", "http"),
        ("/srv/canary", "http"),
        ("https://10.0.0.1/simple", "number"),
        ("https://[::1]/simple", "number"),
        ("https://index.example:99999/simple", "not an address"),
    ],
)
async def test_an_index_that_may_not_be_told_inside_is_refused_without_its_secret(url: str, words: str) -> None:
    for settings in (package_index.Settings(url), package_index.Settings("https://index.example", extra=(url,))):
        with pytest.raises(package_index.IndexRefused) as caught:
            await package_index.discover(settings, fetch=never)
        assert words in str(caught.value)
        if "@" in url:
            assert "canary" not in str(caught.value)


def test_links_are_read_from_both_forms_of_a_page() -> None:
    assert package_index.links_of(PAGE)[0] == "https://files.example/packages/pip-1.whl"
    assert package_index.links_of(b'{"files": [{"url": "https://a.example/x"}, 7]}') == ("https://a.example/x",)
    for broken in (b"", b"{", b'{"files": 7}', b"{}", b"\xff\xfe", b"[]"):
        assert package_index.links_of(broken) == ()


async def test_a_page_with_many_hosts_opens_only_a_few() -> None:
    page = b"".join(b'<a href="https://h%d.example/x">x</a>' % n for n in range(100))
    found = await package_index.discover(package_index.Settings("https://i.example"), fetch=lambda *_: page)
    assert len(found.hosts) == package_index.FILE_HOSTS + 1


async def test_a_page_is_fetched_over_http_within_bounds(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + PAGE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = await package_index.discover(package_index.Settings(f"http://localhost:{port}/simple"))
    assert Target("files.example", 443) in found.hosts and Target("localhost", port) in found.hosts
    server.close()


@pytest.mark.index
async def test_the_index_of_this_machine_is_found_with_its_file_host() -> None:
    settings = package_index.read_settings(os.environ, Path.home())
    found = await package_index.discover(settings)
    assert len(found.hosts) >= 2 or settings.index != package_index.pips_own().index
    if settings.ca_file is not None:
        ssl.create_default_context(cafile=str(settings.ca_file))
