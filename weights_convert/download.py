"""Fetching a published file: resumed after an interruption, checked, never half there.

A download grows as PATH.part beside its target and is renamed when it is whole and passes the
checks. PATH.part.source remembers where the bytes came from, in two lines: the address, and the
validator of that version of the file, which goes back to the server with the request for the rest:

    Range: bytes=N-        the file from byte N on (RFC 9110, section 14.2)
    If-Range: VALIDATOR    ... if it is still that version, else all of it (section 13.1.5)

Without a validator the rest is asked for only if a SHA-256 is known, which notices a mixture.

Where nobody publishes a hash, what came is looked at: an empty answer, a web page (a login) and
what a server has packed unasked are no published file, whatever the answer's status. The hash of
the first download is then kept in PATH.sha256, and the address has to give the same file again.

PATH.part.source also keeps two processes apart: one of them locks it (flock) and writes PATH.part,
the other waits, and goes on with what it then finds. The lock of a process that died is gone with
it. Where there is no flock (Windows, some network drives) only the checks at the end are left.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from minivit.files import replacing

TRIES = 3  # connections that one call makes when they are closed too early
PAUSE = 1.0  # seconds between them
BLOCK = 1 << 20  # bytes read at once, at most


class DownloadError(OSError):
    """A file could not be downloaded; the message is one line that says what to do.

    An OSError, as are the errors of the network and of the disk that it stands for. It carries no
    errno, so that a command prints the message as it is.
    """


def cache_folder() -> Path:
    """The folder for files that can be downloaded again; it need not be there yet.

    Source: XDG Base Directory Specification (a relative path does not count), and the customs of
    macOS and Windows.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return Path(cache) / "minivit" / "downloads"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minivit" / "downloads"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(local) / "minivit" / "Cache" / "downloads"
    return Path.home() / ".cache" / "minivit" / "downloads"


def download(
    address: str,
    path: str | os.PathLike[str],
    *,
    sha256: str = "",
    size: int | None = None,
    timeout: float = 30.0,
    progress: bool = True,
    check: Callable[[Path], str] | None = None,
    remember: Callable[[str], object] | None = None,
) -> Path:
    """Makes sure that a published file is at `path`; the network is asked only if it is not.

    A file that is there but fails the checks is replaced, once the new one is whole. After an
    interruption of any kind the next call asks for the rest. Content that is wrong is deleted.

    Args:
        address: Of http or https. A USER:PASSWORD@ before the host is sent to that address only,
            not to where it redirects, and is never shown.
        path: Where the file is to be; folders above it are made.
        sha256: The hash, or its first eight or more digits. Without it the hash counts that the
            Hugging Face Hub sends along (see `_Source`).
        size: In bytes. Without it all that the server announces has to arrive.
        timeout: Seconds to wait for a connection, and then for each piece of the answer.
        progress: Shows a bar on standard error, if that is a terminal.
        check: Function that says what is wrong with a file that nobody published a hash of, or "".
        remember: Function that is called with a line for the user that gives the hash of a first
            download, where nobody published one. With it the hash is kept beside the file.

    Returns:
        `path`.

    Raises:
        DownloadError: The network, the server, the disk or the content kept the file from `path`.
        ValueError: `sha256` is no hash.
    """
    if sha256 and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256 is {sha256!r}, expected 8 to 64 hexadecimal digits")
    target = Path(path)
    part = target.with_name(f"{target.name}.part")
    disable = None if progress else True  # None: unless standard error is a terminal
    source = _Source(address, sha256.lower(), size, timeout)
    remembered = target.with_name(f"{target.name}.sha256")
    if remember and not sha256:
        source.remembered = _remembered(remembered, source.public_address)

    def fault(file: Path) -> str:
        return source.fault(file) or (
            "" if source.sha256 or source.size == 0 else _content_fault(file, target, check)
        )

    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
        if not target.is_file() or fault(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with alone(part, disable) as note:
                if not target.is_file() or fault(target):  # nobody did it meanwhile
                    _fetch(source, target, part, note, disable, fault)
                    if remember and not source.sha256 and not source.remembered:
                        digest = _sha256(target)
                        with replacing(remembered) as file:
                            file.write_text(f"{digest} {source.public_address}\n", encoding="utf-8")
                        remember(
                            f"{target.name}: nobody publishes a hash of it; this one has the "
                            f"SHA-256 {digest}, and the next download has to have it too"
                        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the answer, with an open connection
        kept = " (what came is kept for the next time)" if part.is_file() else ""
        by_hand = f"download {source.public_address} by hand and put it at {target}"
        if source.remembered:
            by_hand = f"if the file was changed on purpose, remove {remembered}; or {by_hand}"
        message = f"{target.name}: {_reason(error, timeout)}{kept}; {by_hand}"
        # A server chose some of the words: no line breaks, nothing that steers a terminal.
        plain = "".join(letter if letter.isprintable() else " " for letter in message)
        raise DownloadError(" ".join(plain.split())) from error
    return target


class _Source(urllib.request.BaseHandler):
    """An address, and what is known of the file behind it.

    It is one of the handlers of its own opener, to see every response on the way. For a large file
    the Hugging Face Hub answers with a redirect whose X-Linked-ETag is the SHA-256 of the content
    and X-Linked-Size its length. They count where the caller gave none, and if they came over https
    or from this machine.

    Source: huggingface_hub, `get_hf_file_metadata`
    (https://huggingface.co/docs/huggingface_hub/package_reference/file_download).
    """

    def __init__(self, address: str, sha256: str, size: int | None, timeout: float) -> None:
        self.sha256, self.size, self._timeout = sha256, size, timeout
        self.remembered = ""  # the hash of the first download, where nobody publishes one
        login = re.match(r"(\s*(?:\w+:)?/*)([^/?#]*)@", address)
        self.public_address = login[1] + address[login.end() :] if login else address
        user, _, password = unquote(login[2] if login else "").partition(":")
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode() if login else ""
        self._opener = urllib.request.OpenerDirector()  # which knows no file:, ftp: or data:
        proxies = urllib.request.getproxies()
        for handler in (
            urllib.request.ProxyHandler({k: v for k, v in proxies.items() if k[:4] == "http"}),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
            self,
        ):
            self._opener.add_handler(handler)

    def http_response(
        self, request: urllib.request.Request, response: http.client.HTTPResponse
    ) -> http.client.HTTPResponse:
        """Learns from a response; the opener calls it for each one."""
        url = urlsplit(request.full_url)
        if url.scheme == "https" or url.hostname in ("localhost", "127.0.0.1", "::1"):
            etag = response.headers.get("X-Linked-ETag", "").strip('"')
            if not self.sha256 and re.fullmatch("[0-9a-f]{64}", etag):
                self.sha256 = etag
            size = response.headers.get("X-Linked-Size", "")
            if self.size is None and re.fullmatch("[0-9]+", size):
                self.size = int(size)
        return response

    https_response = http_response

    def ask(self, have: int, validator: str) -> tuple[http.client.HTTPResponse | None, int]:
        """Asks for the file from byte `have` on.

        Returns:
            The response and the byte that it starts at: `have`, or 0 if the server does not go on
            there. No response if there is nothing after `have`.
        """
        if have and (validator or self.sha256):
            rest = {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
            try:
                response = self._open(rest)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 416:  # Range Not Satisfiable
                    raise
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return None, have
            else:
                if response.status != 206:  # Partial Content
                    return response, 0
                same = not validator or _validator(response.headers) in ("", validator)
                if same and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    return response, have
                response.close()
        return self._open({}), 0

    def _open(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        if not re.match("(?i)https?://[^/?#]", self.public_address):
            raise OSError("only addresses of http:// and https:// are downloaded")
        request = urllib.request.Request(self.public_address, headers=headers)
        request.add_header("User-Agent", "minivit")
        if self._login:
            request.add_unredirected_header("Authorization", f"Basic {self._login}")
        response: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
        if response.status not in (200, 206):  # 204 No Content, for one, is no empty file
            response.close()
            raise OSError(f"the server answered {response.status} {response.reason}")
        if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
            response.close()
            raise OSError(f"the server has packed the file ({packed}), which nobody asked for")
        return response

    def fault(self, path: Path) -> str:
        """What is wrong with a file, or an empty string; the size is looked at first."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, {self.size:,} were expected"
        for expected, words in (
            (self.sha256, "was expected"),
            (self.remembered, "was that of the first download"),
        ):
            if expected:
                digest = _sha256(path)
                if not digest.startswith(expected):
                    reasons = [_page(path), f"its SHA-256 is {digest}, {expected} {words}"]
                    return "; ".join(filter(None, reasons))
                return ""
        return ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _remembered(path: Path, address: str) -> str:
    """The hash of the first download from this address, or an empty string."""
    try:
        digest, _, where = path.read_text(encoding="utf-8").strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return ""
    return digest if where == address and re.fullmatch("[0-9a-f]{64}", digest) else ""


def _page(path: Path) -> str:
    """That a file is a web page, in words, or an empty string."""
    with path.open("rb") as file:
        start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_page = start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--"))
    return "it is a web page, perhaps of a login" if is_page else ""


def _content_fault(path: Path, target: Path, check: Callable[[Path], str] | None) -> str:
    """Why what came cannot be the file, where no hash is there to say so; or an empty string."""
    if not path.stat().st_size:
        return "it is empty"
    if page := _page(path):
        return page
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b" and target.suffix not in (".gz", ".tgz"):
            return "it is packed with gzip, which nobody asked for"
    return check(path) if check else ""


@contextlib.contextmanager
def alone(part: Path, disable: bool | None) -> Iterator[IO[str]]:
    """Waits until nobody else downloads `part`; gives the note beside it, locked."""
    path = part.with_name(f"{part.name}.source")
    while True:
        with path.open("a+", encoding="latin-1") as note:  # the encoding of HTTP headers
            _lock(note, f"{part.stem}: another process is downloading it", disable)
            try:
                if not os.path.samestat(os.fstat(note.fileno()), path.stat()):
                    continue
            except FileNotFoundError:  # the other one is done and has removed what we locked
                continue
            try:
                yield note
            finally:
                if not part.is_file() or not part.stat().st_size:
                    part.unlink(missing_ok=True)
                    with contextlib.suppress(PermissionError):  # Windows keeps what is open
                        path.unlink()
            return


def _lock(file: IO[str], waiting: str, disable: bool | None) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError):  # a drive without locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tqdm(desc=waiting, bar_format="{desc}", leave=False, disable=disable):
                fcntl.flock(file, fcntl.LOCK_EX)


def _fetch(
    source: _Source,
    target: Path,
    part: Path,
    note: IO[str],
    disable: bool | None,
    fault: Callable[[Path], str],
) -> None:
    """Brings `part` to its full length, checks it and makes it `target`."""
    for tries_left in reversed(range(TRIES)):
        try:
            _receive(source, part, note, disable)
            break
        except (ConnectionError, http.client.IncompleteRead):
            if not tries_left:
                raise
            time.sleep(PAUSE)
    if problem := fault(part):
        part.unlink()
        raise OSError(f"what came is not the file that was expected: {problem}")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _receive(source: _Source, part: Path, note: IO[str], disable: bool | None) -> None:
    """Appends to `part` what one connection gives.

    Raises:
        ConnectionError: That was not all.
    """
    note.seek(0)
    address, _, validator = note.read().partition("\n")
    with part.open("ab") as file:
        have = file.tell() if address == source.public_address else 0
        response, have = source.ask(have, validator)
        if response is None:
            return
        total = None if response.length is None else have + response.length
        if whole := re.search("/([0-9]+)$", response.headers.get("Content-Range", "")):
            total = int(whole[1])  # a server may send less of the rest than was asked for
        bar = tqdm(
            desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=disable
        )
        with response, bar:
            if not have:  # emptied before the note changes: never old bytes under a new validator
                file.truncate(0)
                note.truncate(0)
                note.write(f"{source.public_address}\n{_validator(response.headers)}")
                note.flush()
            # read1 gives what is there, so that a time-out loses nothing.
            while block := response.read1(BLOCK if total is None else min(BLOCK, total - have)):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    total = source.size if total is None else total
    if total is not None and have < total:
        raise ConnectionError(f"the connection was closed after {have:,} of {total:,} bytes")


def _validator(headers: Message) -> str:
    """What tells this version of a file from others, fit for If-Range, or an empty string.

    A weak ETag is not, and a date only without any ETag, and if it is older than the answer: a file
    can change twice in a second (RFC 9110, sections 8.8.2.2 and 13.1.5).
    """
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if etag:
        return etag if etag.startswith('"') else ""
    return modified if modified != headers.get("Date", modified) else ""


def _reason(error: BaseException, timeout: float) -> str:
    """What went wrong, in words, without anything secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason, timeout)
    if isinstance(error, TimeoutError):
        return f"the server was silent for {timeout:g} seconds"
    if isinstance(error, (http.client.HTTPException, ValueError)):  # its text may hold a password
        return f"an address or an answer is not as HTTP has it ({type(error).__name__})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return (isinstance(error, OSError) and error.strerror) or str(error)
