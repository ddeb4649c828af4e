"""A study says what does not fit when it is written, and knows its trials by their content."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from lab import fakes
from ogive.errors import StudyError, UnknownName
from ogive.lab import Arm, Study, built_in_studies, grid, identity, load_study
from ogive.lab.tuning import Rung, Tuned, tune
from ogive.lab.validate import FIRST_TUNING_SEED


def study(**changes) -> Study:
    return Study(**{"name": "s", "question": "?", "variants": {"a": "query=gelu"}, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "../x"}, "cannot be named '../x'"),
        ({"name": "-rf"}, "beginning with a letter"),
        ({"name": "x" * 101}, "1 to 100"),
        ({"name": 3}, "cannot be named 3"),
        ({"question": " "}, "needs its question"),
        ({"variants": {}}, "needs variants"),
        ({"variants": "query=gelu"}, "needs variants"),
        ({"variants": {"baseline": "query=gelu"}}, "cannot be labelled 'baseline'"),
        ({"variants": {"x" * 201: "query=gelu"}}, "1 to 200 characters"),
        ({"variants": {"a\nb": "query=gelu"}}, r"holds the character '\\n'"),
        ({"variants": {"a\0b": "query=gelu"}}, r"holds the character '\\x00'"),
        ({"variants": {"a\u202eb": "query=gelu"}}, r"'\\u202e'"),
        ({"variants": {"e\u0301": "query=gelu"}}, "normal form"),
        ({"variants": {" a": "query=gelu"}}, "without spaces around"),
        ({"variants": {"a": "query=<script>"}}, "no written form"),
        ({"variants": {"a": ""}}, "'a' is the same as 'baseline'"),
        ({"variants": {"a": "key=relu", "b": "key=relu"}}, "'b' is the same as 'a'"),
        ({"controls": ("b",)}, "unknown control 'b'"),
        ({"controls": "a"}, "controls must be a list"),
        ({"margin": 0}, "margin of task 'text' is 0"),
        ({"margin": float("inf")}, "margin of task 'text' is inf"),
        ({"margin": {"txt": 0.1}}, "did you mean 'text'"),
        ({"tasks": ("text", "recall"), "margin": {"text": 0.1}}, "margin of task 'recall' is None"),
        ({"tasks": "text"}, "tasks must be a list"),
        ({"tasks": ()}, "one or more different names"),
        ({"tasks": ("text", "text")}, "one or more different names"),
        ({"task_options": {"recal": {}}}, "unknown task in task_options"),
        ({"task_options": {"text": 3}}, "must be a mapping"),
        ({"seeds": 0}, "seeds is 0; a whole number from 1"),
        ({"seeds": True}, "seeds is True"),
        ({"seeds": FIRST_TUNING_SEED}, "seeds is 1000000"),
        ({"tuning_seeds": 1.5}, "tuning_seeds is 1.5"),
        ({"learning_rates": ()}, "positive numbers, ascending"),
        ({"learning_rates": (0.1, 0.01)}, "positive numbers, ascending"),
        ({"learning_rates": (0.1, float("nan"))}, "positive numbers, ascending"),
        ({"learning_rates": "0.1"}, "learning_rates must be a list"),
        ({"extra_rungs": -1}, "extra_rungs is -1"),
        ({"match": "flop"}, "did you mean 'flops'"),
        ({"quick": 1}, "quick must be True or False"),
        ({"train": {"lr": 0.1}}, "into learning_rates"),
        ({"model": {"sites": ""}}, "to the variants and the baseline"),
        ({"model": {3: 4}}, "from names to values"),
        ({"train": {"steps": object()}}, "cannot be written down"),
        ({"train": {"steps": float("nan")}}, "cannot be written down"),
        ({"plugins": "x.py"}, "plugins must be a list"),
        ({"variants": {"a": Arm("", train={"lr": 1})}}, "into learning_rates"),
    ],
)
def test_what_does_not_fit(changes, says):
    with pytest.raises(StudyError, match=says):
        study(**changes)


def test_labels_are_the_users_own():
    for label in ("query gelu", "σ(xW)", "🙂", "<script>alert(1)</script>", "a/../b", "con"):
        assert study(variants={label: "query=gelu"}).spec()["variants"].keys() == {label}


def test_derived_by_changing_a_field():
    other = study().replace(name="t", seeds=9)
    assert (other.name, other.seeds, other.variants) == ("t", 9, study().variants)
    with pytest.raises(StudyError, match="unknown field of a study 'sedes'; did you mean 'seeds'"):
        study().replace(sedes=9)
    with pytest.raises(StudyError, match="seeds is 0"):
        study().replace(seeds=0)


def test_the_spec_is_json_and_complete():
    spec = study(margin={"text": 0.02}, variants={"a": Arm("query=gelu", {"width": 8})}).spec()
    assert json.loads(json.dumps(spec)) == spec
    assert spec["variants"] == {"a": {"sites": "query=gelu", "model": {"width": 8}, "train": {}}}
    assert spec["margin"] == {"text": 0.02}


# --- files ---------------------------------------------------------------------------------------


def written(folder, body, name="mine.py"):
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


def test_a_study_from_a_file(tmp_path):
    path = written(
        tmp_path,
        """
        from ogive.lab import Study
        study = Study("mine", "?", {"a": "query=gelu"})
        quick = study.replace(name="mine-quick", quick=True)
        """,
    )
    assert load_study(path).name == "mine"
    assert load_study(str(path), variable="quick").quick
    with pytest.raises(StudyError, match=r"no study named 'slow' \(studies in it: quick, study\)"):
        load_study(path, variable="slow")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("1 / 0", "line 1: ZeroDivisionError"),
        ("x = 1\nimport nothing_of_that_name", "line 2: ModuleNotFoundError"),
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "holds no study named 'study'"),
        (
            "from ogive.lab import Study\nstudy = Study('s', '?', {'a': 'query=gelu'}, sedes=3)",
            "line 2: unknown field of a study 'sedes'; did you mean 'seeds'",
        ),
        (
            "from ogive.lab import Study\n\nstudy = Study('s', '?', {})",
            "line 3: study 's' needs variants",
        ),
    ],
)
def test_files_that_are_no_study(tmp_path, body, says):
    path = written(tmp_path, body)
    with pytest.raises(StudyError, match=says) as raised:
        load_study(path)
    assert str(path) in str(raised.value)


def test_studies_that_are_not_there(tmp_path):
    with pytest.raises(StudyError, match="there is no study in"):
        load_study(tmp_path / "none.py")
    with pytest.raises(UnknownName, match="unknown study 'demmo'; did you mean 'demo'"):
        load_study("demmo")


def test_built_in_studies_load():
    assert "demo" in built_in_studies()
    for name in built_in_studies():
        assert load_study(name).name == name


# --- trials --------------------------------------------------------------------------------------


def test_an_address_is_of_the_content():
    first = {"seed": 1, "train": {"lr": 0.1, "steps": 3}}
    again = {"train": {"steps": 3, "lr": 0.1}, "seed": 1}
    assert identity.trial_id(first) == identity.trial_id(again)
    assert len(identity.trial_id(first)) == 16
    assert identity.trial_id(first) != identity.trial_id({**first, "seed": 2})
    assert identity.trial_id({"x": 1}) != identity.trial_id({"x": "1"})


def test_the_fingerprint_follows_what_decides_the_numbers(tmp_path, monkeypatch):
    for name in ("parts/maps.py", "lab/train.py", "lab/newcomer.py", "lab/store.py", "cli/main.py"):
        path = tmp_path / "ogive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    monkeypatch.setattr(identity, "PACKAGE", tmp_path / "ogive")
    before = identity.code_fingerprint()

    def changed(name, text):
        path = tmp_path / "ogive" / name
        old = path.read_bytes()
        path.write_bytes(text)
        after = identity.code_fingerprint()
        path.write_bytes(old)
        return after != before

    assert changed("parts/maps.py", b"x = 2\n")
    assert changed("lab/train.py", b"x = 2\n")
    assert changed("lab/newcomer.py", b"x = 2\n"), "a file that nobody listed counts"
    assert not changed("lab/store.py", b"x = 2\n")
    assert not changed("cli/main.py", b"x = 2\n")
    assert not changed("parts/maps.py", b"x = 1\r\n")
    (tmp_path / "ogive/parts/maps.py").rename(tmp_path / "ogive/parts/other.py")
    assert identity.code_fingerprint() != before


def test_neutral_files_exist():
    for name in identity.NEUTRAL:
        assert (identity.PACKAGE / name).is_file(), f"{name} is listed as neutral and is not there"


def test_plugins_count(tmp_path):
    plugin = written(tmp_path, "x = 1")
    with_it = identity.code_fingerprint([str(plugin)])
    assert with_it != identity.code_fingerprint()
    plugin.write_text("x = 2")
    assert identity.code_fingerprint([str(plugin)]) != with_it
    assert identity.code_fingerprint(["ogive.errors"]) != identity.code_fingerprint()
    for name in ("no_such_module", str(tmp_path / "none.py"), "no.such.module"):
        with pytest.raises(StudyError, match="was not found"):
            identity.code_fingerprint([name])


def test_comparisons_come_seed_by_seed_and_never_on_tuning_seeds(tmp_path):
    spec = fakes.study(tmp_path, learning_rates=(0.1,), seeds=3).spec()
    plan = fakes.plan(spec)
    trials = grid.wanted(plan, 3, grid.ladders(plan, []))
    order = [(t.config["seed"], t.variant) for t in sorted(trials, key=lambda t: t.position)]
    arms = ("baseline", "a", "b", "c")
    assert order == [(seed, arm) for seed in range(3) for arm in arms]
    plan["ladder"]["rates"] = [0.1, 0.2]
    tuning = grid.wanted(plan, 3, grid.ladders(plan, []))
    assert {t.role for t in tuning} == {"tune"}
    assert {t.config["seed"] for t in tuning} == {FIRST_TUNING_SEED}
    assert len(tuning) == 4 * 2


# --- the ladder ----------------------------------------------------------------------------------


def rungs(expected=1, **scores) -> dict[float, Rung]:
    """`_1=2.0` is score 2.0 at rate 0.1; a list is several seeds."""
    return {
        float("0." + rate[1:]): Rung(tuple(s if isinstance(s, list) else [s]), expected)
        for rate, s in scores.items()
    }


@pytest.mark.parametrize(
    ("tried", "extra", "tuned"),
    [
        (rungs(_1=2.0, _2=1.0, _4=3.0), 1, Tuned(best=0.2, settled=True)),
        (rungs(_1=2.0, _2=1.0), 1, Tuned()),  # one rung is still to run
        (rungs(_1=3.0, _2=2.0, _4=1.0), 1, Tuned(next_rung=0.8)),
        (rungs(_1=1.0, _2=2.0, _4=3.0), 1, Tuned(next_rung=0.05)),
        (rungs(_1=1.0, _2=2.0, _4=3.0), 0, Tuned(best=0.1, settled=True)),
        (rungs(_1=3.0, _2=2.0, _4=1.0, _8=0.5), 1, Tuned(best=0.8, settled=True)),
        (rungs(_1=3.0, _2=2.0, _4=1.0, _8=1.5), 1, Tuned(best=0.4, settled=True)),
        (rungs(_1=3.0, _2=2.0, _4=1.0, _8=None), 1, Tuned(best=0.4, settled=True)),
        (rungs(_1=3.0, _2=2.0, _4=None), 1, Tuned(best=0.2, settled=True)),
        (rungs(_1=None, _2=None, _4=None), 1, Tuned(settled=True)),
        (rungs(_1=1.0, _2=1.0, _4=1.0), 0, Tuned(best=0.1, settled=True)),  # the smaller of equals
    ],
)
def test_where_a_ladder_stands(tried, extra, tuned):
    assert tune((0.1, 0.2, 0.4), tried, extra, higher_is_better=False) == tuned


def test_a_ladder_climbs_for_metrics_that_should_grow():
    up = rungs(_1=1.0, _2=5.0, _4=3.0)
    assert tune((0.1, 0.2, 0.4), up, 1, higher_is_better=True).best == 0.2
    failed = rungs(_1=1.0, _2=None, _4=0.5)
    assert tune((0.1, 0.2, 0.4), failed, 0, higher_is_better=True).best == 0.1


def test_every_seed_of_a_rung_counts():
    half = rungs(2, _1=[1.0, None], _2=[2.0, 2.0], _4=[3.0, 3.0])
    assert tune((0.1, 0.2, 0.4), half, 1, higher_is_better=False).best == 0.2
    waiting = rungs(2, _1=[1.0], _2=[2.0, 2.0], _4=[3.0, 3.0])
    assert tune((0.1, 0.2, 0.4), waiting, 1, higher_is_better=False) == Tuned()
    means = rungs(2, _1=[0.0, 3.0], _2=[1.0, 1.0], _4=[3.0, 3.0])
    assert tune((0.1, 0.2, 0.4), means, 1, higher_is_better=False).best == 0.2


def test_a_single_rate_needs_no_tuning():
    assert tune((0.3,), {}, 5, higher_is_better=False) == Tuned(best=0.3, settled=True)


def test_reading_results_never_loads_torch():
    code = """
        import sys
        from ogive.lab import (Arm, Comparison, Outcome, Progress, Row, Store, Study,
                               built_in_studies, compare, load_study, run_study, sentence)
        load_study("demo")
        assert "torch" not in sys.modules
        assert "scipy.stats" not in sys.modules, "it takes longer to load than all else"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
