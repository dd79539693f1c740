"""CPU classes: told where runs of one comparison were made on several."""

from __future__ import annotations

from pathlib import Path

from conftest import write_record
from experiments.comparison import machines
from experiments.config import compose
from experiments.results import files
from experiments.results.records import Process, Record

OLD, NEW = ["avx", "avx2"], ["avx", "avx2", "avx512f"]


def run(folder: Path, host: str, model: str, isa: list[str], *overrides: str, began: str | None = None) -> Record:
    process = Process.current().model_copy(update={"host": host})
    record = write_record(folder / f"{host}-{len(list(folder.iterdir()))}", state="finished", process=process)
    (record.directory / files.CONFIG).write_text(compose("dataset=digits", "model=linear", *overrides).to_yaml())
    files.write_json(record.directory / files.ENVIRONMENT, {"host": began or host, "cpu": {"model": model, "isa": isa}})
    return record


def test_runs_of_one_class_are_one_class_on_however_many_hosts(tmp_path: Path) -> None:
    assert machines.classes([run(tmp_path, "a", "EPYC", OLD), run(tmp_path, "b", "EPYC", OLD)]) == {
        ("EPYC", ("avx", "avx2")): 2
    }


def test_runs_are_counted_by_class(tmp_path: Path) -> None:
    made = [run(tmp_path, host, model, OLD) for host, model in [("a", "EPYC"), ("a", "EPYC"), ("b", "Xeon")]]
    assert machines.classes(made) == {("EPYC", ("avx", "avx2")): 2, ("Xeon", ("avx", "avx2")): 1}


def test_models_of_one_name_are_told_apart_by_what_they_have_more(tmp_path: Path) -> None:
    found = machines.classes([run(tmp_path, "a", "Xeon", OLD), run(tmp_path, "b", "Xeon", NEW)])
    assert machines.text(found) == (
        "The runs were made on 2 CPU classes, which round differently: Xeon (1 run), Xeon with avx512f (1 run). The "
        "same config has the same bits on one of them; training.determinism=portable makes them equal on all."
    )


def test_portable_runs_have_no_class(tmp_path: Path) -> None:
    portable = "training.determinism=portable"
    assert not machines.classes([run(tmp_path, "a", "EPYC", OLD, portable), run(tmp_path, "b", "Xeon", NEW, portable)])


def test_run_that_went_on_elsewhere_tells_no_class_of_its_last_host(tmp_path: Path) -> None:
    made = [run(tmp_path, "a", "EPYC", OLD), run(tmp_path, "b", "EPYC", OLD, began="a")]
    assert machines.classes(made) == {("EPYC", ("avx", "avx2")): 1}
