import json

import pytest
from review import errors, index
from review.budget import Budget, Limits
from review.index import Index
from review.transport import MemoryTransport, NetworkSettings

pytestmark = pytest.mark.unit
BASE = "https://index.test/simple"
JSON = "application/vnd.pypi.simple.v1+json"


def at(pages):
    transport = MemoryTransport(pages)
    return Index(BASE, transport), transport


def test_the_sdist_of_a_release_comes_first_and_then_the_most_portable_wheel(published):
    names = ["p-1.0-cp311-cp311-linux_x86_64.whl", "p-1.0-py3-none-any.whl", "p-1.0.tar.gz", "p-2.0.tar.gz"]
    there, _ = at(published({"p": dict.fromkeys(names, b"x")}))
    found = index.release(there.files("p", Budget.start()), "p", "1.0")
    assert [f.name for f in found] == ["p-1.0.tar.gz", names[1], names[0]]


def test_versions_are_compared_as_versions_and_not_as_text(published):
    there, _ = at(published({"p": {"p-1.0.tar.gz": b"x"}}))
    assert index.release(there.files("p", Budget.start()), "p", "v1.0.0")[0].name == "p-1.0.tar.gz"


def test_the_html_form_is_read_like_the_json_form():
    page = (
        '<html><body><a href="../../files/p-1.0.tar.gz#sha256=ab12" data-yanked="broken">p-1.0.tar.gz</a>'
        '<a href="https://files.test/p-1.0-py3-none-any.whl#sha256=cd34" data-core-metadata="sha256=ef56">w</a>'
        '<a href="p-1.0.exe">x</a></body></html>'
    )
    there, _ = at({f"{BASE}/p/": ("text/html", page.encode())})
    sdist, wheel = there.files("p", Budget.start())
    assert sdist.url == "https://index.test/files/p-1.0.tar.gz"
    assert (sdist.hashes, sdist.yanked, sdist.metadata_hashes) == ((("sha256", "ab12"),), True, None)
    assert wheel.metadata_hashes == (("sha256", "ef56"),)


def test_a_project_is_asked_for_under_its_normalised_name(published):
    there, transport = at(published({"a-b-c": {"a_b_c-1.tar.gz": b"x"}}))
    assert there.files("A.b__C", Budget.start())
    assert transport.asked == [f"{BASE}/a-b-c/"]


@pytest.mark.parametrize("name", ["../admin", "a/b", "", "-x", "a b", "x" * 200])
def test_what_cannot_be_a_project_name_never_reaches_the_index(name):
    there, transport = at({})
    with pytest.raises(errors.NotFound):
        there.files(name, Budget.start())
    assert transport.asked == []


def test_a_missing_project_and_a_missing_release_are_named_with_what_there_is(published):
    there, _ = at(published({"p": {"p-1.0.tar.gz": b"x", "p-1.1.tar.gz": b"x"}}))
    with pytest.raises(errors.NotFound, match="no project `q`"):
        there.files("q", Budget.start())
    with pytest.raises(errors.NotFound, match=r"no release 9 of p \(newest: 1.0, 1.1\)"):
        index.release(there.files("p", Budget.start()), "p", "9")
    with pytest.raises(errors.NotFound, match="not a version"):
        index.release(there.files("p", Budget.start()), "p", "newest")


@pytest.mark.parametrize("page", [b"{}", b"[]", b"{", b'{"files": [{}]}', b'{"files": 3}', b"[" * 100_000])
def test_a_page_that_makes_no_sense_counts_as_an_index_that_cannot_be_reached(page):
    there, _ = at({f"{BASE}/p/": (JSON, page)})
    with pytest.raises(errors.Unreachable):
        there.files("p", Budget.start())


def test_a_file_with_another_hash_is_refused_and_not_kept(tmp_path, published):
    pages = published({"p": {"p-1.0.tar.gz": b"right"}})
    pages["https://files.test/p-1.0.tar.gz"] = ("application/octet-stream", b"wrong")
    there, _ = at(pages)
    with pytest.raises(errors.Hostile, match="sha256"):
        there.download(there.files("p", Budget.start())[0], tmp_path / "d", Budget.start())
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize("hashes", [{}, {"md5": "d41d8cd98f00b204e9800998ecf8427e"}])
def test_a_file_without_a_strong_hash_is_refused(tmp_path, hashes):
    row = {"filename": "p-1.0.tar.gz", "url": "https://files.test/p-1.0.tar.gz", "hashes": hashes}
    there, _ = at({f"{BASE}/p/": (JSON, json.dumps({"files": [row]}).encode())})
    with pytest.raises(errors.Hostile, match="no usable hash"):
        there.download(there.files("p", Budget.start())[0], tmp_path, Budget.start())


def test_a_file_over_the_cap_is_refused_and_not_kept(tmp_path, published):
    there, _ = at(published({"p": {"p-1.0.tar.gz": b"x" * 100}}))
    budget = Budget.start(Limits(download_bytes=10))
    with pytest.raises(errors.TooLarge):
        there.download(there.files("p", budget)[0], tmp_path / "d", budget)
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize(
    ("specifier", "expected"), [("", "1.1"), ("<1.1", "1.0"), ("==1.0", "1.0"), (">=2rc1", "2.0rc1"), (">=3", None)]
)
def test_the_newest_release_that_a_requirement_allows_is_found(published, specifier, expected):
    there, _ = at(published({"p": dict.fromkeys(["p-1.0.tar.gz", "p-1.1.tar.gz", "p-2.0rc1.tar.gz"], b"x")}))
    found = there.newest("p", specifier, Budget.start())
    assert (str(found[0].version) if found else None) == expected


def test_the_index_address_comes_from_pips_or_uvs_settings_and_its_password_goes_no_further():
    settings = NetworkSettings.from_environment({"UV_DEFAULT_INDEX": "https://u:p%40ss@mirror.test/simple"})
    there = Index.over_http(settings)
    assert "ss" not in there._base.replace("simple", "").replace("https", "")
    assert there._transport._credentials == {"mirror.test": "u:p@ss"}
    first = NetworkSettings.from_environment({"PIP_INDEX_URL": "https://a.test", "UV_DEFAULT_INDEX": "https://b.test"})
    assert first.index == "https://a.test"
    assert NetworkSettings.from_environment({}).index.startswith("https://")  # pip's own, where there is a pip


def test_proxy_and_ca_settings_are_read_in_both_spellings():
    settings = NetworkSettings.from_environment(
        {
            "HTTPS_PROXY": "http://one:1",
            "http_proxy": "http://two:2",
            "NO_PROXY": "x.test",
            "PIP_CERT": "/ca",
            "SSL_CERT_FILE": "/ca",
        }
    )
    assert settings.proxies == {"https": "http://one:1", "http": "http://two:2", "no": "x.test"}
    assert settings.ca_files == ("/ca",)
