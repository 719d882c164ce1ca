"""Seconds per submission beside stock nbgrader's, and growth with the size of the class.

    OMP_NUM_THREADS=1 python benchmarks/throughput.py [--students 30] [--workers 2]
        [--weights 2] [--growth 10 200] [--homework homework1]

Both graders get the same homework and the same well-behaved class, one after the other in one run:
stock nbgrader's own `nbgrader autograde` (whole inside bubblewrap, without network, one student
after another, as it does) and `autograder grade`, its five canaries included. The homework is cut
to what a graded run executes: no training and no scoring of weights on either side; that is
measured apart. All scores must be the same. Writes benchmarks/results/throughput.json; a number of
0 leaves a part out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from autograder.cells import grade_id
from autograder.gradebook import merged_bundle
from autograder.layout import ClassFolder
from autograder.release import Release, find_release, read_notebook
from autograder.stock.box import StockCourse
from autograder.stock.crowd import make_crowd
from autograder.stock.cut import write_cut
from autograder.stock.measure import Measured, machine, run_measured
from autograder.stock.throwaway import hand_in, throwaway_course

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "throughput.json"
REQUIRED, AIM = 1.7, 2.5


def main() -> None:
    args = arguments()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: both sides are measured on one thread a process")
    result = {"command": " ".join(["benchmarks/throughput.py", *sys.argv[1:]]), **machine()}
    wanted = ((side_by_side, args.students), (weights, args.weights), (growth, any(args.growth)))
    for part, size in wanted:
        if size:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                result[part.__name__] = part(args, Path(folder))
            print(json.dumps({part.__name__: result[part.__name__]}, indent=1), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    check(result)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--students", type=int, default=30, help="class that both grade")
    parser.add_argument("--workers", type=int, default=2, help="processes of ours")
    parser.add_argument("--weights", type=int, default=2, help="submissions scored with weights")
    parser.add_argument("--growth", type=int, nargs="+", default=[10, 200], help="class sizes")
    parser.add_argument("--homework", default="homework1")
    return parser.parse_args()


def side_by_side(args: argparse.Namespace, folder: Path) -> dict:
    """Wall-clock seconds of both on one class, and whether every test cell has the same points."""
    release, place = course(args.homework, folder, args.students)
    stock = StockCourse(folder / "stock", args.homework, {args.homework: ROOT / args.homework})
    stock.add_source(release.source)
    for path in sorted((folder / "in").glob("*/*.ipynb")):
        stock.add_submission(path.parent.name, path)
    made = stock.nbgrader("generate_assignment", args.homework)
    if made.status:
        raise SystemExit(f"stock nbgrader cannot open the homework:\n{made.log[-3000:]}")
    theirs = stock.nbgrader("autograde", args.homework)
    ours = grade(args, folder)
    return {
        "students": args.students,
        "workers": args.workers,
        "stock_seconds": round(theirs.seconds, 1),
        "our_seconds": round(ours.seconds, 1),
        "ratio": round(theirs.seconds / ours.seconds, 2),
        "required": REQUIRED,
        "aim": AIM,
        **compare(stock, place, args.homework),
    }


def compare(stock: StockCourse, place: ClassFolder, homework: str) -> dict:
    """How many test cells were compared, and those whose points differ."""
    different, cells, totals = [], 0, set()
    for student, facts in stock.scores().items():
        bundle = merged_bundle(place, homework, student)
        mine = {c["grade_id"]: c["points"] for c in bundle["checks"] if c["kind"] != "manual"}
        cells, totals = cells + len(mine), totals | {sum(mine.values())}
        for name, points in mine.items():
            if facts["checks"].get(name) != points:
                said = f"stock {facts['checks'].get(name)}, ours {points}"
                different.append(f"{student} {name}: {said}")
    return {
        "test_cells_compared": cells,
        "different_totals_in_the_class": len(totals),
        "lowest_and_highest_total": [min(totals), max(totals)],
        "different": different,
    }


def weights(args: argparse.Namespace, folder: Path) -> dict:
    """Seconds per submission that the tests of weights take, of the reference's weights."""
    release = find_release(ROOT / "build", args.homework)
    own = ROOT / args.homework / "verify" / "weights"
    place = throwaway_course(ROOT, folder, release)
    hand_in(folder, args.homework, make_crowd(release, folder / "no changes", args.weights), own)
    grade(argparse.Namespace(homework=args.homework, workers=1), folder)
    cells = read_notebook(release.source).cells
    tests = {grade_id(c) for c in cells if c.metadata.get("course", {}).get("weights")}
    found = []
    for student in place.students(args.homework):
        checks = merged_bundle(place, args.homework, student)["checks"]
        found.append(sum(c["seconds"] for c in checks if c["grade_id"] in tests))
    return {"submissions": len(found), "seconds_per_submission": [round(s, 1) for s in found]}


def growth(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Seconds per submission and peak memory for classes of several sizes."""
    rows = []
    for size in args.growth:
        course(args.homework, folder / str(size), size)
        row = grade(args, folder / str(size))
        rows.append(
            {
                "students": size,
                "seconds": round(row.seconds, 1),
                "seconds_per_submission": round(row.seconds / size, 2),
                "peak_MiB_of_the_command": round(row.own / 2**20),
                "peak_MiB_with_workers_and_sandboxes": round(row.all / 2**20),
            }
        )
        print(rows[-1], flush=True)
    for before, row in zip(rows, rows[1:]):  # without what every run costs: start and canaries
        more = row["students"] - before["students"]
        extra = (row["seconds"] - before["seconds"]) / max(1, more)
        row["seconds_per_further_submission"] = round(extra, 2)
    return rows


def course(homework: str, folder: Path, students: int) -> tuple[Release, ClassFolder]:
    """A throwaway course with the cut homework open and the class's submissions collected."""
    whole = find_release(ROOT / "build", homework)
    release = write_cut(whole, folder / "build")
    place = throwaway_course(ROOT, folder, release)
    crowd = make_crowd(release, ROOT / homework / "verify", students)
    hand_in(folder, homework, crowd)
    return release, place


def grade(args: argparse.Namespace, folder: Path) -> Measured:
    """`autograder grade` in the throwaway course: seconds, bytes of memory at most."""
    words = ["grade", args.homework, "--workers", str(args.workers)]
    command = [sys.executable, "-m", "autograder.cli", *words]
    env = {**os.environ, "COURSE_DIR": str(folder / "class"), "PYTHONPATH": str(ROOT)}
    done = run_measured(command, folder / "log", cwd=folder, env=env)
    if done.status:
        log = (folder / "log").read_text(errors="replace")
        raise SystemExit(f"autograder grade failed:\n{log[-3000:]}")
    return done


def check(result: dict) -> None:
    """Exit code 1 when scores differ or ours is not fast enough."""
    race = result.get("side_by_side")
    if race and race["different"]:
        raise SystemExit(f"scores differ: {race['different'][:5]}")
    if race and race["ratio"] < REQUIRED:
        raise SystemExit(f"{race['ratio']} times stock's throughput, required {REQUIRED}")


if __name__ == "__main__":
    main()
