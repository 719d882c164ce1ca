"""Trained weights as safetensors: saved under `weights/`, loaded from beside or by download."""

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

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

    Looked for in the working folder, `weights/`, `../weights/`, `../../weights/`, the cache, then
    at RELEASE_URL. A file with another sha256 is named and passed over. Prints where they came
    from; on None the caller goes on with the model it has just trained.
    """
    from safetensors.torch import load_file

    for path in [*_weights_beside(name), _download_weights(name)]:
        if path is None or not path.is_file():
            continue
        if weights_sha256(path) == sha256:
            print(f"weights: {name}")
            return load_file(path)
        print(f"weights: {path} has another sha256 than expected ({sha256[:12]}...): not used")
    print(f"weights: {name} is neither beside the notebook nor at the release: going on without")
    return None


def _weights_beside(name: str) -> list[Path]:
    return [Path(p) / name for p in (".", "weights", "../weights", "../../weights")]


def _download_weights(name: str) -> Path | None:
    target = Path(os.environ.get("DGM_CACHE", Path.home() / ".cache" / "dgm")) / "weights" / name
    if target.is_file() or not RELEASE_URL:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(f"{RELEASE_URL}/weights/{name}", timeout=30) as answer:
            target.write_bytes(answer.read())
    except OSError as error:
        print(f"weights: no download of {name} ({error})")
        return None
    return target
