"""A downloaded file is whole and right, or not there; what was fetched once is not fetched again.

All servers are on this machine; the network beyond it is cut off.
"""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import http.server
import io
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from minivit.commands.terminal import one_line
from weights_convert import download as module
from weights_convert.download import DownloadError, cache_folder, download
from weights_convert.foreign_files import no_weights

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Page:
    """What a site answers at one path."""

    content: bytes = CONTENT
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    date: str = "Mon, 01 Jan 2024 00:00:00 GMT"
    ranges: bool = True  # answers Range at all
    conditions: bool = True  # and looks at If-Range
    at_most: int | None = None  # and sends no more than so many bytes of a rest
    announced: bool = True  # sends Content-Length
    cuts: list[int] = field(default_factory=list)  # a connection each: closed after so many bytes
    holds: bool = False  # a connection that is cut stays open and silent until site.release is set


class Site(http.server.ThreadingHTTPServer):
    """A server on this machine that remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.release = threading.Event()

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would ask for the host's name

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""

    def address(self, path: str = "/model.bin") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.headers]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *arguments: object) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.server.pages[self.path].date if self.path in self.server.pages else formatdate()

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path}")
        self.send_error(403)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        current = (page.headers.get("ETag"), page.headers.get("Last-Modified"))
        if page.conditions and self.headers.get("If-Range", current[0]) not in current:
            wanted = None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        partial = wanted is not None and page.ranges and page.status == 200
        body = page.content[start:][: page.at_most] if partial else page.content
        total = len(page.content)
        if partial and not body:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            body = b""
        elif partial:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        else:
            self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if page.announced:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = page.cuts.pop(0) if page.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None and page.holds:
            self.server.release.wait(20)
            self.wfile.write(body[cut:])


@pytest.fixture
def make_site() -> Iterator[Callable[[], Site]]:
    sites: list[Site] = []

    def make() -> Site:
        site = Site()
        sites.append(site)
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        return site

    yield make
    for site in sites:
        site.release.set()
        site.shutdown()
        site.server_close()


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    site = make_site()
    site.pages["/model.bin"] = Page()
    return site


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment, no pause, and no name but this machine's can be resolved."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    connect = socket.create_connection

    def guarded(address: tuple[str, int], *arguments: object, **more: object) -> socket.socket:
        if address[0] != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return connect(address, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_connection", guarded)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "model.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def interrupt(site: Site, target: Path, kept: int = 200_000) -> None:
    """A first call that gets `kept` bytes and then no more."""
    page = site.pages["/model.bin"]
    page.cuts = [kept]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DownloadError):
        patch.setattr(module, "TRIES", 1)
        download(site.address(), target)
    assert part_of(target).read_bytes() == page.content[:kept]
    assert not target.exists()


# --- a file, and one that is there already


@pytest.mark.parametrize("checks", [{}, {"sha256": SHA256}, {"size": len(CONTENT)}])
def test_a_file_arrives_whole_and_alone(
    site: Site, target: Path, checks: dict[str, object]
) -> None:
    assert download(site.address(), str(target), **checks) == target
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["model.bin"]
    assert site.headers[0]["User-Agent"] == "minivit"
    assert "Range" not in site.headers[0]


@pytest.mark.parametrize(
    "checks",
    [
        {},
        {"size": len(CONTENT)},
        {"sha256": SHA256},
        {"sha256": SHA256[:8]},
        {"sha256": SHA256.upper(), "size": len(CONTENT)},
    ],
)
def test_a_file_that_is_there_is_not_asked_for(
    site: Site, target: Path, checks: dict[str, object]
) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert download(site.address(), target, **checks) == target
    assert site.asked == [] and names(target.parent) == ["model.bin"]


def test_a_file_that_is_there_needs_no_right_to_write(site: Site, target: Path) -> None:
    """A folder in the place of the note: not even the superuser could write it."""
    target.with_name("model.bin.part.source").mkdir(parents=True)
    target.write_bytes(CONTENT)
    download(site.address(), target, sha256=SHA256)
    assert site.asked == []


@pytest.mark.parametrize("checks", [{"size": len(CONTENT)}, {"sha256": SHA256[:12]}])
def test_a_file_that_fails_the_checks_is_replaced(
    site: Site, target: Path, checks: dict[str, object]
) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER[:-1])
    download(site.address(), target, **checks)
    assert target.read_bytes() == CONTENT


def test_an_empty_file_is_a_file_where_somebody_said_so(site: Site, target: Path) -> None:
    site.pages["/model.bin"].content = b""
    download(site.address(), target, size=0)
    assert target.read_bytes() == b"" and names(target.parent) == ["model.bin"]


def test_a_file_of_unknown_length_arrives(site: Site, target: Path) -> None:
    site.pages["/model.bin"].announced = False
    download(site.address(), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", ["1234567", "g" * 64, "a" * 65])
def test_a_hash_that_is_none_is_refused(site: Site, target: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="8 to 64"):
        download(site.address(), target, sha256=wrong)
    assert site.asked == []


# --- interrupted and resumed


def test_a_connection_closed_early_is_taken_up_where_it_broke_off(site: Site, target: Path) -> None:
    site.pages["/model.bin"].cuts = [100_000, 50_000]
    download(site.address(), target)
    assert target.read_bytes() == CONTENT
    assert site.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for headers in site.headers] == [None, '"one"', '"one"']


def test_connections_that_keep_closing_end_in_an_error_and_the_next_call_goes_on(
    site: Site, target: Path
) -> None:
    site.pages["/model.bin"].cuts = [100_000, 50_000, 10_000]
    with pytest.raises(DownloadError, match=r"closed after 160,000 of 300,000 bytes .*kept"):
        download(site.address(), target)
    assert len(site.asked) == module.TRIES == 3
    assert part_of(target).read_bytes() == CONTENT[:160_000] and not target.exists()
    download(site.address(), target)
    assert site.ranges()[3:] == ["bytes=160000-"]
    assert target.read_bytes() == CONTENT and names(target.parent) == ["model.bin"]


def test_a_length_that_only_the_caller_knows_tells_that_a_connection_closed_early(
    site: Site, target: Path
) -> None:
    site.pages["/model.bin"].announced = False
    site.pages["/model.bin"].cuts = [100_000]
    download(site.address(), target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=100000-"]


def test_a_server_that_sends_less_than_the_rest_is_asked_again(site: Site, target: Path) -> None:
    interrupt(site, target)
    site.pages["/model.bin"].at_most = 60_000
    download(site.address(), target)
    assert target.read_bytes() == CONTENT
    assert site.ranges() == [None, "bytes=200000-", "bytes=260000-"]


def test_a_silent_server_is_left_and_what_came_is_kept(site: Site, target: Path) -> None:
    page = site.pages["/model.bin"]
    page.cuts, page.holds = [200_001], True
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"silent for 0\.2 seconds .*kept"):
        download(site.address(), target, timeout=0.2)
    assert time.monotonic() - start < 5
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=200001-"]


def test_a_server_without_ranges_starts_again(site: Site, target: Path) -> None:
    site.pages["/model.bin"].ranges = False
    interrupt(site, target)
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=200000-"]


@pytest.mark.parametrize("conditions", [True, False])
def test_a_file_that_changed_is_fetched_anew_and_never_mixed(
    site: Site, target: Path, conditions: bool
) -> None:
    """Also from a server that does not look at If-Range and sends the rest of the new file."""
    interrupt(site, target)
    site.pages["/model.bin"] = Page(OTHER, headers={"ETag": '"two"'}, conditions=conditions)
    download(site.address(), target)
    assert target.read_bytes() == OTHER
    assert site.ranges()[:2] == [None, "bytes=200000-"]


def test_the_version_of_the_last_answer_counts(site: Site, target: Path) -> None:
    interrupt(site, target)
    site.pages["/model.bin"] = Page(OTHER, headers={"ETag": '"two"'}, cuts=[100_000])
    download(site.address(), target)
    assert target.read_bytes() == OTHER
    assert site.headers[2]["Range"] == "bytes=100000-" and site.headers[2]["If-Range"] == '"two"'


EARLIER = "Sun, 31 Dec 2023 00:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"Last-Modified": EARLIER}, EARLIER),
        ({"Last-Modified": EARLIER, "ETag": '"one"'}, '"one"'),
        ({"Last-Modified": EARLIER, "ETag": 'W/"one"'}, None),
        ({"Last-Modified": Page.date}, None),  # it may have changed again within that second
        ({}, None),
    ],
)
def test_only_what_identifies_a_version_makes_a_rest(
    site: Site, target: Path, headers: dict[str, str], if_range: str | None
) -> None:
    """Without it, and without a hash, the rest might belong to another version."""
    site.pages["/model.bin"].headers = headers
    interrupt(site, target)
    download(site.address(), target)
    assert target.read_bytes() == CONTENT
    assert site.headers[1].get("If-Range") == if_range
    assert site.ranges()[1] == ("bytes=200000-" if if_range else None)


def test_with_a_hash_the_rest_is_enough(site: Site, target: Path) -> None:
    site.pages["/model.bin"].headers = {}
    interrupt(site, target)
    site.pages["/model.bin"].headers = {"ETag": '"one"'}  # which cannot be compared with anything
    download(site.address(), target, sha256=SHA256)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=200000-"]


def test_bytes_of_another_address_are_not_continued(site: Site, target: Path) -> None:
    interrupt(site, target)
    site.pages["/mirror.bin"] = Page(OTHER)
    download(site.address("/mirror.bin"), target)
    assert target.read_bytes() == OTHER and site.ranges() == [None, None]


def test_a_part_that_nobody_vouches_for_is_not_continued(site: Site, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(OTHER[:1000])
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None]


def test_a_part_that_is_complete_is_not_fetched_again(site: Site, target: Path) -> None:
    interrupt(site, target)
    part_of(target).write_bytes(CONTENT)
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=300000-"]
    assert names(target.parent) == ["model.bin"]


def test_a_part_that_is_too_long_is_thrown_away(site: Site, target: Path) -> None:
    interrupt(site, target)
    part_of(target).write_bytes(CONTENT + b"more")
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=300004-", None]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("death", ["SIGKILL", "SIGINT"])
def test_after_the_death_of_the_process_the_next_one_goes_on(
    site: Site, target: Path, death: str
) -> None:
    """Killed, or ended with Ctrl-C."""
    page = site.pages["/model.bin"]
    page.cuts, page.holds = [200_000], True
    with start_process(site, target) as process:
        wait_for(lambda: part_of(target).exists() and part_of(target).stat().st_size > 100_000)
        process.send_signal(getattr(signal, death))
        assert process.wait(10) != 0
    assert not target.exists()
    kept = part_of(target).read_bytes()
    assert len(kept) > 100_000 and CONTENT.startswith(kept)
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and names(target.parent) == ["model.bin"]
    assert site.ranges() == [None, f"bytes={len(kept)}-"]


def start_process(site: Site, target: Path) -> subprocess.Popen[bytes]:
    script = "import sys; from weights_convert.download import download; download(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", script, site.address(), str(target)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


# --- two at once


@pytest.mark.skipif(os.name != "posix", reason="without flock two processes are not kept apart")
@pytest.mark.parametrize("dies", [False, True])
def test_of_two_at_once_one_waits_and_takes_what_is_there(
    site: Site, target: Path, dies: bool
) -> None:
    """The whole file, or what one that was killed had got."""
    page = site.pages["/model.bin"]
    page.cuts, page.holds = [200_000], True
    with start_process(site, target) as process:
        wait_for(lambda: part_of(target).exists() and part_of(target).stat().st_size > 100_000)
        results: list[Path] = []
        second = threading.Thread(target=lambda: results.append(download(site.address(), target)))
        second.start()
        time.sleep(0.2)
        assert len(site.asked) == 1 and second.is_alive()
        if dies:
            process.kill()
        else:
            site.release.set()
        second.join(10)
        process.wait(10)
    assert results == [target] and target.read_bytes() == CONTENT
    assert len(site.asked) == (2 if dies else 1)
    assert names(target.parent) == ["model.bin"]


def test_a_lock_on_a_note_that_was_removed_meanwhile_does_not_count(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process waits, another ends and removes the note, and a third makes it anew."""
    note = target.with_name("model.bin.part.source")
    lock, locked = module._lock, []

    def slow_lock(file: IO[str], *arguments: object) -> None:
        lock(file, *arguments)  # type: ignore[arg-type]
        locked.append(os.fstat(file.fileno()).st_ino)
        if len(locked) == 1:
            note.rename(note.with_name("removed"))  # which keeps its number from being used again
            note.touch()

    monkeypatch.setattr(module, "_lock", slow_lock)
    download(site.address(), target)
    assert len(locked) == 2 and locked[0] != locked[1]
    assert names(target.parent) == ["model.bin", "removed"]


# --- wrong content


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ({"sha256": "0" * 64}, f"SHA-256 is {SHA256}, {'0' * 64} was expected"),
        ({"sha256": SHA256[:20] + "0"}, "was expected"),
        ({"size": len(CONTENT) - 1}, "it has 300,000 bytes, 299,999 were expected"),
        ({"size": len(CONTENT) + 1}, "it has 300,000 bytes, 300,001 were expected"),
    ],
)
def test_wrong_content_is_deleted_and_the_old_file_stays(
    site: Site, target: Path, checks: dict[str, object], message: str
) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match=message) as error:
        download(site.address(), target, **checks)
    assert "kept" not in str(error.value)
    assert target.read_bytes() == b"old" and names(target.parent) == ["model.bin"]


def test_the_rest_of_a_wrong_file_is_not_believed(site: Site, target: Path) -> None:
    site.pages["/model.bin"].headers = {}
    interrupt(site, target)
    site.pages["/model.bin"].content = OTHER
    with pytest.raises(DownloadError, match="SHA-256"):
        download(site.address(), target, sha256=SHA256)
    assert names(target.parent) == []


def redirect(to: str, status: int = 302, **headers: str) -> Page:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Page(b"", status, {"Location": to} | more)


@pytest.mark.parametrize("etag", [f'"{SHA256}"', SHA256])
def test_the_hash_in_a_redirect_of_the_hub_counts(site: Site, target: Path, etag: str) -> None:
    site.pages["/resolve"] = redirect("/model.bin", X_Linked_ETag=etag, X_Linked_Size="300000")
    download(site.address("/resolve"), target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    site.pages["/model.bin"] = Page(OTHER)
    with pytest.raises(DownloadError, match=f"{SHA256} was expected"):
        download(site.address("/resolve"), target)
    assert names(target.parent) == []


def test_the_size_in_a_redirect_of_the_hub_counts(site: Site, target: Path) -> None:
    site.pages["/resolve"] = redirect("/model.bin", X_Linked_ETag='"abc"', X_Linked_Size="300001")
    with pytest.raises(DownloadError, match="300,001 were expected"):
        download(site.address("/resolve"), target)


def test_what_the_caller_knows_goes_before_what_the_hub_says(site: Site, target: Path) -> None:
    site.pages["/resolve"] = redirect("/model.bin", X_Linked_ETag="0" * 64, X_Linked_Size="5")
    download(site.address("/resolve"), target, sha256=SHA256[:8], size=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_hash_that_came_unprotected_is_not_believed(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain http from another machine: here a proxy stands for it."""
    monkeypatch.setenv("http_proxy", site.address(""))
    site.pages["http://hub.invalid/model.bin"] = Page(headers={"X-Linked-ETag": "0" * 64})
    download("http://hub.invalid/model.bin", target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "believed"),
    [
        ("https://hub.invalid/f", True),
        ("http://hub.invalid/f", False),
        ("http://127.0.0.1.invalid/f", False),
        ("http://localhost:80/f", True),
        ("http://[::1]/f", True),
    ],
)
def test_what_protects_a_hash_is_https_or_this_machine(address: str, believed: bool) -> None:
    source = module._Source(address, "", None, 1.0)
    response = SimpleNamespace(headers={"X-Linked-ETag": f'"{SHA256}"', "X-Linked-Size": "5"})
    for learn in (source.http_response, source.https_response):
        source.sha256, source.size = "", None
        learn(urllib.request.Request(address), response)  # type: ignore[arg-type]
        assert (source.sha256, source.size) == ((SHA256, 5) if believed else ("", None))


# --- redirects, proxies, passwords


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_redirects_are_followed_also_by_a_rest(site: Site, target: Path, status: int) -> None:
    site.pages["/latest"] = redirect("/there", status)
    site.pages["/there"] = redirect(site.address())
    site.pages["/model.bin"].cuts = [100_000]
    download(site.address("/latest"), target)
    assert target.read_bytes() == CONTENT
    assert site.asked == ["/latest", "/there", "/model.bin"] * 2
    assert site.ranges()[-1] == "bytes=100000-" and site.headers[-1]["If-Range"] == '"one"'


@pytest.mark.parametrize("scheme", ["file://", "ftp://127.0.0.1", "data:,"])
@pytest.mark.parametrize("redirected", [True, False])
def test_only_http_is_read(
    site: Site, target: Path, tmp_path: Path, scheme: str, redirected: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    site.pages["/out"] = redirect(f"{scheme}{secret}")
    with pytest.raises(DownloadError, match=r"not allowed|unknown url type|only addresses"):
        download(site.address("/out") if redirected else f"{scheme}{secret}", target)
    assert not target.exists() and names(target.parent) == []


def test_redirects_in_a_circle_end(site: Site, target: Path) -> None:
    site.pages["/model.bin"] = redirect("/model.bin")
    with pytest.raises(DownloadError, match="infinite loop"):
        download(site.address(), target)
    assert len(site.asked) < 20


def test_the_proxy_of_the_environment_is_asked(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.address(""))
    monkeypatch.setenv("https_proxy", site.address(""))
    site.pages["http://files.invalid/model.bin"] = Page(cuts=[100_000])
    download("http://files.invalid/model.bin", target)
    assert target.read_bytes() == CONTENT
    assert site.asked == ["http://files.invalid/model.bin"] * 2
    with pytest.raises(DownloadError, match="Tunnel connection failed: 403"):
        download("https://files.invalid/other.bin", target.with_name("other.bin"))
    assert site.asked[2:] == ["CONNECT files.invalid:443"]


def test_no_proxy_is_asked_for_what_no_proxy_names(
    make_site: Callable[[], Site], site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_site()
    monkeypatch.setenv("http_proxy", proxy.address(""))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    download(site.address(), target)
    assert proxy.asked == [] and target.read_bytes() == CONTENT


def test_a_password_goes_to_its_server_and_nowhere_else(
    make_site: Callable[[], Site], site: Site, target: Path
) -> None:
    elsewhere = make_site()
    elsewhere.pages["/model.bin"] = Page(cuts=[1000, 1000, 1000])
    site.pages["/private"] = redirect(elsewhere.address())
    address = site.address("/private").replace("//", "//me:pass%40word@")
    with pytest.raises(DownloadError) as error:
        download(address, target)
    expected = base64.b64encode(b"me:pass@word").decode()
    assert site.headers[0]["Authorization"] == f"Basic {expected}"
    assert "Authorization" not in elsewhere.headers[0]
    written = [path.read_bytes() for path in target.parent.iterdir()]
    for secret in ("pass%40word", "pass@word", "me:", expected):
        assert secret not in str(error.value)
        assert not any(secret.encode() in content for content in written)
    assert site.address("/private") in str(error.value)
    elsewhere.pages["/model.bin"].cuts = []
    download(address, target)
    assert target.read_bytes() == CONTENT and elsewhere.ranges()[-1] == "bytes=3000-"


@pytest.mark.parametrize("scheme", ["", " http://", "ftp://", "http:/", "http://me:hush@"])
def test_a_password_in_an_address_that_is_not_valid_is_not_shown(target: Path, scheme: str) -> None:
    with pytest.raises(DownloadError) as error:
        download(f"{scheme}me:hush@127.0.0.1:port/a@b", target)
    assert "hush" not in str(error.value) and "127.0.0.1:port/a@b" in str(error.value)


# --- errors


def nobody() -> str:
    """An address on this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/model.bin"


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503"), (204, "204 No")],
)
def test_a_refusal_of_the_server_is_one_line(
    site: Site, target: Path, status: int, message: str
) -> None:
    site.pages["/model.bin"] = Page(b"", status)
    expect_one_line(site.address(), target, f"the server answered {message}")
    assert names(target.parent) == []


def test_a_refusal_keeps_what_came_before(site: Site, target: Path) -> None:
    interrupt(site, target)
    site.pages["/model.bin"].status = 503
    expect_one_line(site.address(), target, "503 Service Unavailable (what came is kept")
    site.pages["/model.bin"].status = 200
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges()[-1] == "bytes=200000-"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (nobody(), "Connection refused"),
        ("http://nowhere.invalid/model.bin", "Name or service not known"),
        ("http://127.0.0.1:port/model.bin", "not as HTTP has it"),
        ("http://[::1/model.bin", "not as HTTP has it"),
        ("http://127.0.0.1/a b", "not as HTTP has it"),
        ("http://127.0.0.1/ü", "not as HTTP has it"),
        ("http:///model.bin", "only addresses of http"),
        ("model.bin", "only addresses of http"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(
    target: Path, address: str, message: str
) -> None:
    expect_one_line(address, target, message)
    assert names(target.parent) == []


def test_a_server_that_does_not_speak_http_is_one_line(target: Path) -> None:
    """Its words are not passed on as they are: they could steer the terminal."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for words in (b"\x1b[2Jhello\r\n\r\n", b"HTTP/1.0 500 \x1b[2JNo\tway\r\n\r\n"):
                connection = server.accept()[0]
                with connection:
                    connection.recv(10_000)
                    connection.sendall(words)

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/model.bin"
        expect_one_line(address, target, "not as HTTP has it (BadStatusLine)")
        expect_one_line(address, target, "500 [2JNo way")


def expect_one_line(address: str, target: Path, reason: str) -> None:
    with pytest.raises(DownloadError) as error:
        download(address, target, timeout=5)
    message = str(error.value)
    assert message.isprintable() and reason in message
    assert message.startswith("model.bin: ")
    assert message.endswith(f"; download {address} by hand and put it at {target}")
    assert one_line(error.value) == f"error: {message}"


def test_a_full_disk_is_named_and_what_came_is_kept(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        expect_one_line(site.address(), target, "the disk is full (what came is kept")
    assert not target.exists() and part_of(target).read_bytes() == CONTENT
    download(site.address(), target)
    assert target.read_bytes() == CONTENT and site.ranges() == [None, "bytes=300000-"]


def test_a_folder_in_the_place_of_the_file_is_named(site: Site, target: Path) -> None:
    target.mkdir(parents=True)
    expect_one_line(site.address(), target, "Is a directory")
    assert site.asked == [] and names(target.parent) == ["model.bin"]


def test_a_folder_that_cannot_be_made_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    expect_one_line(site.address(), tmp_path / "file" / "below" / "model.bin", "Not a directory")
    assert site.asked == []


# --- the bar, and the folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_shows_a_bar_that_starts_where_the_rest_starts(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch, progress: bool
) -> None:
    interrupt(site, target, 180_000)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    download(site.address(), target, progress=progress)
    shown = terminal.getvalue()
    assert ("model.bin:  60%" in shown and "180k/300k" in shown) if progress else shown == ""


def test_nothing_is_shown_in_a_log(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(site.address(), target)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/minivit/downloads"),
        ("linux", {}, "/home/me/.cache/minivit/downloads"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/minivit/downloads"),
        ("darwin", {}, "/home/me/Library/Caches/minivit/downloads"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/minivit/Cache/downloads"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


# ---- what is no checkpoint -----------------------------------------------------------------------


def started(site: Site, content: bytes, **headers: str) -> None:
    site.pages["/model.bin"] = Page(content, headers={"ETag": '"x"', **headers})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "it is a web page, perhaps of a login"),
        (b"\xef\xbb\xbf \n<HTML><body>", "it is a web page"),
        (b"", "it is empty"),
        (gzip.compress(CONTENT), "it is packed with gzip, which nobody asked for"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b'{"error": "please log in"}', "it is no checkpoint, it begins with b'{\"error"),
    ],
)
def test_what_is_no_checkpoint_never_enters_the_cache(
    site: Site, target: Path, content: bytes, words: str
) -> None:
    started(site, content)
    for _ in range(2):  # the second call finds nothing of the first
        with pytest.raises(DownloadError) as error:
            download(site.address(), target, check=no_weights)
        assert words in str(error.value) and "model.bin" in str(error.value)
        assert names(target.parent) == []
    started(site, b"PK\3\4 an archive")
    assert download(site.address(), target, check=no_weights).read_bytes() == b"PK\3\4 an archive"


def test_an_answer_that_says_it_is_packed_is_refused(site: Site, target: Path) -> None:
    started(site, gzip.compress(b"[PAD]\n[CLS]\n"), Content_Encoding="gzip")
    site.pages["/model.bin"].headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match=r"has packed the file \(gzip\), which nobody asked"):
        download(site.address(), target)
    assert names(target.parent) == []


def test_a_login_page_that_an_earlier_version_kept_is_replaced(site: Site, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"<html>Log in</html>")
    assert download(site.address(), target).read_bytes() == CONTENT


def test_a_login_page_in_the_place_of_a_known_file_is_called_so(site: Site, target: Path) -> None:
    started(site, b"<html>Log in</html>")
    with pytest.raises(DownloadError, match="it is a web page, perhaps of a login; its SHA-256"):
        download(site.address(), target, sha256=SHA256)


def test_the_hash_of_a_first_download_is_said_and_holds(site: Site, target: Path) -> None:
    notes: list[str] = []
    download(site.address(), target, remember=notes.append)
    assert len(notes) == 1 and SHA256 in notes[0] and "model.bin" in notes[0]
    assert names(target.parent) == ["model.bin", "model.bin.sha256"]
    asked = len(site.asked)
    download(site.address(), target, remember=notes.append)
    assert len(site.asked) == asked and len(notes) == 1
    target.write_bytes(CONTENT[:-1] + b"?")  # a bit that turned on the disk
    download(site.address(), target, remember=notes.append)
    assert target.read_bytes() == CONTENT and len(notes) == 1
    target.unlink()
    started(site, OTHER)
    with pytest.raises(DownloadError, match=f"{SHA256} was that of the first download") as error:
        download(site.address(), target, remember=notes.append)
    assert "remove" in str(error.value) and "model.bin.sha256" in str(error.value)
    assert not target.exists()
    (target.parent / "model.bin.sha256").unlink()
    assert download(site.address(), target, remember=notes.append).read_bytes() == OTHER
    assert len(notes) == 2


def test_a_remembered_hash_of_another_address_does_not_count(site: Site, target: Path) -> None:
    download(site.address(), target, remember=lambda line: None)
    site.pages["/other.bin"] = Page(OTHER)
    target.unlink()
    download(site.address("/other.bin"), target, remember=lambda line: None)
    assert target.read_bytes() == OTHER


def test_a_published_hash_is_not_remembered(site: Site, target: Path) -> None:
    notes: list[str] = []
    download(site.address(), target, sha256=SHA256, remember=notes.append)
    assert not notes and names(target.parent) == ["model.bin"]
