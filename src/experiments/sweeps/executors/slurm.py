"""Runs as tasks of job arrays of a Slurm cluster that shares the home with this host.

The run directories tell what happens; the queue is asked only about tasks whose files are silent. What is submitted
goes on when the planner is gone, and the next one finds it by the name of the jobs: `exp-` and the plan's key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from experiments.errors import InputError
from experiments.ingredients.execution import SlurmSweep
from experiments.sweeps.executor import Ended, Ending, Event, Moved, Run
from experiments.sweeps.executors import slurm_commands, slurm_resources
from experiments.sweeps.executors.slurm_commands import Entry, SlurmError
from experiments.sweeps.executors.slurm_script import arguments, script_text
from experiments.sweeps.executors.slurm_task import Task
from experiments.sweeps.jobs import count
from experiments.sweeps.worker import read_run, write_run

log = logging.getLogger(__name__)
FOLDER, SCRIPT = "slurm", "array.sh"  # of a sweep: a folder for each array
LONGEST_ARRAY = 1000  # tasks; Slurm's own MaxArraySize is 1001 where nobody has changed it
LOOK_SECONDS = 1.0  # between looks at the files, of which there are many
QUEUE_SECONDS = 30.0  # between looks at the queue, which all users share
UNSURE_SECONDS = 3.0  # the same, while files are silent
AGAIN_SECONDS = 30.0  # before something is submitted that was refused
# Why a task may wait that needs nobody's attention, see `man squeue`.
USUAL = {
    "None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Cleaning", "Dependency", "Licenses",
    "Reservation",
}  # fmt: skip


def name_of(key: str) -> str:
    """Of the jobs of the sweep with a plan's key."""
    return f"exp-{key[:16]}"


class SlurmExecutor:
    """Submits all that comes between two looks as one array.

    Args:
        options: of the sweep.
        key: of its plan.
        folder: of the sweep.
        slots: how many runs may be in the queue at a time.
    """

    def __init__(self, options: SlurmSweep, key: str, folder: Path, slots: int) -> None:
        self.slots = slots
        self._options, self._name, self._folder = options, name_of(key), folder.absolute() / FOLDER
        self._tasks: list[Task] = []
        self._gathered: list[Task] = []
        self._withdrawn: list[Task] = []
        self._stops: dict[Task, bool] = {}  # told to stop and not yet passed on; whether now
        self._explained: set[str] = set()
        self._refused = ""
        self._next_submission = self._next_look = 0.0
        self._asked = time.monotonic()
        self._longest = LONGEST_ARRAY
        self._found = dict[Path, Entry]()

    def open(self) -> None:
        """Asks Slurm whether it has what the options name, and what an earlier planner has submitted.

        Raises:
            InputError: Slurm is not there, or refuses the jobs.
        """
        slurm_resources.check(self._options)
        self._longest = min(LONGEST_ARRAY, (slurm_commands.largest_array() or LONGEST_ARRAY + 1) - 1)
        self._found = dict(self._find())

    def _find(self) -> Iterator[tuple[Path, Entry]]:
        """What an earlier planner has submitted, by run directory."""
        for entry in slurm_commands.queue(self._name):
            if entry.is_active and entry.task is not None and entry.script.parent.parent == self._folder:
                with suppress(InputError):
                    yield read_run(entry.script.parent / f"{entry.task}.json").directory, entry

    def carries(self, directory: Path) -> bool:
        """Whether an earlier planner has submitted the run of a directory, and Slurm still has it."""
        return directory.absolute() in self._found

    def submit(self, run: Run, output: Path) -> Task:
        """Gathers a run for the next array, or follows the task that carries it out already."""
        task = Task(run, output)
        entry = self._found.pop(run.directory.absolute(), None)
        if entry:
            task.place(entry.script.parent, entry.array, entry.task or 0, begun=True)
            self._tasks.append(task)
        else:
            self._gathered.append(task)
        return task

    def events(self, timeout_seconds: float) -> Iterator[tuple[Task, Event]]:
        """What the files tell, and of silent ones the queue; at most once a second."""
        if self._gathered and time.monotonic() >= self._next_submission:
            self._submit_gathered()
        yield from self._pass_stops_on()
        if time.monotonic() < self._next_look:
            time.sleep(min(timeout_seconds, max(0.0, self._next_look - time.monotonic())))
            return
        began = time.monotonic()
        found = [(task, event) for task in list(self._tasks) for event in self._events_of(task)]
        found += self._events_of_queue()
        # Looking takes at most a tenth of the time, however slow the disk is.
        self._next_look = time.monotonic() + max(LOOK_SECONDS, 9 * (time.monotonic() - began))
        yield from found

    def _events_of(self, task: Task) -> Iterator[Event]:
        for event in task.told_by_files(exited=task.file("exit").exists()):
            yield event
            if isinstance(event, Ended):
                self._let_go(task)
                return

    def _let_go(self, task: Task) -> None:
        self._tasks.remove(task)
        task.collect_output()

    def _submit_gathered(self) -> None:
        while self._gathered:
            tasks = self._gathered[: self._longest]
            try:
                self._submit_array(tasks)
            except SlurmError as error:
                if str(error) != self._refused:
                    log.warning("%s; %s to be submitted", error, count(len(self._gathered), "job"))
                self._refused, self._next_submission = str(error), time.monotonic() + AGAIN_SECONDS
                return
            self._refused, self._gathered = "", self._gathered[len(tasks) :]
            self._tasks += tasks

    def _submit_array(self, tasks: Sequence[Task]) -> None:
        folder = self._new_folder()
        for index, task in enumerate(tasks):
            write_run(task.run, folder / f"{index}.json")
        script = folder / SCRIPT
        script.write_text(script_text(self._options, folder))
        array = slurm_commands.submit(arguments(self._options, self._name, folder, len(tasks)), script)
        log.info("%s submitted to Slurm as %d, %s", count(len(tasks), "job"), array, self._name)
        for index, task in enumerate(tasks):
            task.place(folder, array, index)

    def _new_folder(self) -> Path:
        self._folder.mkdir(exist_ok=True)
        number = max((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), default=-1) + 1
        folder = self._folder / str(number)
        folder.mkdir()
        return folder

    def _events_of_queue(self) -> list[tuple[Task, Event]]:
        unsure = any(task.is_unsure for task in self._tasks)
        if not self._tasks or time.monotonic() < self._asked + (UNSURE_SECONDS if unsure else QUEUE_SECONDS):
            return []
        self._asked = time.monotonic()
        try:
            entries = slurm_commands.queue(self._name)
        except SlurmError as error:
            log.debug("%s", error)
            return []
        own = {(entry.script.parent, entry.task): entry for entry in entries}
        found: list[tuple[Task, Event]] = []
        for task in list(self._tasks):
            entry = own.get((task.folder, task.index)) or own.get((task.folder, None))  # type: ignore[arg-type]
            found += [(task, event) for event in self._told_by_queue(task, entry)]
        return found

    def _told_by_queue(self, task: Task, entry: Entry | None) -> Iterator[Event]:
        for event in task.told_by_queue(entry):
            yield event
            if isinstance(event, Ended):
                if entry and entry.is_active:
                    slurm_commands.cancel([task.id])
                self._let_go(task)
                return
        if entry and entry.state == "PENDING":
            self._hurry(task, entry.reason)
        if task.is_lost():
            ended = task.lost()  # which reads the output
            self._let_go(task)
            if ended:
                yield ended
            else:
                log.info("%s: Slurm does not know job %s any more; it is submitted again", task.run.directory, task.id)
                self._gathered.append(task)
                yield Moved(running=False)

    def _hurry(self, task: Task, reason: str) -> None:
        """Has a task start that Slurm lets wait after it was queued again; tells what else keeps one from starting."""
        if reason == "BeginTime" and not any(given.startswith("--begin") for given in self._options.arguments):
            with suppress(SlurmError):  # it starts two minutes later
                slurm_commands.start_now(task.id)
        elif reason not in USUAL and reason not in self._explained:
            self._explained.add(reason)
            log.warning("Slurm lets job %s wait, and perhaps more: %s", task.id, reason)

    def stop(self, handle: Task, *, now: bool) -> None:
        """Takes a run out of the queue, or has it stop at the end of its epoch, or now; it is not queued again."""
        handle.stopping = True
        if handle in self._gathered:
            self._gathered.remove(handle)
            self._withdrawn.append(handle)
            return
        handle.file("stop").touch()
        self._stops[handle] = now

    def kill(self, handle: Task) -> None:
        """Ends a run and its script."""
        self.stop(handle, now=True)
        handle.killed = True
        with suppress(SlurmError):
            slurm_commands.cancel([handle.id], "--full", "--signal=KILL", "--state=RUNNING")

    def _pass_stops_on(self) -> Iterator[tuple[Task, Event]]:
        """A few commands for all that were told to stop since the last call."""
        yield from ((task, Ended(Ending.WITHDRAWN)) for task in self._withdrawn)
        self._withdrawn.clear()
        told = {task.id: now for task, now in self._stops.items()}
        if not told:
            return
        try:
            slurm_commands.withdraw(list(told))
            slurm_commands.signal(list(told), "TERM")
            slurm_commands.cancel([task for task, now in told.items() if now])
        except SlurmError as error:
            log.warning("%s; jobs that do not stop: scancel --name=%s", error, self._name)
        self._stops.clear()

    def leave(self) -> Sequence[str]:
        """Submits what is gathered, and follows nothing any more.

        Raises:
            InputError: not all could be submitted.
        """
        self._next_submission = 0.0
        if self._gathered:
            self._submit_gathered()
        for _ in self._pass_stops_on():
            pass
        left = len(self._gathered)
        going_on = [task.has_begun for task in self._tasks if not task.stopping]
        running, queued = sum(going_on), len(going_on) - sum(going_on) + len(self._found)
        lines = [f"{running} running and {queued} queued go on in Slurm without this command, as {self._name}"]
        lines += [f"{count(left, 'job')} could not be submitted ({self._refused})"] if left else []
        lines.append(f"to end them: scancel --name={self._name}")
        self._tasks, self._gathered = [], []
        return lines

    def close(self) -> None:
        """Follows nothing any more; what is submitted goes on."""
        self._tasks.clear()
