"""Trained weights as safetensors: saved under `weights/`, loaded from beside or by download."""

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dgm.image_files import cache_folder

RELEASE_URL = ""  # the builder writes the raw address of the published repository here


def save_weights(
    name: str, module: nn.Module | Mapping[str, Tensor], folder: str = "weights"
) -> str:
    """Write folder/name (NAME.safetensors) and return the file's sha256 in hex."""
    from safetensors.torch import save_file

    state = module.state_dict() if isinstance(module, nn.Module) else module
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, path)
    return weights_sha256(path)


def weights_sha256(path: str | os.PathLike) -> str:
    """Sha256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_weights(name: str, sha256: str) -> dict[str, Tensor] | None:
    """Tensors of NAME.safetensors from beside the notebook, else from the release; else None.

    Looked for in the working folder, in `weights/` here and up to two folders higher, in the cache,
    then at RELEASE_URL. Only a file with this sha256 is used; any other is named and passed over.
    On None, which is said too, the caller goes on with the model that it has trained itself.
    """
    from safetensors.torch import load_file

    cached = cache_folder() / "weights" / f"{sha256[:12]}-{name}"
    beside = [Path(up) / name for up in (".", "weights", "../weights", "../../weights")]
    for path in (*beside, cached):
        if path.is_file() and _is_expected(path, sha256):
            print(f"weights: {name}, beside the notebook")
            return load_file(path)
    if RELEASE_URL and _download_weights(f"{RELEASE_URL}/weights/{name}", cached, sha256):
        print(f"weights: {name}, from the release")
        return load_file(cached)
    print(f"weights: {name} is neither beside the notebook nor at the release: going on without")
    return None


def _is_expected(path: Path, sha256: str) -> bool:
    if (found := weights_sha256(path)) == sha256:
        return True
    print(f"weights: {path} is not used: sha256 {sha256[:12]}... expected, {found[:12]}... found")
    return False


def _download_weights(url: str, target: Path, sha256: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            content = answer.read()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except (OSError, ValueError) as error:
        print(f"weights: no download from {url} ({error})")
        return False
    return _is_expected(target, sha256)
