"""The UI's command and, in a browser, what a user sees of a sweep."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

import commands
from conftest import environment, epoch_row, write_record
from experiments.config import compose
from experiments.results import files, tracking, tracking_sweep
from experiments.results.evaluation import Overfitting
from experiments.results.records import MLflowState

pytestmark = pytest.mark.usefixtures("stores")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
PATIENCE_SECONDS = 90
SWEEP = "optimizers"
# In the order of validation accuracy, which is what the table is sorted by; test accuracy has another order.
RUNS = {"adam · seed 0": 0.97, "rmsprop · seed 0": 0.96, "adam · seed 1": 0.95, "rmsprop · seed 1": 0.94}
PICTURE = (321, 123)  # width and height


def run_ui(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.ui", *arguments],
        env=environment(home, **variables), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


def test_help_is_quick(home: Path) -> None:
    heavy = "('mlflow', 'tensorflow', 'numpy', 'pydantic')"
    script = (
        "import sys; sys.argv = ['ui', '--help']\n"
        "from experiments import ui\n"
        "try: ui.main()\n"
        f"except SystemExit as end: print(end.code, [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(home), capture_output=True, text=True)
    assert "--port N" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_store_that_is_not_there_is_told(home: Path) -> None:
    done = run_ui(home)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{home / 'mlflow.db'}: no such store; `python -m experiments.run` makes one\n"
    assert list(home.iterdir()) == []


def test_store_of_the_variable_that_is_not_there_is_told(home: Path) -> None:
    done = run_ui(home, MLFLOW_TRACKING_URI=f"sqlite:///{home}/other.db")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{home}/other.db: no such store")


def test_server_has_a_ui_of_its_own(home: Path) -> None:
    done = run_ui(home, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "MLFLOW_TRACKING_URI is a server with a UI of its own: http://127.0.0.1:9\n"


def test_port_that_is_taken_is_told_with_one_that_is_free(home: Path) -> None:
    (home / "mlflow.db").touch()
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        done = run_ui(home, "--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    told, _, proposed = done.stderr.rpartition(" --port ")
    assert told == f"--port: {port} is in use by another program; try"
    assert int(proposed) == 0 or port < int(proposed) < 65536


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_port_that_is_none_is_told(port: str, home: Path) -> None:
    (home / "mlflow.db").touch()
    done = run_ui(home, "--port", port)
    assert done.returncode == 2
    assert "--port: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_password_of_the_store_is_no_argument_of_a_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments import ui

    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], *, env: dict[str, str] | None = None, **_: Any) -> Any:
        started.append((command, env or {}))
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start)
    for signal_name in ("signal", "getsignal"):
        monkeypatch.setattr(signal, signal_name, lambda *_: None)
    store = "postgresql://anna:pass-word@host/db"
    with pytest.raises(KeyboardInterrupt), ui._server(store, home, 5000, io.BytesIO()):
        pass
    ((command, variables),) = started
    assert "pass-word" not in " ".join(command)
    assert variables["MLFLOW_BACKEND_STORE_URI"] == store


def test_password_of_the_store_is_not_shown(home: Path) -> None:
    done = run_ui(home, MLFLOW_TRACKING_URI="http://anna:pass-word@127.0.0.1:9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "MLFLOW_TRACKING_URI is a server with a UI of its own: http://***@127.0.0.1:9\n"


@pytest.mark.slow
def test_store_that_is_none_is_told_in_a_line(home: Path) -> None:
    (home / "mlflow.db").write_text("no database")
    done = run_ui(home, "--port", "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{home}/mlflow.db: MLflow cannot serve it (" in done.stderr
    assert "not a database" in done.stderr


def sweep_of_runs(home: Path) -> None:
    """A finished sweep in MLflow, without a training: three epochs and a figure each."""
    directory = home / "multirun" / SWEEP
    directory.mkdir(parents=True)
    small = ("dataset=digits", "model=linear")
    configs = [compose(*small, f"optimizer={name.split()[0]}", f"seed={name[-1]}") for name in RUNS]
    parent = tracking_sweep.open_sweep(directory, configs[0], home, None, ["optimizer", "seed"])
    for job, (config, accuracy) in enumerate(zip(configs, RUNS.values(), strict=True)):
        record = write_record(
            directory / str(job), name=f"{SWEEP}/{job}", sweep=SWEEP, job=job,
            varied={"optimizer": config.optimizer.name, "seed": config.seed}, mlflow=MLflowState(parent_run_id=parent),
        )  # fmt: skip
        rows = [epoch_row(epoch, 0.1 * job + 1 / epoch) for epoch in (1, 2, 3)]
        files.write_history(record.directory / files.HISTORY, rows)
        (record.directory / files.FIGURES).mkdir()
        Image.new("RGB", PICTURE, "#bd1f01").save(record.directory / files.FIGURES / "misclassified.png")
        metrics = {"validation/accuracy": accuracy, "test/accuracy": 0.9 + job / 100}
        verdict = Overfitting("No overfitting.", None, 3, 0.0)
        record.write(state="finished", seconds=9.0, epochs_run=3, metrics=metrics, overfitting=verdict)
        tracking.synchronise(record, config.with_threads(1), home)
    assert parent
    tracking_sweep.close_sweep(parent, directory, home, {"done": len(RUNS)}, status="FINISHED")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        sweep_of_runs(home)
    return home


@contextmanager
def served(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The UI as a process, and the address of the newest sweep that it prints once it answers."""
    command = [sys.executable, "-m", "experiments.ui", "--port", "0"]
    with subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = [line.rstrip() for line in iter(process.stdout.readline, "Ctrl-C stops it\n")]
            yield process, lines[-1].removeprefix("newest sweep: ")
        finally:
            process.terminate()


def what_is_left(process: subprocess.Popen[str], address: str, number: int) -> list[psutil.Process]:
    """Of the servers that answered, after a signal to the command that started them."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/")
    assert connection.getresponse().status == http.client.OK
    connection.close()
    servers = psutil.Process(process.pid).children(recursive=True)
    assert servers
    process.send_signal(number)
    process.wait(PATIENCE_SECONDS)
    _, left = psutil.wait_procs(servers, PATIENCE_SECONDS if number == signal.SIGKILL else 0)
    return [server for server in left if server.status() != psutil.STATUS_ZOMBIE]


def test_store_without_a_sweep_opens_on_the_runs_that_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments import ui

    found = [{"experiment_id": number, "last_update_time": last} for number, last in (("0", 5), ("7", 90), ("3", 8))]
    monkeypatch.setattr(ui, "_ask", lambda *_: json.dumps({"experiments": found}).encode())
    assert ui._start_page(5000) == "runs: http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"


def test_server_ends_with_a_command_that_is_killed(home: Path) -> None:
    code = (
        "import subprocess, time; from experiments import ui\n"
        "server = subprocess.Popen(['sleep', '60'], start_new_session=True); guard = ui._guard(server.pid)\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    with commands.start(["-c", code], env=environment(home), stdout=subprocess.PIPE) as process:
        assert process.stdout
        server = psutil.Process(int(process.stdout.readline()))
        process.kill()
    server.wait(20)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_store_without_a_sweep_opens_on_its_runs_and_kill_leaves_nothing(home: Path) -> None:
    number = tracking.prepare_store(home, "mine")
    with served(home) as (process, printed):
        address = printed.removeprefix("runs: ")
        assert address.startswith("http://127.0.0.1:")
        assert address.endswith(f"/#/experiments/{number}/runs?workflowType=machine_learning")
        assert what_is_left(process, address, signal.SIGKILL) == []


# --- in a browser


@pytest.fixture(scope="module")
def served_store(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with served(store) as process_and_address:
        yield process_and_address


@pytest.fixture
def address(served_store: tuple[subprocess.Popen[str], str]) -> str:
    return served_store[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'")
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1600,1200",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


class Page:
    """What a user does in the browser: looks until something is there, and clicks it."""

    def __init__(self, browser: Any) -> None:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        # Until the page is still, elements are replaced, covered and moved.
        self._wait = WebDriverWait(browser, PATIENCE_SECONDS, ignored_exceptions=[WebDriverException])

    def until(self, condition: Any) -> Any:
        return self._wait.until(lambda _: condition())

    def open(self, address: str) -> None:
        """Goes there as somebody who has never been there, but has closed what MLflow opens at the first visit."""
        root = "{0.scheme}://{0.netloc}".format(urlsplit(address))
        self.browser.get(f"{root}/health")
        self.browser.execute_script(
            "localStorage.clear(); localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        )
        self.browser.get(address)

    def all(self, path: str) -> list[Any]:
        return list(self.browser.find_elements("xpath", path))

    def see(self, path: str) -> Any:
        return self.until(lambda: next((element for element in self.all(path) if element.is_displayed()), None))

    def click(self, path: str) -> None:
        self.until(lambda: self.browser.find_element("xpath", path).click() is None)

    def names(self) -> list[str]:
        """The runs in the table, from above."""
        rows = {
            int(row.get_attribute("row-index")): row.find_element("xpath", ".//a").text
            for row in self.all("//div[contains(@class, 'ag-pinned-left-cols')]/div[@role='row']")
        }
        return [name for _, name in sorted(rows.items())]

    def cells(self, path: str) -> list[str]:
        """The texts of the table's cells that are shown, from the left; they lie in another order in the page."""
        cells = {int(cell.get_attribute("aria-colindex")): cell.text for cell in self.all(path)}
        return [words for _, words in sorted(cells.items()) if words]

    def requests(self) -> set[str]:
        """The hosts that pages have asked since the last time."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        addresses = [urlsplit(message["params"]["request"]["url"]) for message in sent]
        return {address.netloc for address in addresses if address.scheme in ("http", "https", "ws", "wss")}


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """A page from which no request may go to anybody but the UI's own server."""
    page = Page(browser)
    page.requests()
    yield page
    assert page.requests() == {urlsplit(address).netloc}


def row(name: str) -> str:
    return f"//div[@role='row'][.//a[normalize-space()='{name}']]"


def text(words: str) -> str:
    return f"//*[normalize-space(text())='{words}']"


@pytest.mark.slow
def test_newest_sweep_is_a_table_of_its_runs_the_best_first(page: Page, address: str) -> None:
    page.open(address)
    columns = ["optimizer", "seed", "validation/accuracy", "validation/cross_entropy", "test/accuracy"]
    headings = "//div[contains(@class, 'ag-header-viewport')]//div[contains(@class, 'ag-header-cell')][@aria-colindex]"
    page.until(lambda: page.cells(headings)[:5] == columns)
    page.until(lambda: page.names() == list(RUNS))
    best = "//div[contains(@class, 'ag-center-cols')]/div[@row-index='0']/div[@aria-colindex]"
    page.until(lambda: page.cells(best)[:5] == ["adam", "0", "0.97", "0.333333", "0.9"])


@pytest.mark.slow
def test_all_runs_are_nested_under_their_sweep(page: Page, address: str) -> None:
    page.open(f"{address.partition('?')[0]}?workflowType=machine_learning")
    page.until(lambda: page.names() == [SWEEP])
    page.click(f"{row(SWEEP)}//button")
    page.until(lambda: set(page.names()) == {SWEEP, *RUNS})


@pytest.mark.slow
def test_two_runs_are_compared(page: Page, address: str) -> None:
    page.open(address)
    for name in ("adam · seed 0", "rmsprop · seed 1"):
        page.click(f"{row(name)}//input[contains(@class, 'ag-checkbox-input')]")
    page.click("//button[normalize-space()='Compare']")
    page.see(text("Comparing 2 Runs from 1 Experiment"))
    for words in ("adam · seed 0", "rmsprop · seed 1", "validation/accuracy"):
        page.see(text(words))
    assert page.all(text("rmsprop · seed 0")) == []


@pytest.mark.slow
def test_curves_of_all_runs_are_in_one_chart(page: Page, address: str) -> None:
    page.open(address)
    page.click("//label[.//input[@name='runs-view-mode' and @value='CHART']]")
    card = f"//div[@data-testid='experiment-view-compare-runs-card'][.{text('validation/loss')}]"
    page.browser.execute_script("arguments[0].scrollIntoView()", page.see(card))
    line = f"{card}//*[contains(@class, 'scatterlayer')]//*[contains(@class, 'js-line')]"

    def curves() -> set[str]:
        return {path.get_attribute("d") for path in page.all(line)}

    page.until(lambda: len(curves()) == len(RUNS))
    assert [curve.count("L") for curve in curves()] == [2] * 4  # from the first epoch to the second and to the third


@pytest.mark.slow
def test_run_shows_its_verdict_and_its_figure(page: Page, address: str) -> None:
    page.open(address)
    page.click(f"{row('adam · seed 0')}//a")
    page.see(text("No overfitting."))
    page.click("//*[@role='tab' or self::a][normalize-space()='Artifacts']")
    page.click(text("figures"))
    page.click(text("misclassified.png"))
    shown = "return [...document.images].filter((i) => i.offsetWidth > 0).map((i) => [i.naturalWidth, i.naturalHeight])"
    page.until(lambda: list(PICTURE) in page.browser.execute_script(shown))


# --- and at last, because the pages above are served no longer


@pytest.mark.slow
def test_ctrl_c_ends_everything_that_was_started(served_store: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served_store
    assert what_is_left(process, address, signal.SIGINT) == []
    assert process.returncode == 130
