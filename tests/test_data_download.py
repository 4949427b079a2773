import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.data import download
from pipeline.data.download import PUBLISHED, Published, fetch, fetch_published
from pipeline.data.idx import FILES
from pipeline.data.watcher import Silent

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Spoken(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges. Paths: good, cut (a part, then it hangs up), plain (no ranges), wrong, gone."""

    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if self.path == "/gone":
            self.send_error(404)
            return
        content = CONTENT[::-1] if self.path == "/wrong" else CONTENT
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.path != "/plain" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[:100_000] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    monkeypatch.setenv("no_proxy", "*")
    Handler.ranges.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield lambda path: f"http://127.0.0.1:{httpd.server_address[1]}/{path}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, server: Callable[[str], str]) -> None:
    target = tmp_path / "set" / "file.gz"
    spoken = Spoken()
    fetch([server("cut"), server("good")], target, SHA256, watcher=spoken, wait_s=0)
    assert target.read_bytes() == CONTENT
    assert Handler.ranges == [None, "bytes=100000-"]
    assert any("the connection ended after 100000 of 512000 bytes" in line for line in spoken.lines)
    assert [path.name for path in target.parent.iterdir()] == ["file.gz"]


def test_a_later_run_continues_the_part_of_an_earlier_one(tmp_path: Path, server: Callable[[str], str]) -> None:
    target = tmp_path / "file.gz"
    with pytest.raises(ValueError, match=r"could not be fetched .* check the network and run again"):
        fetch([server("gone")], target, SHA256, watcher=Silent(), wait_s=0)
    (tmp_path / "file.gz.part").write_bytes(CONTENT[:7])
    fetch([server("good")], target, SHA256, watcher=Silent(), wait_s=0)
    assert target.read_bytes() == CONTENT
    assert Handler.ranges[-1] == "bytes=7-"


def test_a_complete_part_is_taken_as_it_is(tmp_path: Path, server: Callable[[str], str]) -> None:
    (tmp_path / "file.gz.part").write_bytes(CONTENT)
    fetch([server("good")], tmp_path / "file.gz", SHA256, watcher=Silent(), wait_s=0)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file_again(tmp_path: Path, server: Callable[[str], str]) -> None:
    (tmp_path / "file.gz.part").write_bytes(CONTENT[:7])
    fetch([server("plain")], tmp_path / "file.gz", SHA256, watcher=Silent(), wait_s=0)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(tmp_path: Path, server: Callable[[str], str]) -> None:
    (tmp_path / "file.gz.part").write_bytes(b"something else")
    fetch([server("good")], tmp_path / "file.gz", SHA256, watcher=Silent(), wait_s=0)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_leaves_no_file(tmp_path: Path, server: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match=rf"file\.gz could not be fetched .*has sha256 .*, wanted {SHA256}"):
        fetch([server("wrong")], tmp_path / "file.gz", SHA256, watcher=Silent(), wait_s=0)
    assert list(tmp_path.iterdir()) == []


def test_the_second_home_is_asked_when_the_first_fails(tmp_path: Path, server: Callable[[str], str]) -> None:
    fetch([server("wrong"), server("good")], tmp_path / "file.gz", SHA256, watcher=Silent(), wait_s=0)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_what_lies_in_the_cache_is_not_fetched_again(tmp_path: Path, server: Callable[[str], str]) -> None:
    (tmp_path / "file.gz").write_bytes(CONTENT)
    fetch([server("gone")], tmp_path / "file.gz", SHA256, watcher=Silent())
    assert Handler.ranges == []
    (tmp_path / "file.gz").write_bytes(CONTENT[:-1])
    fetch([server("good")], tmp_path / "file.gz", SHA256, watcher=Silent())
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_a_silent_server_is_given_up_after_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ROUNDS", 1)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # listens, but never answers
    url = f"http://127.0.0.1:{httpd.server_address[1]}/good"
    with httpd, pytest.raises(ValueError, match="timed out"):
        fetch([url], tmp_path / "file.gz", SHA256, watcher=Silent(), timeout_s=0.2)


def test_the_mirror_is_used_before_the_network_and_checked(tmp_path: Path) -> None:
    published = Published("letters", ("https://nowhere.invalid/",), (SHA256,) * 4, ["a", "b"])
    (tmp_path / "letters").mkdir()
    for name in FILES:
        (tmp_path / "letters" / f"{name}.gz").write_bytes(CONTENT)
    found = fetch_published(published, cache=tmp_path / "cache", mirror=tmp_path, watcher=Silent())
    assert found == [tmp_path / "letters" / f"{name}.gz" for name in FILES]
    found[1].write_bytes(b"other")
    with pytest.raises(ValueError, match=r"letters/train-labels-idx1-ubyte\.gz has sha256 .* wanted .*: replace it by"):
        fetch_published(published, cache=tmp_path / "cache", mirror=tmp_path, watcher=Silent())


def test_every_published_home_is_https_and_every_checksum_a_sha256() -> None:
    for published in PUBLISHED.values():
        assert all(home.startswith("https://") and home.endswith("/") for home in published.homes)
        assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in published.sha256)
        assert len(published.class_names) == 10
