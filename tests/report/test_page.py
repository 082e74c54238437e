"""`eenet report`: one page with everything in it, whatever the data say."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
import yaml
from PIL import Image
from tests.report.browser import Browser, find_browser
from tests.report.conftest import ATTACK

from eenet.cli import main
from eenet.data import Digits
from eenet.report.examples import examples, opened
from eenet.scheduling import ExitOutputs


class Page(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.scripts, self._script = [], [], False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    main(["report", str(run_dir), "--output", str(output)])
    return output


def test_the_page_needs_nothing_else(report):
    path = report / "report.html"
    assert path.stat().st_size < 5_000_000
    for tag, attributes in Page(path).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in path.read_text()
    assert not re.search(r"url\((?!#)", path.read_text())


def test_names_and_sentences_are_text(report):
    page = Page(report / "report.html")
    data, script = page.scripts  # no third one, from the data
    assert "taken" not in script
    found = json.loads(data)
    assert found["classes"][0] == f"class 0 {ATTACK}"
    assert all(ATTACK in sample["text"] for sample in found["examples"])
    assert ATTACK not in (report / "report.html").read_text()


def test_every_figure_is_a_file_and_has_words(report):
    names = {path.stem for path in (report / "figures").glob("*.svg")}
    assert names == {path.stem for path in (report / "figures").glob("*.png")}
    assert names >= {"curves", "shares", "scores", "classes", "reliability", "weights", "control"}
    ids = [a["id"] for _, a in Page(report / "report.html").elements if "id" in a]
    assert len(ids) == len(set(ids))
    drawn = [a for t, a in Page(report / "report.html").elements if t == "svg"]
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)


def test_mistakes_are_named(run_dir, make_run, tmp_path, capsys):
    def refused(*runs):
        with pytest.raises(SystemExit):
            main(["report", *map(str, runs), "--output", str(tmp_path / "none")])
        return capsys.readouterr().err

    assert "is not the folder of a finished run" in refused(tmp_path / "nowhere")
    other = make_run(tmp_path / "other", seed=1)
    (other / "stage1/identity.json").write_text('{"seed_everything": 1, "model": "larger"}')
    assert "stage1.model: 'stage1' there, 'larger' now" in refused(run_dir, other)
    (other / "stage2/checkpoints/best.ckpt").unlink()
    assert "stage2/checkpoints/best.ckpt is missing" in refused(other)
    assert not (tmp_path / "none").exists()


def test_the_report_goes_on_without_the_data(make_run, tmp_path):
    run = make_run(tmp_path / "run", train="gone.csv")
    main(["report", str(run)])
    page = (run / "report/report.html").read_text()
    assert "gone.csv" in page.partition("not at hand any more")[2][:200]


def test_images_are_those_of_the_test_split(tmp_path):
    (tmp_path / "stage1").mkdir()
    config = {"data": {"class_path": "eenet.data.Digits"}}
    (tmp_path / "stage1/config.yaml").write_text(yaml.safe_dump(config))
    (_, _), (images, labels) = Digits().load()
    outputs = ExitOutputs(torch.ones(1), torch.randn(1, len(labels), 10), labels=labels)
    found = examples(tmp_path, outputs, torch.tensor([7, 3]))
    for sample, image in zip(found["samples"], images[[7, 3]], strict=True):
        own = Image.fromarray(image[0].numpy()).convert("RGB")
        assert opened(sample["image"]).tobytes() == own.tobytes()
    outputs.labels[7] = (outputs.labels[7] + 1) % 10
    found = examples(tmp_path, outputs, torch.tensor([7, 3]))
    assert (found["samples"], "other labels" in found["missing"]) == ([], True)


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium: `make browser` brings one")
    browser = Browser(path)
    yield browser
    browser.close()


def test_the_slider_works_without_a_network(report, browser, tmp_path):
    path = report / "report.html"
    browser.open(path)
    data = json.loads(Page(path).scripts[0])
    words = 'document.getElementById("{}").textContent'
    shown = set()
    for label in ("eenet", "margin"):
        policy = data["policies"][label]
        browser.run(
            f'at("policy").value = "{label}"; at("policy").dispatchEvent(new Event("change"))'
        )
        for stop in (0, 10, len(data["grid"]) - 1):
            browser.run(f'at("stop").value = {stop}; at("stop").dispatchEvent(new Event("input"))')
            fitted = [i for i, b in enumerate(policy["budget"]) if b <= data["grid"][stop] + 1e-6]
            i = fitted[-1] if fitted else 0
            quality = f"{100 * policy['quality'][i]:.1f} %"
            assert browser.run(words.format("quality")).startswith(quality)
            assert browser.run(words.format("cost")) == f"{policy['cost'][i]:.3f} cost used"
            shares = browser.run('at("shares").getAttribute("aria-label")').split(", ")
            expected = [f"exit {k + 1}: {100 * s:.1f} %" for k, s in enumerate(policy["shares"][i])]
            assert shares == expected
            rows = browser.run(
                '[...document.querySelectorAll("#classes td")].map(x => x.textContent)'
            )
            flat = [x for row in policy["classes"][i] for x in row]
            assert rows == [f"{100 * x:.0f} %" for x in flat]
            shown.add((quality, *shares))
    assert len(shown) >= 5
    browser.run('at("stop").focus()')
    before = browser.run(words.format("budget"))
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft",
                 windowsVirtualKeyCode=37)  # fmt: skip
    assert browser.run(words.format("budget")) != before
    assert browser.run("document.title").endswith("adaptive inference report")  # not "taken"
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


@pytest.mark.parametrize(
    "how", [{}, {"scheme": "dark"}, {"width": 390}, {"media": "print", "width": 760}], ids=str
)
def test_the_page_fits_its_reader(report, browser, tmp_path, how):
    browser.open(report / "report.html")
    browser.look(tmp_path / "page.png", **how)
    assert browser.run("document.documentElement.scrollWidth") <= how.get("width", 1100)
    colours = browser.run("[getComputedStyle(document.body).color, "
                          "getComputedStyle(document.body).backgroundColor]")  # fmt: skip
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (ink > paper) == (how.get("scheme") == "dark")
    with Image.open(tmp_path / "page.png") as image:
        assert image.height > 4000
    assert browser.problems == []
