"""The script of a job array, and what sbatch is told beside it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from experiments.ingredients.execution import SlurmSweep
from experiments.results import files

STOPPED = (75, 130, 143)  # exit codes: the end of an epoch after SIGTERM, at once, and before Python listened
SCRIPT = """\
#!/bin/bash
# A task of this array carries out the run that N.json describes, where N is its index. What it prints is in N.out, its
# exit code in N.exit; where there is an N.stop, it stays ended.
base={folder}/"$SLURM_ARRAY_TASK_ID"
if [ -e "$base.stop" ]; then exit 0; fi
rm -f "$base.exit"
export EXPERIMENTS_HOME={home}
{setup}
srun --ntasks=1 --cpus-per-task={cpus} {python} -m experiments.sweeps.worker "$base.json"
code=$?
echo $code > "$base.exit"
case $code in {stopped}) if [ ! -e "$base.stop" ]; then scontrol requeue "$SLURM_JOB_ID"; fi ;; esac
exit $code
"""


def script_text(options: SlurmSweep, folder: Path) -> str:
    """What a task runs: srun, so that signals reach the program early; the run is queued again where it was stopped.

    Args:
        options: of the sweep.
        folder: absolute, of the array, which holds the descriptions of its runs.
    """
    return SCRIPT.format(
        folder=shlex.quote(str(folder)),
        home=shlex.quote(str(files.home().absolute())),
        setup="\n".join(options.setup),
        cpus=options.cpus,
        python=shlex.quote(sys.executable),
        stopped="|".join(map(str, STOPPED)),
    )


def arguments(options: SlurmSweep, name: str, folder: Path, tasks: int) -> list[str]:
    """Of sbatch, for an array of `tasks` tasks.

    Args:
        options: of the sweep.
        name: of the jobs.
        folder: absolute, of the array.
        tasks: 1 or more.
    """
    at_once = f"%{options.array_parallelism}" if options.array_parallelism else ""
    given = {
        "partition": options.partition,
        "account": options.account,
        "time": options.time,
        "mem": options.memory,
        "gres": f"gpu:{options.gpus}" if options.gpus else None,
        "constraint": options.constraint,
    }
    return [
        f"--array=0-{tasks - 1}{at_once}",
        f"--job-name={name}",
        f"--output={_literal(folder)}/%a.out",
        f"--chdir={Path.cwd()}",
        "--open-mode=append",
        "--requeue",
        f"--signal=TERM@{options.signal_seconds}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={options.cpus}",
        *(f"--{key}={value}" for key, value in given.items() if value is not None),
        *options.arguments,
    ]


def _literal(folder: Path) -> str:
    """A path in which sbatch replaces nothing."""
    return str(folder).replace("%", "%%")
