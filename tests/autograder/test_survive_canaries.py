"""Canaries: a grader that is wrong about what it must know publishes nothing of the run."""

import json
from dataclasses import asdict

import pytest
from boxed import needs_sandbox
from desk import CALM, CLASS, NAME
from small_homework import solved

from autograder.canaries import CHEATS, RunVoid, Watch, make_canaries
from autograder.grading import grade_all, plan
from autograder.run import EXECUTE, grade_one

WORTH = {"p1-square-test": 2.0, "p1-cube-test": 3.0}
NONE = dict.fromkeys(WORTH, 0.0)


@pytest.fixture
def jobs(desk):
    """One student's job."""
    desk.hand_in("ada", solved())
    return plan(desk.homework, desk.place, desk.root)


@pytest.fixture
def run(desk):
    """Grade all with canaries: what was published, and what was told."""

    def call(jobs, **options):
        told = []
        options = {"engine": "serial", "execute": CALM, "tell": told.append} | options
        done = list(grade_all(jobs, desk.homework, desk.place, desk.rule, CLASS, **options))
        told = [t for t in told if "temporary files" not in t]  # of other runs on this machine
        return [d.bundle["student"] for d in done], told

    return call


def wrong_judge(monkeypatch, points):
    """Break the judge on purpose: points(job, check) instead of its own, which are right."""

    def broken(job, execute):
        good = dict.fromkeys(WORTH, 0.0) if "canary" in job.student else WORTH
        good = WORTH if "reference" in job.student else good
        checks = [
            {"grade_id": n, "kind": "hidden", "points": good[n], "max_points": m, "message": ""}
            for n, m in WORTH.items()
        ]
        checks = [check | {"points": points(job, check)} for check in checks]
        return {"student": job.student, "failed": "", "checks": checks, "key": job.key}

    monkeypatch.setattr("autograder.grading.grade_one", broken)


def everything(folder):
    """All files below a folder that a run of grading may publish to, with their content."""
    names = ("gradebook.db", "runs", "autograded")
    files = [p for n in names for p in (folder / n, *(folder / n).rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_right_canaries_let_the_run_count(jobs, run, desk):
    """Five, told in one line; none of them is anybody in the gradebook."""
    students, told = run(jobs)
    assert students == ["ada"] and told == [
        "5 canaries came out as they must: the results of this run count"
    ]
    assert desk.row("ada").total == 5
    assert [p.name for p in (desk.place.root / "autograded").iterdir()] == ["ada"]
    assert desk.place.students(NAME) == ["ada"]


def test_what_is_graded_already_needs_none(jobs, run):
    """Nothing new is claimed, so nothing has to be vouched for; grading anew asks again."""
    run(jobs)
    assert run(jobs) == (["ada"], [])
    assert len(run(jobs, again=True)[1]) == 1


@pytest.mark.parametrize(
    "points, says",
    [
        (lambda job, check: check["max_points"], "the untouched release gets 2.0 of 0"),
        (lambda job, check: 0.0, "the reference gets 0.0 of 2 in p1-square-test"),
        (
            lambda job, check: (
                check["max_points"] * (check["points"] > 0 or "IPython" in job.student)
            ),
            "the cheat in IPython gets 3.0 of 0 in p1-cube-test",
        ),
    ],
)
def test_a_broken_judge_makes_the_run_void(jobs, run, desk, monkeypatch, points, says):
    """All for everyone, none for anyone, fooled by one cheat: one message, nothing published."""
    before = everything(desk.place.root)
    wrong_judge(monkeypatch, points)
    with pytest.raises(RunVoid) as error:
        run(jobs)
    assert says in str(error.value) and "no grade of it is published" in str(error.value)
    assert everything(desk.place.root) == before
    assert not desk.row("ada").graded


def test_a_result_that_comes_before_the_verdict_waits(jobs, run, desk, monkeypatch):
    """The student's result first, the canaries after it: nothing of it is published."""
    before = everything(desk.place.root)
    wrong_judge(monkeypatch, lambda job, check: check["max_points"])
    backwards = lambda jobs, work, engine: (work(job) for job in reversed(jobs))
    monkeypatch.setattr("autograder.grading.run_jobs", backwards)
    with pytest.raises(RunVoid):
        run(jobs)
    assert everything(desk.place.root) == before


def test_a_void_run_takes_no_published_grade_away(jobs, run, desk, monkeypatch):
    """Graded before, then --again with a broken judge: all is as it was."""
    run(jobs)
    before = everything(desk.place.root)
    wrong_judge(monkeypatch, lambda job, check: check["max_points"])
    with pytest.raises(RunVoid):
        run(jobs, again=True)
    assert everything(desk.place.root) == before and desk.row("ada").total == 5


def test_a_canary_that_cannot_be_graded_makes_the_run_void(jobs, run, monkeypatch):
    """The grader itself fails on it."""
    failed = lambda job, execute: {"student": job.student, "failed": "out of memory", "checks": []}
    monkeypatch.setattr("autograder.grading.grade_one", failed)
    with pytest.raises(RunVoid, match="reference could not be graded: out of memory"):
        run(jobs)


def test_a_test_that_the_grader_cannot_run_makes_the_run_void(jobs, run, desk, monkeypatch):
    """Also where the canary deserves nothing: a test of weights that finds no images."""

    def broken(job, execute):
        missed = ["p1-weights-test: no room on the disk"] if "reference" in job.student else []
        return real(job, execute) | {"execution": {"judge_failed": missed}}

    real = grade_one
    monkeypatch.setattr("autograder.grading.grade_one", broken)
    with pytest.raises(RunVoid, match="on the reference the grader itself failed at p1-weights"):
        run(jobs)
    assert not desk.row("ada").graded


def test_results_wait_until_the_last_canary_is_back(jobs, desk):
    """In whatever order they come: no verdict before the fifth."""
    birds = make_canaries(jobs, desk.place)
    assert [b.what for b in birds] == ["reference", "untouched release", *CHEATS]
    assert [b.deserved for b in birds] == [WORTH, *[NONE] * 4]
    watch = Watch(birds)
    good = [{"grade_id": n, "kind": "hidden", "points": p, "message": ""} for n, p in WORTH.items()]
    for bird in reversed(birds):
        assert watch.waiting and not watch.takes({"student": "ada"})
        checks = [c | {"points": bird.deserved[c["grade_id"]]} for c in good]
        assert watch.takes({"student": bird.job.student, "failed": "", "checks": checks})
    assert not watch.waiting


def test_a_missing_result_is_amiss(jobs, desk):
    """A check that is not there, or that waits for a person, is no right result."""
    bird = make_canaries(jobs, desk.place)[0]
    check = {"grade_id": "p1-cube-test", "kind": "hidden", "points": None, "message": ""}
    wrong = bird.amiss({"failed": "", "checks": [check]})
    assert wrong[0].endswith("has no result for p1-square-test") and "None of 3" in wrong[1]


class TestReal:
    """Through the real sandbox and judge."""

    pytestmark = needs_sandbox()

    def test_real_canaries(self, jobs, desk):
        """Each gets what it deserves, whatever it tries."""
        for bird in make_canaries(jobs, desk.place):
            bundle = grade_one(bird.job)
            assert bird.amiss(bundle) == [], json.dumps(asdict(bird), indent=1)
            assert bundle["execution"]["judge_failed"] == []

    def test_two_runs_of_one_process(self, desk):
        """The judge lives from run to run, and its files with it."""
        desk.hand_in("ada", solved())
        for _ in range(2):
            (done,) = desk.grade(execute=EXECUTE, again=True)
            assert sum(c["points"] or 0 for c in done.bundle["checks"]) == 5
