"""What realigning does to one cell: Colab's lines, outputs, images."""

import base64
import io

import pytest
from nbformat.v4 import new_output
from PIL import Image

from autograder.colab import defuse
from autograder.outputs import LINE, MAX_PIXELS, clean_attachments, clean_outputs, to_png, with_line

FUNCTION = "def f(x):\n    return x\n"


def run(source):
    """Names bound by a trusted text of this file."""
    space = {}
    exec(compile(source, "cell", "exec"), space)
    return space


@pytest.mark.parametrize(
    "line",
    [
        "!pip install -q torch",
        "%cd /content",
        "%matplotlib inline",
        "files = !ls",
        "out = %timeit f(1)",
        "%%time",
        "%%capture out",
        "from google.colab import drive, files",
        "import google.colab.output",
        "drive.mount('/content/drive')",
        "drive.mount(\n    '/content/drive',\n    force_remount=True,\n)",
        "files.upload()",
        "up = files.upload()",
        "files.download('x.zip')",
        "if True:\n    !nvidia-smi",
        "try:\n    from google.colab import files\nexcept ImportError:\n    pass",
    ],
)
def test_colab_lines_become_harmless_and_the_function_stays(line):
    """The cell is valid Python, binds f, and has as many lines as before."""
    source = f"{line}\n{FUNCTION}"
    clean = defuse(source)
    assert run(clean)["f"](3) == 3
    assert len(clean.split("\n")) == len(source.split("\n"))


@pytest.mark.parametrize(
    "source",
    [
        "x = (7\n% 4)",
        's = """\n!not a shell line\n%nor a magic\n"""',
        "y = [1,\n   2]\nz = y[0] != 2",
        "files = {}\nfiles['upload'] = 1",
        "a = 1; b = 2",
    ],
)
def test_valid_python_is_not_touched(source):
    """A line that begins with % in an expression, or with ! in a text, is the student's."""
    assert defuse(source) == source


def test_a_cell_in_another_language_becomes_comments():
    """%%bash and its like bind nothing here."""
    assert run(defuse("%%bash\nrm -rf x\n")).keys() == {"__builtins__"}


def test_a_syntax_error_stays_a_syntax_error():
    """The student sees the own error; nothing is hidden, nothing invented."""
    assert defuse("def f(:\n    pass") == "def f(:\n    pass"


def image(mode="RGB", size=(4, 3), kind="PNG", colour=None):
    made = io.BytesIO()
    Image.new(mode, size, colour or 0).save(made, kind)
    return base64.b64encode(made.getvalue()).decode()


def png_of(output):
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))


@pytest.mark.parametrize("mime, kind", [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_images_are_made_anew_as_png(mime, kind):
    """Same pixels, and nothing of the bytes that came after the picture."""
    raw = base64.b64decode(image(colour=(250, 10, 20), size=(16, 16), kind=kind))
    sent = base64.b64encode(raw + b"<script>alert(1)</script>").decode()
    (kept,) = clean_outputs([new_output("display_data", {mime: sent, "text/html": "<b>"})])
    assert list(kept.data) == ["image/png"]
    assert b"script" not in base64.b64decode(kept.data["image/png"])
    pixel = png_of(kept).convert("RGB").getpixel((1, 1))
    assert max(abs(a - b) for a, b in zip(pixel, (250, 10, 20))) <= 3


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": "<script>1</script>"},
        {"image/svg+xml": "<svg onload='x()'/>"},
        {"application/javascript": "x()"},
        {"text/latex": "\\href{javascript:x()}{y}"},
        {"image/png": "not an image"},
        {"image/png": 7},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}},
    ],
)
def test_markup_is_left_out_and_said_so(data):
    """One line of text in its place, no markup."""
    (note,) = clean_outputs([{"output_type": "display_data", "data": data, "metadata": {}}])
    assert note.output_type == "stream" and note.text.startswith("[1 output(s) not shown")


def test_text_and_errors_stay_as_text():
    """Streams, plain text of results, the last line of an error."""
    outputs = [
        new_output("stream", name="stderr", text="100%"),
        new_output("execute_result", {"text/plain": "42", "text/html": "<b>42</b>"}),
        new_output("error", ename="ValueError", evalue="bad", traceback=["\x1b[31m"]),
    ]
    kept = clean_outputs(outputs)
    assert [o.text for o in kept] == ["100%\n", "42\n", "ValueError: bad\n"]
    assert {(o.output_type, o.name) for o in kept} == {("stream", "stdout")}


def test_outputs_over_the_limit_are_left_out():
    """Bytes of text and PNG count together, per cell."""
    text = new_output("stream", name="stdout", text="a" * 600)
    kept = clean_outputs([text, text, text], limit=1300)
    assert [len(o.text) for o in kept[:2]] == [601, 601]
    assert "1 output(s) not shown" in kept[2].text and len(kept) == 3


def test_a_picture_bomb_is_not_decoded():
    """Its pixels are counted before they are unpacked."""
    side = int(MAX_PIXELS**0.5) + 1
    bomb = image("1", (side, side))
    assert len(bomb) < 100_000 and to_png(bomb) is None


def test_pasted_pictures_of_an_essay_are_made_anew():
    """Attachments: PNG only, others left out."""
    kept = clean_attachments(
        {"a.png": {"image/png": image()}, "b.svg": {"image/svg+xml": "<svg/>"}, "c": 3}
    )
    assert list(kept) == ["a.png"] and list(kept["a.png"]) == ["image/png"]


def test_the_line_that_says_where_outputs_are_from():
    """Only over outputs: nothing kept, nothing said."""
    kept = clean_outputs([new_output("stream", name="stdout", text="x")])
    first, second = with_line(kept)
    assert LINE in first.text and second.text == "x\n" and with_line([]) == []
