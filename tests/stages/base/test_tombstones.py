"""What is forgotten is recognised by uid, address, domain or content, and the list itself tells none of them."""

from __future__ import annotations

from pathlib import Path

from stages.base.tombstones import Tombstones, domain_digest, url_digest


def test_each_way_of_naming_a_sample_finds_it() -> None:
    url = "https://img.example.org/a.jpg"
    nothing = Tombstones()
    assert not nothing
    assert not nothing.listed("p", "i", url)
    assert Tombstones(pairs=frozenset({"p"})).listed("p", "i", url)
    assert Tombstones(images=frozenset({"i"})).listed("q", "i", None)
    assert Tombstones(urls=frozenset({url_digest(url)})).listed("q", "j", f" {url}\n")
    assert Tombstones(sha256=frozenset({"aa"})).content("bb", "aa")
    assert not Tombstones(sha256=frozenset({"aa"})).content("bb")


def test_a_domain_stands_for_its_subdomains_and_for_no_other() -> None:
    marked = Tombstones(domains=frozenset({domain_digest("Example.org.")}))
    assert marked.address("http://example.org/x")
    assert marked.address("http://a.b.EXAMPLE.org:8080/x")
    assert not marked.address("http://badexample.org/x")
    assert not marked.address("http://example.org.evil.net/x")
    assert not marked.address("http://[broken/x")


def test_the_file_holds_digests_and_reads_back(tmp_path: Path) -> None:
    place = tmp_path / "forgotten.json"
    assert not Tombstones.load(str(place))
    held = Tombstones(urls=frozenset({url_digest("http://secret.example/face.jpg")}))
    both = held | Tombstones(pairs=frozenset({"0" * 32}))
    place.write_text(both.to_json())
    assert "secret" not in place.read_text()
    assert Tombstones.load(str(place)) == both
