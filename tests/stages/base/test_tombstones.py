"""Tombstones recognise a sample by uid, address, domain or content, and reveal no address."""

from __future__ import annotations

from pathlib import Path

from stages.base.tombstones import Tombstones, domain_digest, url_digest


def test_each_way_of_naming_a_sample_finds_it() -> None:
    url = "https://img.example.org/a.jpg"
    nothing = Tombstones()
    assert not nothing
    assert not nothing.covers_pair("p", "i", url)
    assert Tombstones(pairs=frozenset({"p"})).covers_pair("p", "i", url)
    assert Tombstones(images=frozenset({"i"})).covers_pair("q", "i", None)
    assert Tombstones(urls=frozenset({url_digest(url)})).covers_pair("q", "j", f" {url}\n")
    assert Tombstones(sha256=frozenset({"aa"})).covers_content("bb", "aa")
    assert not Tombstones(sha256=frozenset({"aa"})).covers_content("bb")


def test_a_domain_stands_for_its_subdomains_and_for_no_other() -> None:
    marked = Tombstones(domains=frozenset({domain_digest("Example.org.")}))
    assert marked.covers_url("http://example.org/x")
    assert marked.covers_url("http://a.b.EXAMPLE.org:8080/x")
    assert not marked.covers_url("http://badexample.org/x")
    assert not marked.covers_url("http://example.org.evil.net/x")
    assert not marked.covers_url("http://[broken/x")


def test_the_file_holds_digests_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "forgotten.json"
    assert not Tombstones.load(str(path))
    held = Tombstones(urls=frozenset({url_digest("http://secret.example/face.jpg")}))
    both = held | Tombstones(pairs=frozenset({"0" * 32}))
    path.write_text(both.to_json())
    assert "secret" not in path.read_text()
    assert Tombstones.load(str(path)) == both
