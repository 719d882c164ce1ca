"""Archives that nobody should trust."""

import stat
import struct
import zipfile

import pytest

from autograder.errors import CourseError
from autograder.unzip import Caps, unzip

SMALL = Caps(entries=4, file_bytes=1000, total_bytes=1500)


def pack(path, entries, kind=zipfile.ZIP_DEFLATED):
    """A zip of {name or ZipInfo: bytes}."""
    with zipfile.ZipFile(path, "w", kind) as box:
        for name, data in entries.items():
            box.writestr(name, data)
    return path


def outside(folder):
    """All files beside the target."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "name",
    ["../evil.ipynb", "/tmp/evil.ipynb", "a/../../evil.ipynb", "..\\evil.ipynb", "C:/evil.ipynb"],
)
def test_entries_that_point_outside_are_left_out(name, tmp_path):
    """Nothing is written beside the target; what is good is taken; the rest is noted."""
    box = pack(tmp_path / "x.zip", {name: b"evil", "good.ipynb": b"good"})
    result = unzip(box, tmp_path / "to/deep/in", SMALL)
    assert outside(tmp_path) == ["to/deep/in/good.ipynb", "x.zip"]
    assert len(result.notes) == 1 and "outside" in result.notes[0]


def test_links_and_devices_are_left_out(tmp_path):
    """Entries that say to be a symbolic link or a FIFO."""
    entries = {}
    for name, kind in (("link.ipynb", stat.S_IFLNK), ("pipe.ipynb", stat.S_IFIFO)):
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o777) << 16
        entries[info] = b"/etc/passwd"
    result = unzip(pack(tmp_path / "x.zip", entries), tmp_path / "to", SMALL)
    assert result.files == [] and len(result.notes) == 2


def test_only_notebooks_weights_and_archives_are_unpacked(tmp_path):
    """Programs and pictures stay inside; so do Apple's shadows, without a word."""
    names = ("a.ipynb", "w.safetensors", "run.sh", "__MACOSX/._a.ipynb")
    result = unzip(pack(tmp_path / "x.zip", dict.fromkeys(names, b"x")), tmp_path / "to", SMALL)
    assert [p.name for p in result.files] == ["a.ipynb", "w.safetensors"]
    assert len(result.notes) == 1 and "run.sh" in result.notes[0]


@pytest.mark.parametrize(
    "entries, words",
    [
        ({"a.ipynb": bytes(1001)}, "a file of over"),
        ({"a.ipynb": bytes(800), "b.ipynb": bytes(800)}, "over 0 MB"),
        ({f"{k}.ipynb": b"" for k in range(5)}, "5 entries"),
    ],
)
def test_bombs_are_refused_while_they_are_read(entries, words, tmp_path):
    """One file, all files, number of files; never more on the disk than the cap and a chunk."""
    with pytest.raises(CourseError, match=words):
        unzip(pack(tmp_path / "x.zip", entries), tmp_path / "to", SMALL)


def test_a_size_that_lies_is_not_believed(tmp_path):
    """Header and directory say 10 bytes, a million come."""
    path = pack(tmp_path / "x.zip", {"a.ipynb": bytes(1_000_000)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10)))
    with pytest.raises(CourseError):
        unzip(path, tmp_path / "to", SMALL)
    assert sum(p.stat().st_size for p in (tmp_path / "to").rglob("*")) <= SMALL.file_bytes


@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"PK" + raw, lambda raw: b""]
)
def test_a_broken_archive_is_one_message(spoil, tmp_path):
    """Cut off, no zip at all, empty."""
    path = pack(tmp_path / "x.zip", {"a.ipynb": b"abc" * 100})
    path.write_bytes(spoil(path.read_bytes())[: -30 or None])
    with pytest.raises(CourseError, match=r"x\.zip is broken"):
        unzip(path, tmp_path / "to", SMALL)


def test_damaged_data_is_one_message(tmp_path):
    """The checksum inside the archive does not fit."""
    path = pack(tmp_path / "x.zip", {"a.ipynb": b"abc" * 100}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcabc", b"abcabd", 1))
    with pytest.raises(CourseError, match=r"x\.zip is broken"):
        unzip(path, tmp_path / "to", SMALL)


def test_names_in_utf8_without_its_flag(tmp_path):
    """As many tools on a Mac write them."""
    path = pack(tmp_path / "x.zip", {"Ж.ipynb": b"x"})
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset + 1] &= ~0x08  # bit 11 of the flags says UTF-8
    path.write_bytes(raw)
    assert zipfile.ZipFile(path).namelist() != ["Ж.ipynb"]
    result = unzip(path, tmp_path / "to", SMALL)
    assert [p.name for p in result.files] == ["Ж.ipynb"]
