"""Unpack an archive that a student or an LMS made, without trusting anything in it."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path, PurePosixPath

from autograder.errors import CourseError

CHUNK = 1 << 20
KEEP = (".ipynb", ".safetensors", ".zip", ".txt")  # nothing else is unpacked


@dataclass(frozen=True)
class Caps:
    """Limits of one archive: entries, bytes of one file, bytes together (unpacked)."""

    entries: int = 200
    file_bytes: int = 128_000_000
    total_bytes: int = 512_000_000


# a whole class in one archive
CLASS_CAPS = Caps(entries=20_000, file_bytes=512_000_000, total_bytes=32_000_000_000)


@dataclass
class Unpacked:
    """Files that were written, and what was left out and why."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unzip(archive: Path, target: Path, caps: Caps, zone: tzinfo = UTC) -> Unpacked:
    """Unpack notebooks, weights and archives of a zip under `target`, which is made.

    Entries that point outside, links, encrypted and other files are left out and noted. Sizes are
    counted while reading, never believed. Times of entries are taken to be in `zone`.
    Raises CourseError for a broken archive and for one over its caps.
    """
    target.mkdir(parents=True, exist_ok=True)
    result = Unpacked()
    try:
        with zipfile.ZipFile(archive) as box:
            entries = box.infolist()
            if len(entries) > caps.entries:
                raise _too_large(archive, f"{len(entries)} entries", f"{caps.entries}")
            total = 0
            for entry in entries:
                place = _place(entry, target, result)
                if place is not None:
                    total += _extract(box, entry, place, caps, total, archive)
                    _set_time(place, entry, zone)
                    result.files.append(place)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CourseError(
            "a zip archive that can be read",
            f"{archive.name} is broken ({error})",
            "download it again, or ask for it again",
        ) from None
    return result


def _place(entry: zipfile.ZipInfo, target: Path, result: Unpacked) -> Path | None:
    """Where an entry goes, or None when it is left out."""
    name = _name(entry)
    parts = PurePosixPath(name).parts
    if entry.is_dir() or "__MACOSX" in parts or any(p.startswith("._") for p in parts):
        return None
    if name.startswith("/") or ".." in parts or "\0" in name or ":" in name.split("/")[0]:
        result.notes.append(f"{name!r} points outside the archive: left out")
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        result.notes.append(f"{name!r} is a link or a device: left out")
    elif entry.flag_bits & 0x1:
        result.notes.append(f"{name!r} is encrypted: left out")
    elif not name.lower().endswith(KEEP):
        result.notes.append(f"{name!r} is no notebook and no weights: left out")
    elif any(len(p.encode()) > 200 for p in parts) or len(parts) > 12:
        result.notes.append(f"{name[:60]!r}... has too long a name: left out")
    elif (place := target.joinpath(*parts)).exists():
        result.notes.append(f"{name!r} is there twice: the first one was taken")
    else:
        return place
    return None


def _name(entry: zipfile.ZipInfo) -> str:
    """The entry's name in NFC; without the UTF-8 flag many tools still write UTF-8."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with contextlib.suppress(UnicodeEncodeError, UnicodeDecodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _extract(
    box: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path, caps: Caps, total: int, archive: Path
) -> int:
    """Write one entry; returns its bytes. Stops as soon as a cap is passed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with box.open(entry) as source, place.open("xb") as sink:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > caps.file_bytes:
                raise _too_large(archive, f"a file of over {_mb(size)}", _mb(caps.file_bytes))
            if total + size > caps.total_bytes:
                raise _too_large(archive, f"over {_mb(total + size)}", _mb(caps.total_bytes))
            sink.write(chunk)
    return size


def _set_time(place: Path, entry: zipfile.ZipInfo, zone: tzinfo) -> None:
    try:
        moment = datetime(*entry.date_time, tzinfo=zone).timestamp()
        os.utime(place, (moment, moment))
    except (ValueError, OverflowError, OSError):
        os.utime(place)  # a time that no calendar has: now


def _too_large(archive: Path, came: str, most: str) -> CourseError:
    return CourseError(
        f"an archive of at most {most}", f"{archive.name} has {came}", "ask for it without the rest"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
