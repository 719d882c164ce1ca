"""Where CelebA's files come from: a folder or zip in the original layout, or a download.

The layout is `celeba/img_align_celeba/000001.jpg ...` or `celeba/img_align_celeba.zip`, with
`celeba/list_eval_partition.txt` beside it. DGM_DATA is only read; downloads go to DGM_CACHE.
CelebA is for non-commercial research and may not be passed on: commit no image of it.
"""

import hashlib
import io
import os
import re
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dgm.image_files import DataError, cache_folder

CELEBA_ZIP, CELEBA_SPLIT = "img_align_celeba.zip", "list_eval_partition.txt"
CELEBA_MD5 = {
    CELEBA_ZIP: "00d2c5bc6d35e252742224ab0c1e8fcb",
    CELEBA_SPLIT: "d32c9cbf5e040fd4025c592c306e6668",
}
# the authors' own Google Drive, asked in two ways, and their Dropbox; a quota closes them at times
CELEBA_DRIVE = (
    "https://drive.usercontent.google.com/download?export=download&confirm=t&id={}",
    "https://drive.google.com/uc?export=download&confirm=t&id={}",
)
CELEBA_DRIVE_ID = {
    CELEBA_ZIP: "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
    CELEBA_SPLIT: "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
}
CELEBA_DROPBOX = {
    CELEBA_ZIP: "https://www.dropbox.com/sh/8oqt9vytwxb3s4r/AADIKlz8PR9zr6Y20qbkunrba"
    "/Img/img_align_celeba.zip?dl=1"
}


class FaceFiles:
    """The aligned faces of one place; `names` in rising order, `read(name)` gives a picture."""

    def __init__(self, place: Path):
        folder, packed = place / "img_align_celeba", place / CELEBA_ZIP
        self.place, self.zip = folder, None
        if folder.is_dir():
            found = [p.name for p in folder.iterdir()]
        else:
            self.zip = zipfile.ZipFile(packed)
            found = self.zip.namelist()
        self._path = {Path(n).name: n for n in found if re.search(r"\d{6}\.(jpg|png)$", n)}
        self.names = sorted(self._path)
        if not self.names:
            raise FileNotFoundError(f"no picture named like 000001.jpg in {folder} or {packed}")

    def read(self, name: str) -> Any:
        """The picture as a PIL image in RGB; DataError that names a damaged file."""
        from PIL import Image

        try:
            if self.zip is None:
                return Image.open(self.place / name).convert("RGB")
            return Image.open(io.BytesIO(self.zip.read(self._path[name]))).convert("RGB")
        except (OSError, zipfile.BadZipFile) as error:
            where = self.place / name if self.zip is None else f"{name} in {self.zip.filename}"
            raise DataError(f"{where} is damaged ({error}): delete it and get it anew") from None


def face_files(download: bool = False) -> tuple[FaceFiles, dict[str, int]]:
    """CelebA's pictures and its official partition {name: 0 train, 1 valid, 2 test}, perhaps empty.

    Looks in DGM_DATA/celeba, then DGM_CACHE/celeba; then downloads if asked to. DataError says what
    was tried and what to do.
    """
    given, tried = os.environ.get("DGM_DATA"), []
    places = [Path(given).expanduser() / "celeba"] if given else []
    for place in [*places, cache_folder() / "celeba"]:
        try:
            return FaceFiles(place), _celeba_split(place / CELEBA_SPLIT)
        except (OSError, zipfile.BadZipFile) as error:
            tried.append(f"{place}: {error}")
    if download:
        place = cache_folder() / "celeba"
        for file in (CELEBA_SPLIT, CELEBA_ZIP):
            celeba_download(file, place / file)
        return FaceFiles(place), _celeba_split(place / CELEBA_SPLIT)
    lines = ["CelebA is not here. Tried:", *(f"  - {line}" for line in tried)]
    lines += [f"What to do: put {CELEBA_ZIP} (or its unpacked folder) and {CELEBA_SPLIT} into a"]
    raise DataError("\n".join([*lines, "folder D/celeba and set DGM_DATA=D, or allow a download."]))


def _celeba_split(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1] in "012"}


def celeba_sources(file: str) -> list[str]:
    """Addresses of a file, in the order in which they are tried; DGM_CELEBA_URL is the first.

    DGM_CELEBA_URL is a folder on a server of your own institution that holds the files.
    """
    own = os.environ.get("DGM_CELEBA_URL")
    drive = [address.format(CELEBA_DRIVE_ID[file]) for address in CELEBA_DRIVE]
    dropbox = [CELEBA_DROPBOX[file]] if file in CELEBA_DROPBOX else []
    return ([f"{own.rstrip('/')}/{file}"] if own else []) + drive + dropbox


def celeba_download(file: str, target: Path, sources: Iterable[str] | None = None) -> Path:
    """Get `file` into `target` from the first source that has it whole; returns target.

    A transfer that broke off is resumed, also by the next call. DataError lists what each source
    answered; a page in place of the data (a quota) is recognised and never saved.
    """
    if target.is_file() and _md5_of(target) == CELEBA_MD5[file]:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    tried, part = [], target.with_name(f"{target.name}.part")
    for address in celeba_sources(file) if sources is None else sources:
        try:
            _fetch_rest(address, part, file)
        except (OSError, ValueError) as error:
            tried.append(f"{address.split('?')[0]}: {error}")
            continue
        if _md5_of(part) == CELEBA_MD5[file]:
            part.replace(target)
            return target
        tried.append(f"{address.split('?')[0]}: another file (its md5 is not that of CelebA)")
        part.unlink()
    lines = [f"{file} could not be had. Tried:", *(f"  - {line}" for line in tried)]
    lines += ["What to do: try again in some hours (a quota is counted per day), or get the file"]
    lines += [
        "with a browser from the page of CelebA and put it into a folder D/celeba, DGM_DATA=D;"
    ]
    raise DataError("\n".join([*lines, "meanwhile the toy faces need no download."]))


def _fetch_rest(address: str, part: Path, file: str) -> None:
    """Append to `part` what it lacks; ValueError for a web page in place of data."""
    from tqdm import tqdm

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        if "text/html" in answer.headers.get("Content-Type", ""):
            page = answer.read(100_000).decode(errors="replace")
            quota = "quota" in page.lower() or "too many users" in page.lower()
            raise ValueError(
                "answers with a web page, not the file"
                + (": its quota for downloads is used up" if quota else " (a log-in or a warning)")
            )
        resumed = answer.status == 206
        total = int(answer.headers.get("Content-Length") or 0) + have * resumed
        bar = tqdm(total=total, initial=have * resumed, unit="B", unit_scale=True, ascii=True)
        with bar, open(part, "ab" if resumed else "wb") as out:
            bar.set_description(file)
            while block := answer.read(1 << 18):
                out.write(block)
                bar.update(len(block))
    if total and part.stat().st_size < total:
        raise OSError(
            f"broke off after {part.stat().st_size} of {total} bytes (run again to resume)"
        )


def _md5_of(path: Path) -> str:
    digest = hashlib.md5()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
