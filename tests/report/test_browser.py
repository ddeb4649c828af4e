"""The page in a real browser: quiet, readable, and deaf to whatever its strings say."""

from __future__ import annotations

import json
import re

import pytest
from jinja2 import Environment

from ogive.lab import compare
from ogive.lab import sentence as lab_sentence
from ogive.report import page, write_page
from ogive.report.text import clean
from ogive.report.words import headline
from report import sample
from report.payloads import PAYLOADS

EXTERNAL = '<img src="http://192.0.2.1/x.png">'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The page of a finished study with two tasks and a failed trial."""
    spec, rows, comparisons = sample.study(tasks=("text", "recall"))
    rows.append(
        sample.row(
            variant="scale on value",
            seed=9,
            state="failed",
            reason="training loss became nan at step 7",
        )
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(spec, rows, comparisons, path, receipts=sample.plan(tasks=("text", "recall")))
    return path, comparisons


@pytest.mark.parametrize(
    ("width", "dark"), [(400, False), (400, True), (820, False), (1400, False), (1400, True)]
)
def test_page_is_quiet_and_fits(browser, finished, width, dark):
    path, _ = finished
    visit = browser.visit(
        path, "document.documentElement.scrollWidth", PAPER, width=width, dark=dark
    )
    assert visit.trouble(path.as_uri()) == []
    assert visit.requests == [path.as_uri()]
    assert visit.answers[0] <= width
    assert visit.answers[1] == ("rgb(20, 23, 26)" if dark else "rgb(252, 251, 248)")


PAPER = "getComputedStyle(document.documentElement).backgroundColor"


def test_verdicts_stand_first_and_in_words(browser, finished):
    path, comparisons = finished
    visit = browser.visit(path, "document.querySelector('main').innerText.replace(/\\s+/g, ' ')")
    text = visit.answers[0]
    for task in ("text", "recall"):
        ours = [one for one in comparisons if one.task == task]
        for sentence in headline(ours, ours[0].metric):
            assert sentence in text
            assert text.index(sentence) < text.index("How far from the baseline")
        for one in ours:
            assert squeezed(lab_sentence(one)) in text
    assert "training loss became nan at step 7" in text
    assert "ogive study demo" in text


def test_mark_answers_when_pointed_at(browser, finished):
    path, comparisons = finished
    visit = browser.visit(
        path,
        """(() => {
        const said = [];
        for (const mark of document.querySelectorAll("svg .mark")) {
            mark.dispatchEvent(new PointerEvent("pointerenter", {clientX: 5, clientY: 5}));
            said.push(document.getElementById("tip").textContent);
            mark.dispatchEvent(new PointerEvent("pointerleave"));
        }
        return [said, document.getElementById("tip").hidden];
    })()""",
    )
    said, hidden = visit.answers[0]
    assert hidden
    one = comparisons[0]
    assert f"{one.variant}\n" in said[0]
    assert "paired seeds" in said[0]
    # Two forest plots and a card of curves per variant and task, and every seed of every pair.
    assert len(said) == len(comparisons) * (2 + 1 + 6)
    assert sum(text.startswith("seed 3: ") for text in said) == len(comparisons)


def test_marks_can_be_reached_without_a_mouse(browser, finished):
    path, comparisons = finished
    visit = browser.visit(
        path,
        """(() => {
        const marks = [...document.querySelectorAll(".forest .wide .mark[tabindex='0']")];
        marks[0].focus();
        return [marks.length, marks.every((mark) => mark.getAttribute("aria-label")),
                document.getElementById("tip").hidden];
    })()""",
    )
    assert visit.answers[0] == [len(comparisons), True, False]


def test_tables_sort_by_value_and_back(browser, finished):
    path, _ = finished
    visit = browser.visit(
        path,
        """(() => {
        const table = [...document.querySelectorAll("table")].find(
            (one) => one.caption.textContent === "What each variant costs");
        const head = [...table.tHead.rows[0].cells].findIndex(
            (one) => one.textContent.startsWith("time against"));
        const values = () => [...table.tBodies[0].rows].map(
            (row) => Number(row.cells[head].dataset.value));
        const button = table.tHead.rows[0].cells[head].querySelector("button");
        button.click();
        const up = [values(), table.tHead.rows[0].cells[head].getAttribute("aria-sort")];
        button.click();
        return [up, values()];
    })()""",
    )
    (up, direction), down = visit.answers[0]
    assert up == sorted(up)
    assert len(set(up)) > 3
    assert direction == "ascending"
    assert down == sorted(down, reverse=True)


def test_reader_chooses_the_colours(browser, finished):
    path, _ = finished
    press = f"document.getElementById('theme').click(), {PAPER}"
    assert browser.visit(path, press, press).answers == ["rgb(20, 23, 26)", "rgb(252, 251, 248)"]


def test_drawings_have_names_and_ids_of_their_own(browser, finished):
    path, _ = finished
    visit = browser.visit(
        path,
        """(() => {
        const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
        const uses = [...document.querySelectorAll("use")].map((one) => one.getAttribute("href"));
        return [ids.length - new Set(ids).size, uses.filter((one) => !document.querySelector(one)),
                [...document.querySelectorAll("svg.figure")].filter(
                    (one) => !one.getAttribute("aria-label") || !one.querySelector("desc")).length,
                [...document.querySelectorAll("table")].filter((one) => !one.caption).length,
                document.querySelectorAll("[style]:not(#tip)").length, uses.length];
    })()""",
    )
    *wrong, uses = visit.answers[0]
    assert wrong == [0, [], 0, 0, 0]
    assert uses > 100


# --- whatever a user's string says ---------------------------------------------------------------


def poisoned(payload: str):
    """A study with the payload in every string that a user, a file or a machine can set."""
    labels = (payload, payload + " again")
    spec = sample.spec(
        dict.fromkeys(labels, 0.0),
        tasks=(payload,),
        name=payload,
        question=payload,
        controls=[labels[1]],
        plugins=[payload],
        match=payload,
        model={payload: payload},
        task_options={payload: {}},
    )
    for arm in spec["variants"].values():
        arm["sites"] = payload
    rows = [
        sample.row(
            payload,
            label,
            seed=seed,
            task=payload,
            sites=payload,
            code=payload,
            model={payload: payload, "hidden": payload},
            result=sample.result(
                2.0 + 0.01 * seed + 0.02 * at,
                points=4,
                seed=seed,
                metric=payload,
                unit=payload,
                environment={payload: payload, "threads": payload},
            ),
        )
        for at, label in enumerate(("baseline", *labels))
        for seed in (0, 1)
    ]
    rows.append(
        sample.row(
            payload, labels[0], seed=2, task=payload, state="failed", reason=f"Traceback: {payload}"
        )
    )
    rows.append(
        sample.row(payload, labels[0], "tune", seed=payload, task=payload, state=payload, lr=1e-3)
    )
    return spec, rows, compare(spec, rows)


STATE = """(() => [window.hit === undefined, document.title, document.body.textContent,
    document.scripts.length, document.querySelectorAll(
        "img, iframe, object, embed, audio, video, form, input, base, link, math, foreignObject," +
        "animate, image, a[href^=javascript]").length,
    [...document.querySelectorAll("*")].flatMap((one) => one.getAttributeNames()).filter(
        (name) => name.startsWith("on")).length,
    document.getElementById("ogive-data").textContent])()"""


# A reader who points at every mark and sorts every table by every column.
TOUCH_ALL = """(() => {
    for (const mark of document.querySelectorAll("svg .mark")) {
        mark.dispatchEvent(new PointerEvent("pointerenter"));
        mark.focus();
    }
    document.querySelectorAll(".sort").forEach((button) => button.click());
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
})()"""


def squeezed(text: str) -> str:
    """The text with each run of white space as one blank, as a browser would show it."""
    return " ".join(text.split())


def check_harmless(browser, path, payload: str) -> None:
    """The page shows the payload as text and does nothing else."""
    visit = browser.visit(path, TOUCH_ALL, STATE)
    untouched, title, text, scripts, foreign, handlers, data = visit.answers[1]
    assert visit.trouble(path.as_uri()) == []
    assert untouched
    assert (scripts, foreign, handlers) == (2, 0, 0)
    shown = squeezed(clean(payload))
    assert squeezed(title) == shown
    # The question, the study's name, the label, the reason, the environment, the sites …
    assert squeezed(text).count(shown) > 20
    assert f"Traceback: {shown}" in squeezed(text)
    assert json.loads(data)["study"]["question"] == clean(payload)


def test_payloads_are_sixty_and_different():
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 60


@pytest.mark.parametrize("number", range(len(PAYLOADS)))
def test_strings_are_shown_and_never_run(browser, tmp_path, number):
    payload = PAYLOADS[number]
    path = tmp_path / "report.html"
    spec, rows, comparisons = poisoned(payload)
    plan = {
        "arms": {
            payload: {
                payload: {
                    "sites": payload,
                    "receipt": {
                        "mode": payload,
                        "target": payload,
                        "reached": payload,
                        "hidden": payload,
                    },
                }
            }
        }
    }
    write_page(spec, rows, comparisons, path, receipts=plan, command=payload)
    check_harmless(browser, path, payload)


# --- the checks bite: each wrong twin must fail them ----------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 13, 27, 28])
def test_bites_a_page_that_does_not_escape(browser, tmp_path, monkeypatch, number):
    monkeypatch.setattr(page, "environment", lambda: Environment(autoescape=False))
    path = tmp_path / "report.html"
    write_page(*poisoned(PAYLOADS[number]), path)
    with pytest.raises(AssertionError):
        check_harmless(browser, path, PAYLOADS[number])


def test_bites_a_script_that_writes_markup(browser, tmp_path, monkeypatch):
    asset = page._asset
    monkeypatch.setattr(
        page,
        "_asset",
        lambda name: asset(name).replace("tip.textContent = tips", "tip.innerHTML = tips"),
    )
    path = tmp_path / "report.html"
    write_page(*poisoned(PAYLOADS[27]), path)
    with pytest.raises(AssertionError):
        check_harmless(browser, path, PAYLOADS[27])


def test_bites_data_that_ends_its_script_element(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "json_block", json.dumps)
    path = tmp_path / "report.html"
    write_page(*poisoned(PAYLOADS[1]), path)
    with pytest.raises(AssertionError):
        check_harmless(browser, path, PAYLOADS[1])


@pytest.mark.parametrize(
    ("injected", "found"),
    [
        ("<script>window.hit = 1</script>", "policy: script-src"),
        (EXTERNAL, "policy: img-src"),
        ('<p style="color:red">red</p>', "policy: style-src"),
        ("<link rel=stylesheet href=http://192.0.2.1/x.css>", "policy: style-src"),
        ("<iframe src=http://192.0.2.1/></iframe>", "policy: "),
    ],
)
def test_bites_what_the_policy_forbids(browser, finished, tmp_path, injected, found):
    text = finished[0].read_text()
    path = tmp_path / "wrong.html"
    path.write_text(text.replace("</main>", injected + "</main>"))
    trouble = browser.visit(path, "window.hit === undefined")
    assert any(line.startswith(found) for line in trouble.violations), trouble
    assert trouble.answers == [True]  # the policy held


def test_bites_without_a_policy(browser, finished, tmp_path):
    text = re.sub(r"<meta http-equiv=[^>]*>", "", finished[0].read_text())
    wrong = {
        "script": "<script>window.hit = 1; console.error('oh'); alert(2)</script>",
        "image": EXTERNAL,
    }
    visits = {}
    for name, injected in wrong.items():
        path = tmp_path / f"{name}.html"
        path.write_text(text.replace("</main>", injected + "</main>"))
        visits[name] = browser.visit(path, "window.hit === 1")
        assert visits[name].trouble(path.as_uri()) != []
    assert visits["script"].answers == [True]
    assert visits["script"].dialogs == ["dialog: 2"]
    assert "console.error: oh" in visits["script"].console
    assert "http://192.0.2.1/x.png" in visits["image"].requests
