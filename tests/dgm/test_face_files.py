"""Downloads on a server of our own: resumed, checked, and with the answers of real hosts."""

import hashlib
import http.server
import threading

import pytest

from dgm import face_files
from dgm.face_files import CELEBA_SPLIT, CELEBA_ZIP, celeba_download, celeba_sources
from dgm.image_files import DataError

CONTENT = bytes(range(256)) * 4000
QUOTA = b"<!DOCTYPE html><html>Google Drive - Quota exceeded. Too many users ...</html>"


class Host(http.server.BaseHTTPRequestHandler):
    """/whole: the file, with ranges; /norange: without; /cut: breaks off; /quota, /login: pages."""

    asked: list = []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        pages = {"/quota": QUOTA, "/login": b"<html>please log in</html>"}
        if self.path in pages:
            return self.answer(200, pages[self.path], kind="text/html; charset=utf-8")
        if self.path in ("/whole", "/cut", "/norange", "/other"):
            body = b"x" * len(CONTENT) if self.path == "/other" else CONTENT
            start = self.headers.get("Range")
            if start and self.path != "/norange":
                return self.answer(206, body[int(start[6:-1]) :])
            keep = len(body) // 3 if self.path == "/cut" else len(body)
            return self.answer(200, body[:keep], size=len(body))
        return self.answer(404, b"")

    def answer(self, status, body, kind="application/octet-stream", size=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def host(monkeypatch):
    """Address of the server; the file's right checksum is that of CONTENT."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Host.asked.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # the machine may sit behind a proxy
    monkeypatch.setitem(face_files.CELEBA_MD5, CELEBA_ZIP, hashlib.md5(CONTENT).hexdigest())
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def get(host, target, *paths):
    """Download from these paths of the server."""
    return celeba_download(CELEBA_ZIP, target, [f"{host}/{p}" for p in paths])


def test_a_file_that_broke_off_is_resumed(host, tmp_path):
    """The second source is asked for the rest only, and the parts make up the whole."""
    assert get(host, tmp_path / "f.zip", "cut", "whole").read_bytes() == CONTENT
    assert Host.asked == [("/cut", None), ("/whole", f"bytes={len(CONTENT) // 3}-")]
    assert not list(tmp_path.glob("*.part"))


def test_a_later_call_goes_on_where_the_first_stopped(host, tmp_path):
    """The message says how far it came and that a new run resumes."""
    with pytest.raises(DataError, match=r"broke off after \d+ of \d+ bytes"):
        get(host, tmp_path / "f.zip", "cut")
    assert get(host, tmp_path / "f.zip", "whole").read_bytes() == CONTENT
    assert Host.asked[-1][1] is not None


def test_a_source_without_ranges_starts_anew(host, tmp_path):
    """Its answer replaces the part instead of being appended to it."""
    assert get(host, tmp_path / "f.zip", "cut", "norange").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched(host, tmp_path):
    """Whole: no request. Damaged: fetched."""
    (tmp_path / "f.zip").write_bytes(CONTENT)
    get(host, tmp_path / "f.zip", "whole")
    assert Host.asked == []
    (tmp_path / "f.zip").write_bytes(CONTENT[:-1])
    assert get(host, tmp_path / "f.zip", "whole").read_bytes() == CONTENT


def test_a_quota_page_is_told_and_the_next_source_is_asked(host, tmp_path):
    """Nothing of the page is kept."""
    assert get(host, tmp_path / "f.zip", "quota", "whole").read_bytes() == CONTENT
    with pytest.raises(DataError) as error:
        get(host, tmp_path / "g.zip", "quota", "login", "gone", "other")
    said = str(error.value)
    assert "its quota for downloads is used up" in said and "a log-in or a warning" in said
    assert "404" in said and "its md5 is not that of CelebA" in said
    assert "try again in some hours" in said and "toy faces" in said
    assert not list(tmp_path.glob("g.zip*"))


def test_a_host_that_is_not_there_is_one_line(tmp_path):
    """No traceback of urllib."""
    with pytest.raises(DataError, match="127.0.0.1:9/f: "):
        celeba_download(CELEBA_ZIP, tmp_path / "f.zip", ["http://127.0.0.1:9/f"])


def test_the_own_mirror_comes_first(monkeypatch):
    """DGM_CELEBA_URL, then the authors' places; three or more in all for the pictures."""
    monkeypatch.setenv("DGM_CELEBA_URL", "http://mirror.example/celeba/")
    found = celeba_sources(CELEBA_ZIP)
    assert found[0] == f"http://mirror.example/celeba/{CELEBA_ZIP}" and len(found) >= 4
    monkeypatch.delenv("DGM_CELEBA_URL")
    assert celeba_sources(CELEBA_SPLIT) and "mirror" not in str(celeba_sources(CELEBA_ZIP))
