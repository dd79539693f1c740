"""A Slurm cluster of several nodes on this host alone: no systemd, cgroups, munge or root; loopback and free ports.

Whoever starts it is its only user: `auth/none` believes every uid.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

COMMANDS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
PR_SET_PDEATHSIG = 1  # of prctl(2)
START_SECONDS = 60.0  # the nodes are ready after one; more where the machine is busy
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/none
CredType=cred/none
EnforcePartLimits=ALL
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdLogFile={folder}/%n.slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=10
KillWait=20
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName=node{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 Features=left{n}\n"


def missing() -> list[str]:
    """The commands that are not installed."""
    return [name for name in COMMANDS if not shutil.which(name, path=PATH)]


class Cluster:
    """A controller and nodes of one core each, `node1` and so on; made by `running`."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self.nodes = folder, [f"node{n}" for n in range(1, nodes + 1)]
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        host, (port, *ports) = socket.gethostname().partition(".")[0], _free_ports(nodes + 1)
        text = CONF.format(host=host, port=port, folder=folder, user=getpass.getuser())
        text += "".join(NODE.format(n=n, host=host, port=port) for n, port in enumerate(ports, start=1))
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(lambda: self.states().count("idle"), len(self.nodes))

    def states(self) -> list[str]:
        """Of the nodes, as `idle`."""
        return self.call("sinfo", "-h", "-N", "-p", "low", "-o", "%T").split()

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D")

    def start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, env=os.environ | self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_end_with_the_tests,
            )  # fmt: skip

    def call(self, *command: str) -> str:
        """What a command of Slurm prints; nothing where it fails."""
        done = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, check=False, timeout=120
        )
        return done.stdout

    def wait_for(self, look: Callable[[], object], wanted: object, seconds: float = START_SECONDS) -> None:
        """Waits until `look()` is what is wanted."""
        deadline = time.monotonic() + seconds
        while (found := look()) != wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found!r} is not {wanted!r} after {seconds} s; {self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the daemons' logs, for the message of a test that fails."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self._folder.glob("*.log")))

    def kill_controller(self) -> None:
        self._kill("slurmctld")

    def kill_node(self, node: str) -> None:
        """As if its power went: the daemon, and all that runs on the node."""
        self._kill(node)
        for process in self._steps(node):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _kill(self, name: str) -> None:
        self._daemons[name].kill()
        self._daemons.pop(name).wait()

    def _steps(self, *nodes: str) -> list[psutil.Process]:
        """The processes that carry out jobs on nodes, and those that they have started: they hold its log open."""
        logs = {str(self._folder / f"{node}.slurmd.log") for node in nodes}
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["name"]):
            if (process.info["name"] or "").startswith("slurmstepd") and logs & set(_open_files(process.pid)):
                with contextlib.suppress(psutil.Error):
                    found += [process, *process.children(recursive=True)]
        return found

    def stop(self) -> None:
        """Ends everything, whatever still runs."""
        steps = self._steps(*self.nodes)
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        for process in [*steps, *self._steps(*self.nodes)]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _end_with_the_tests() -> None:
    """Has the system end this process with its parent, also where that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _open_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
            with contextlib.suppress(OSError):
                yield os.readlink(descriptor)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    """A cluster for the length of a block."""
    cluster = Cluster(folder, nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
