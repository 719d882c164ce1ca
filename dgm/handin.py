"""The last cell of a homework: look over a submission and pack it into one zip."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from dgm.handin_fresh import handin_plain, handin_tests


def pack_submission(
    homework: str, weights: Mapping[str, Callable], max_mb: float = 20
) -> Path | None:
    """Check what is about to be handed in, print what is missing, write HOMEWORK_submission.zip.

    The visible tests run in a new Python, which knows nothing of what this one did before.
    weights: file name -> function that builds the network for it; max_mb: of one file. Nothing that
    is missing stops the packing: a part of a homework is worth handing in. Returns the zip's path,
    or None where there was nothing to pack.
    """
    notebook, told = handin_notebook(homework)
    lines = told + (handin_answers(notebook) + handin_tests(notebook) if notebook else [])
    files = [name for name in weights if Path(name).is_file()]
    for name, build in weights.items():
        lines += handin_weights(name, build, max_mb)
    if notebook is None and not files:
        print("\n".join([*lines, "nothing to pack"]))
        return None
    target = Path(f"{homework}_submission.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        if notebook is not None:
            packed.writestr(f"{homework}.ipynb", json.dumps(notebook))
        for name in files:
            packed.write(name)
    size = f"{target.stat().st_size / 1e6:.1f} MB"
    print("\n".join([*lines, f"packed: {target} ({size}). Hand in this file."]))
    return target


def handin_notebook(homework: str) -> tuple[dict | None, list[str]]:
    """The running notebook, from Colab itself or the newest file of this homework; a report."""
    notebook = _handin_from_colab()
    if notebook is not None:
        return notebook, ["notebook: as it stands in Colab"]
    drive = Path("/content/drive/MyDrive")
    places = [Path("."), drive, drive / "Colab Notebooks"]
    found = [p for place in places if place.is_dir() for p in place.glob("*.ipynb")]
    for path in sorted(found, key=os.path.getmtime, reverse=True):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if notebook.get("metadata", {}).get("course", {}).get("homework") == homework:
            return notebook, [f"notebook: {path}, as last saved (save it before this cell)"]
    return None, [
        "notebook: NOT FOUND. Save it as a file (in Colab: File > Download > Download .ipynb) and "
        "hand it in beside the zip."
    ]


def _handin_from_colab() -> dict | None:
    try:
        from google.colab import _message  # undocumented, may go away
    except ImportError:
        return None
    try:
        answer = _message.blocking_request("get_ipynb", request="", timeout_sec=30)
        return answer["ipynb"]
    except Exception as error:  # whatever Colab throws, the student must still get a zip
        print(f"Colab did not hand the notebook over ({type(error).__name__}): looking for a file")
        return None


def handin_answers(notebook: Mapping) -> list[str]:
    """One line for what is still to do: answers never begun, answers that do not parse."""
    empty, broken = [], []
    for cell in notebook.get("cells", []):
        about = cell.get("metadata", {}).get("nbgrader", {})
        if not about.get("solution"):
            continue
        source = "".join(cell.get("source", []))
        if "raise NotImplementedError" in source or "YOUR ANSWER HERE" in source:
            empty.append(about.get("grade_id", "?"))
        elif cell.get("cell_type") == "code" and not _handin_parses(source):
            broken.append(about.get("grade_id", "?"))
    lines = [f"not begun: {', '.join(empty)}"] if empty else ["every answer has been begun"]
    return lines + ([f"SYNTAX ERROR in: {', '.join(broken)}"] if broken else [])


def _handin_parses(source: str) -> bool:
    try:
        compile(handin_plain(source), "<answer>", "exec")
    except SyntaxError:
        return False
    return True


def handin_weights(name: str, build: Callable, max_mb: float = 20) -> list[str]:
    """One line about a file of weights: there or not, size in MB, whether it fits the network."""
    from safetensors.torch import load_file

    path = Path(name)
    if not path.is_file():
        return [f"weights: {name} is not here (its training cell saves it)"]
    if (size := path.stat().st_size / 1e6) > max_mb:
        return [f"weights: {name} is TOO LARGE, {size:.1f} of at most {max_mb:g} MB"]
    try:
        state = load_file(path)
        build().load_state_dict(state)
    except Exception as error:
        return [f"weights: {name} DOES NOT FIT the network: {error}"]
    finite = all(bool(v.isfinite().all()) for v in state.values())
    return [f"weights: {name} fits" if finite else f"weights: {name} holds NaN or infinity"]
