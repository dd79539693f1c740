from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import environment
from experiments.comparison.axes import counting, linear, logarithmic, round_ticks, shade
from experiments.comparison.bars import draw_bars
from experiments.comparison.calibration import Bin
from experiments.comparison.charts import learning_curves
from experiments.comparison.comparison import compare
from experiments.comparison.images import load_images, png_uri
from experiments.comparison.parallel import levels, parallel_coordinates
from experiments.comparison.reliability_chart import is_stretched, reliability_chart
from experiments.comparison.report import write
from experiments.comparison.sentences import headlines, sentences
from experiments.config import compose
from experiments.results import files, lookup, records
from experiments.results.evaluation import Interval, image_digests, predictions_digest
from experiments.results.records import Predictions, Record
from synthetic_runs import configured, probabilities_of, rows_of, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "link", "img", "br", "circle"}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Labels and image digests of the digits' test set."""
    test = compose("dataset=digits").dataset.load().test
    return test.labels, image_digests(test.images)


def write_report(runs: Sequence[Record], directory: Path) -> list[Path]:
    return write(compare(runs), directory)


def write_runs(home: Path, digits: tuple[np.ndarray, np.ndarray], seeds: int = 2, **grid: list) -> list[Record]:
    """A sweep over a grid on the digits' real test set, every run a little better than the one before."""
    labels, digests = digits
    validation = np.arange(150) % 10
    for number, (*values, seed) in enumerate(product(*grid.values(), range(seeds))):
        generator = np.random.default_rng(number)
        right, confidence = generator.random(len(labels)) < 0.8 + number / 200, generator.uniform(0.5, 1, len(labels))
        right_validation = generator.random(150) < 0.8 + number / 200
        predictions = Predictions(
            probabilities_of(labels, right, confidence), labels, digests,
            probabilities_of(validation, right_validation, np.full(150, 0.8)), validation,
        )  # fmt: skip
        settings = {name.replace("__", "."): value for name, value in zip(grid, values, strict=True)}
        varied = {key.removesuffix(".name").rpartition(".")[2]: value for key, value in settings.items()}
        write_run(
            home / "multirun" / "s" / str(number), predictions,
            config=configured(**settings, seed=seed), sweep="s", varied={**varied, "seed": seed},
            rows=rows_of([0.5 + number / 90, 0.3, 0.1], [0.4, 0.3, 0.25 + number / 90], [0.8, 0.9, 0.95]),
        )  # fmt: skip
    return lookup.find("s", home)


class Page(HTMLParser):
    """Checks that tags nest, and collects text, links and the table's rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data


@pytest.fixture
def report(home: Path, digits) -> Path:
    runs = write_runs(home, digits, optimizer__name=["sgd", "adam"], model__width=[16, 32, 64])
    return write_report(runs, home / "report")[0]


def test_report_is_four_files(report: Path):
    assert {path.name for path in report.parent.iterdir()} == {"report.html", "report.md", "runs.csv", "suspects.csv"}


def test_report_needs_nothing_but_itself(report: Path):
    html = report.read_text()
    page = Page(html)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\(|https?://", html)
    assert "default-src 'none'" in html


def test_report_says_all_that_the_comparison_says(report: Path, home: Path):
    comparison, page = compare(lookup.find("s", home)), Page(report.read_text())
    assert "12 finished runs in 6 configurations on digits" in page.text
    for configuration in comparison.configurations:
        assert configuration.label in page.text
        assert f"{100 * configuration.mean('test/accuracy'):.2f}" in page.text
    for word in (
        "In words",
        "Ranking",
        "Learning curves",
        "Every pair",
        "Images",
        "Calibration",
        "Ensemble",
        "Methods",
    ):
        assert word in page.text
    assert "optimizer ↓ width →" in page.text
    for topic, text in sentences(comparison):
        assert text in page.text, topic


def test_report_begins_with_the_answer_and_its_figure(report: Path, home: Path):
    comparison, html = compare(lookup.find("s", home)), report.read_text()
    answer = next(text for topic, text in headlines(comparison) if topic == "answer")
    assert f"<h1>{answer}</h1>" in html
    places = [html.index(part) for part in ("<h1>", 'id="accuracy"', "<nav>", 'id="words"', 'id="methods"')]
    assert places == sorted(places)
    assert html.count("★</b>") == sum(comparison.may_be_best)


def test_report_names_the_ninth_of_nine_and_counts_the_others_of_ten(home: Path, digits):
    runs = write_runs(home, digits, 1, model__width=list(range(1, 11)))
    for count in (9, 10):
        html = write_report(runs[:count], home / "report")[0].read_text()
        legend = re.search(r'<ul class="legend">(.*?)</ul>', html, re.S).group(1)
        assert legend.count("<button") == (9 if count == 9 else 8)
        assert ("2 others" in legend) == (count == 10)
        assert "the others" not in legend


def test_report_has_one_triangle_of_pairs(home: Path, digits):
    runs = write_runs(home, digits, 2, model__width=list(range(1, 14)))
    for count, dense in ((12, False), (26, True)):
        html = write_report(runs[:count], home / "report")[0].read_text()
        matrix = re.search(r'<table class="matrix(.*?)</table>', html, re.S).group(1)
        configurations = count // 2
        assert matrix.startswith(" dense") == dense
        assert matrix.count("<td") == configurations * (configurations - 1) // 2


def test_report_calls_a_folder_by_its_name(home: Path, digits):
    (run,) = write_runs(home, digits, 1)
    config = configured(**{"dataset.name": "files", "dataset.path": "/data/photographs"})
    (run.directory / "config.yaml").write_text(yaml.safe_dump(config))
    run.write(dataset=run.dataset.model_copy(update={"name": "files"}))
    assert "on photographs" in Page(write_report(lookup.find("s", home), home / "report")[0].read_text()).text


def test_first_figure_points_at_what_is_far_away(home: Path, digits):
    runs = write_runs(home, digits, 2, model__width=[1, 2, 3, 4])
    labels = digits[0]
    for number in (0, 1):  # an outlier
        right = np.random.default_rng(number).random(len(labels)) < 0.1
        arrays = vars(runs[number].predictions) | {
            "test_probabilities": probabilities_of(labels, right, np.full(len(labels), 0.9))
        }
        np.savez(runs[number].directory / "predictions.npz", **arrays)
        metrics = runs[number].metrics | {"test/accuracy": float(right.mean())}
        runs[number].write(metrics=metrics, predictions_digest=predictions_digest(arrays["test_probabilities"]))
    bars = draw_bars(compare(lookup.find("s", home)))
    (cut,) = (bar for bar in bars.rows if bar.is_cut)
    assert (cut.label, cut.dot) == ("width 1", None)
    others = [bar for bar in bars.rows if not bar.is_cut]
    assert max(bar.high for bar in others) - min(bar.low for bar in others) > 15
    assert all(0 <= bar.low <= bar.high <= 100 for bar in bars.rows)


def test_report_of_three_options_has_parallel_coordinates(home: Path, digits):
    for epochs in ([4, 8], [4, 8, 12, 16]):  # only where an option has more than three levels
        folder = home / str(len(epochs))
        runs = write_runs(
            folder, digits, 1, optimizer__name=["sgd", "adam"], model__width=[1, 2], training__epochs=epochs
        )
        html = write_report(runs, home / "report")[0].read_text()
        assert ("Parallel coordinates" in html) == (len(epochs) > 3)
        assert "width ↓" not in html


@pytest.mark.parametrize("seeds", [1, 2])
def test_report_of_one_configuration(home: Path, digits, seeds: int):
    page = Page(write_report(write_runs(home, digits, seeds), home / "report")[0].read_text())
    assert "there is nothing to compare it with" in page.text
    assert "Every pair" not in page.text
    assert ("Missed by most runs" in page.text) == (seeds == 2)


def test_report_escapes_what_comes_from_a_config(home: Path, digits):
    runs = write_runs(home, digits, 1, model__name=["<script>alert(1)</script>", "a|b & c"])
    broken = write_run(home / "multirun" / "s" / "9", None, sweep="s", state="failed", config=configured(seed=9))
    broken.write(error=records.Failure(type="ValueError", message="<img src=x onerror=alert(1)>"))
    html, markdown, *_ = (path.read_text() for path in write_report([*runs, broken], home / "report"))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "a\\|b & c" in markdown
    Page(html)


def test_report_of_broken_histories_and_metrics(home: Path, digits):
    runs = write_runs(home, digits, 1, model__width=[1, 2, 3])
    (runs[0].directory / "history.csv").unlink()
    files.write_history(runs[1].directory / "history.csv", rows_of([np.nan, np.inf], [np.nan, 1.0], [0.1, 0.1]))
    runs[2].write(metrics={})
    page = Page(write_report(lookup.find("s", home), home / "report")[0].read_text())
    assert "width 3" in page.text


def test_markdown_has_a_table_that_is_one(report: Path):
    lines = (report.parent / "report.md").read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| # |"))
    assert set(lines[head + 1]) <= set("|-: ")
    counts = {line.count("|") for line in lines[head : head + 8]}
    assert counts == {lines[head].count("|")}
    assert lines[head + 2].startswith("| 1 | ")
    assert lines[head - 2] == "By validation accuracy; the test images choose nothing."


def test_report_of_fifty_runs_is_small(home: Path, digits):
    runs = write_runs(home, digits, 2, model__width=list(range(5)), training__epochs=list(range(5)))
    assert len(runs) == 50
    assert write_report(runs, home / "report")[0].stat().st_size < 5_000_000


def test_report_is_refreshed_in_place(report: Path, home: Path):
    before = report.read_bytes()
    write_report(lookup.find("s", home), report.parent)
    assert report.read_bytes() == before
    assert len(list(report.parent.iterdir())) == 4


# --- pictures


def test_png_uri_is_a_png_of_the_pixels():
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
        content = base64.b64decode(png_uri(pixels).removeprefix("data:image/png;base64,"))
        decoded = np.asarray(Image.open(io.BytesIO(content)))
        assert np.array_equal(decoded.reshape(pixels.shape), pixels)


def test_galleries_show_the_missed_images(report: Path, home: Path):
    comparison, html = compare(lookup.find("s", home)), report.read_text()
    images = compose("dataset=digits").dataset.load().test.images
    for mistake in comparison.most_missed[:48]:
        assert png_uri(images[mistake.index]) in html
        assert f"image {mistake.index}, pixels {mistake.digest}" in html


def test_galleries_mark_doubtful_labels(home: Path, digits, monkeypatch: pytest.MonkeyPatch):
    runs = write_runs(home, digits, 1, model__width=[16, 32])
    first = compare(runs).most_missed[:2]
    loaded = load_images(compare(runs).best)
    doubtful = {first[0].index: (3, 4), first[1].index: ()}
    replaced = type(loaded)(loaded.pixels, loaded.class_names, doubtful, "")
    monkeypatch.setattr("experiments.comparison.report.load_images", lambda _: replaced)
    text = Page(write_report(runs, home / "report")[0].read_text()).text
    assert "raters: 3, 4" in text
    assert "raters: no majority" in text


def test_galleries_give_way_to_a_sentence(home: Path, digits, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EXPERIMENTS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home))
    labels, digests = digits
    for name, dataset, shift, sentence in (
        ("here", "mnist", 0, "The file of mnist is not on this machine"),
        ("other", "digits", 1, "has other test images than the runs"),
        ("odd", "cifar", 0, "The images cannot be loaded"),
    ):
        right = np.arange(len(labels)) % 5 > 0
        predictions = Predictions(
            probabilities_of(labels, right, np.full(len(labels), 0.9)), labels, digests + np.uint64(shift),
            probabilities_of(labels[:9], np.ones(9, bool), np.full(9, 0.9)), labels[:9],
        )  # fmt: skip
        config = configured()
        config["dataset"] = {"name": dataset, "validation_fraction": 0.1, "train_limit": None}
        config["dataset"] |= {"path": None} if dataset == "mnist" else {}
        run = write_run(home / "outputs" / name, predictions, config=config)
        html = write_report([run], home / "report")[0].read_text()
        assert sentence in html
        assert "data:image" not in html


# --- charts


def test_training_curves_are_those_that_are_measured_as_validation_is(home: Path, digits: tuple) -> None:
    (run,) = write_runs(home, digits, seeds=1, optimizer__name=["sgd"])
    values = {"train_measured_accuracy": 0.75, "train_measured_cross_entropy": 0.5}
    measured = [replace(row, **values, unknown=()) for row in run.rows]
    assert "running means" in write_report([run], home / "report")[0].read_text()
    files.write_history(run.directory / files.HISTORY, measured)
    html = write_report([records.load(run.directory)], home / "report")[0].read_text()
    assert "measured as validation is" in html
    assert ": 25 at the end" in html


def test_round_ticks_span_the_values_in_round_steps():
    assert round_ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_ticks(0.6, 1.1) == [0.6, 0.7, 0.8, 0.9, 1.0, 1.1]  # 1.1 / 0.1 is above 11
    assert round_ticks(98.3, 99.1) == [98.2, 98.4, 98.6, 98.8, 99.0, 99.2]
    for low, high in ((0.003, 0.004), (-3, 1_000), (5, 5), (0, 0)):
        ticks = round_ticks(low, high)
        assert ticks[0] <= low <= high <= ticks[-1]
        assert 2 <= len(ticks) <= 8 or low == high
        assert len({round(b - a, 12) for a, b in pairwise(ticks)}) <= 1


def test_axes_place_values():
    axis = linear(0.0, 1.0, 100, 0)
    assert [axis.place(value) for value in (0.0, 0.5, 1.0)] == pytest.approx([100, 50, 0])
    axis = logarithmic(0.01, 1.0, 0, 100)
    assert [axis.place(value) for value in (0.001, 0.01, 0.1, 1.0)] == pytest.approx([0, 0, 50, 100])
    assert [round(tick, 9) for tick in axis.ticks] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    axis = logarithmic(0.047, 0.47, 0, 100)
    assert [axis.text(tick) for tick in axis.ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    axis = logarithmic(0.0003, 0.06, 0, 100)
    assert [axis.text(tick) for tick in axis.ticks] == ["0.001", "0.01", "0.1"]
    assert counting(1, 0, 10).ticks == [1.0]
    assert counting(30, 0, 10).ticks == [1.0, 7.0, 13.0, 19.0, 25.0]


def test_shade_goes_by_rank():
    values = [99.1, 99.2, 99.3, 10.0]
    assert [shade(value, values) for value in sorted(values)] == [0, 2, 4, 6]
    assert shade(float("nan"), values) == 0
    assert shade(1.0, [1.0]) == 0


def test_levels_are_in_a_natural_order():
    assert levels([10, "b", None, 9.5, "a", 10]) == [9.5, 10, "a", "b", None]


def test_learning_curves_have_a_line_for_each_run(home: Path, digits):
    comparison = compare(write_runs(home, digits, 2, model__width=[16, 32, 64]))
    panels = learning_curves(comparison.configurations)
    assert [panel.title for panel in panels] == [
        "Validation cross-entropy", "Training cross-entropy", "Error (%): validation, training dashed",
        "Learning rate",
    ]  # fmt: skip
    for panel, dashed in zip(panels, (0, 0, 3, 0), strict=True):
        assert panel.svg.count('class="run"') == 6
        assert panel.svg.count('class="mean"') == 3 + dashed
        assert panel.svg.count("<polygon") == 3
        numbers = [float(n) for points in re.findall(r'points="([^"]+)"', panel.svg) for n in re.split("[ ,]", points)]
        assert min(numbers) >= 0
        assert max(numbers) <= 300
    assert "width 64: 5 at the end, mean of 2 seeds" in panels[2].svg


def test_learning_curves_of_one_seed_have_no_band(home: Path, digits):
    for panel in learning_curves(compare(write_runs(home, digits, 1, model__width=[16, 32])).configurations):
        assert "<polygon" not in panel.svg
        assert 'class="run"' not in panel.svg


def test_reliability_chart_has_a_bar_for_each_bin(home: Path, digits):
    found = compare(write_runs(home, digits, 1, model__width=[16, 32])).calibration
    svg = reliability_chart(found.bins)
    assert svg.count("<circle") == 15
    numbers = [float(n) for points in re.findall(r'points="([^"]+)"', svg) for n in re.split("[ ,]", points)]
    assert min(numbers) >= 0
    assert max(numbers) <= 300


def test_reliability_chart_of_a_weak_model_has_even_axes():
    bins = [Bin(share, share, Interval(share - 0.12, share + 0.12), 50) for share in (0.3, 0.5, 0.7)]
    sure = Bin(0.6, 0.95, Interval(0.88, 0.98), 50)  # one of them, which makes the others no smaller
    assert not is_stretched([*bins, sure])
    svg = reliability_chart([*bins, sure])
    assert re.findall(r">(\d+)%<", svg) == ["0", "20", "40", "60", "80", "100", "0", "40", "80"]
    xs, ys = ([float(n) for n in re.findall(rf'c{axis}="([\d.]+)"', svg)] for axis in "xy")
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2) == pytest.approx(ys[0] - ys[1], abs=4)
    assert xs[2] - xs[0] > 90  # of 238


def test_reliability_chart_of_a_good_model_stretches_the_last_percents():
    weak = [Bin(share, share, Interval(share - 0.12, share + 0.12), 50) for share in (0.3, 0.5, 0.7)]
    bins = [*weak, *[Bin(0.99, 0.99, Interval(0.98, 0.995), 50)] * 3, Bin(1.0, 1.0, Interval(0.99, 1.0), 50)]
    assert is_stretched(bins)
    svg = reliability_chart(bins)
    assert "99.9%" in svg
    xs = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert xs[3] - xs[2] > xs[2] - xs[0]  # from 70 to 99 % is farther than from 30 to 70
    assert max(xs) == 290  # what is beyond the axis stands at its end


def test_parallel_coordinates_have_a_line_for_each_configuration(home: Path, digits):
    comparison = compare(write_runs(home, digits, 1, optimizer__name=["sgd", "adam"], model__width=[1, 2, 3]))
    svg = parallel_coordinates(comparison.configurations, comparison.options)
    assert svg.count("<polyline") == 6
    assert svg.count('class="axis"') == 3


# --- in a browser

CLICKS = """
<script>
const order = () => [...document.querySelectorAll("table.sortable tbody tr")].map((row) => row.cells[0].textContent);
const heading = [...document.querySelectorAll("table.sortable th button")].find((b) => b.textContent === "test %");
const shown = [order()];
heading.click(); shown.push(order()); heading.click(); shown.push(order());
const legend = document.querySelector(".legend button");
legend.click(); shown.push(document.querySelectorAll(".line.on").length);
legend.click(); shown.push(document.querySelectorAll(".line.on").length);
shown.push(document.documentElement.scrollWidth <= innerWidth, document.querySelectorAll("img").length);
parent.postMessage(JSON.stringify(shown), "*");
</script></body>"""

FRAME = """<!doctype html><script>onmessage = (message) => {{ document.title = message.data; }};</script>
<iframe src="clicked.html" width="{}" height="900" frameborder="0"></iframe>"""


def browse(page: Path, scratch: Path) -> tuple[str, str, list[str]]:
    """The page's DOM after its scripts, the browser's console, and every address that was asked for."""
    log = scratch / "net.json"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={scratch / 'profile'}", "--window-size=1300,900", f"--log-net-log={log}",
            "--enable-logging=stderr", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    content = log.read_text().rstrip().rstrip(",")
    events = json.loads(content if content.endswith("}") else content + "]}")["events"]
    addresses = [event["params"]["url"] for event in events if "url" in (event.get("params") or {})]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console, addresses


# What the browser asks for by itself, whatever page it shows: its own updates, clock and accounts.
OWN = re.compile(r"https?://([a-z0-9-]+\.)*(google|googleapis|gvt1)\.com/")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_report_works_in_a_browser_without_error_or_request(report: Path, home: Path, tmp_path: Path, width: int):
    (tmp_path / "clicked.html").write_text(report.read_text().replace("</body>", CLICKS))
    page = tmp_path / "frame.html"  # a window of Chromium is never as narrow as a phone
    page.write_text(FRAME.format(width))
    dom, console, addresses = browse(page, tmp_path)
    assert console == ""
    assert [address for address in addresses if not OWN.match(address)] == []
    shown = json.loads(re.search("<title>(.*)</title>", dom).group(1).replace("&quot;", '"'))
    before, rising, falling, lit, unlit, fits, pictures = shown
    accuracies = [100 * c.mean("test/accuracy") for c in compare(lookup.find("s", home)).configurations]
    assert before == ["1", "2", "3", "4", "5", "6"]
    assert [accuracies[int(rank) - 1] for rank in rising] == sorted(accuracies)
    assert falling == rising[::-1]
    assert (lit, unlit) == (5, 0)  # a group in each panel, and training beside validation in one
    assert fits
    assert pictures > 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_browser_would_have_shown_an_error_and_a_request(report: Path, tmp_path: Path):
    page = tmp_path / "bad.html"
    bad = '<script>nothing();</script><img src="http://127.0.0.1:9/x.png"></body>'
    html = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", report.read_text())
    page.write_text(html.replace("</body>", bad))
    _, console, addresses = browse(page, tmp_path)
    assert "nothing is not defined" in console
    assert [address for address in addresses if not OWN.match(address)]


@pytest.mark.parametrize("redirection", ["| head -1", ">&-", "> /dev/full"])
def test_report_is_written_whoever_reads_the_table(
    redirection: str, home: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    write_runs(home, digits, 1)
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m experiments.compare s {redirection}; exit "${{PIPESTATUS[0]}}"', sys.executable],
        env=environment(home, PYTHONIOENCODING="ISO-8859-1", FORCE_COLOR="1"), cwd=home,
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert (home / "multirun" / "s" / "report.html").exists()
