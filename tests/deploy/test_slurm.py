"""The job for Slurm, with programs of Slurm's names that do on this machine what a cluster would."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "deploy" / "slurm.sbatch"
OPTIONS = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SCRIPT.read_text(), re.MULTILINE))
# What Slurm's own do, less the waiting in queues: each notes how it was called.
PROGRAMS = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"',
    "srun": 'echo "srun $*" >> "$CALLS"; while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
}
NOTED = 'echo "sweepvote $*" >> "$CALLS"'
# Until SIGTERM, and then ended as a search does.
WAITS = f'sleep 60 & trap "kill $!; exit 143" TERM; {NOTED}; wait'
# Ray's head listens; its nodes are there until they are stopped.
LISTENS = """import socket, sys, time
port = next(int(word[7:]) for word in sys.argv if word.startswith("--port="))
server = socket.create_server(("", port))
time.sleep(60)
"""
RAY = f"""echo "ray $*" >> "$CALLS"
case "$*" in
  *--head*) exec {sys.executable} -c '{LISTENS}' "$@" ;;
  *--address*) exec sleep 60 ;;
esac"""


def submit(folder: Path, *, ours: str, ray: str = RAY, nodes: int = 1, **changes: str) -> subprocess.Popen:
    """Run the job's script as Slurm does, with what stands for our command and Ray's in the path; the script's settings changed."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in {**PROGRAMS, "sweepvote": ours, "ray": ray}.items():
        (programs / name).write_text(f"#!/bin/bash\n{words}\n")
        (programs / name).chmod(0o755)
    text = SCRIPT.read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        assert count == 1
    (folder / "job.sbatch").write_text(text)
    slurm = {
        "SLURM_SUBMIT_DIR": folder,
        "SLURM_JOB_ID": os.getpid(),
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_CPUS_PER_TASK": 1,
        "SLURMD_NODENAME": "localhost",
    }
    environment = {**os.environ, **{name: str(value) for name, value in slurm.items()}, "CALLS": str(folder / "calls")}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.Popen(
        ["bash", folder / "job.sbatch"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.is_file() else []


def wait_for(condition: Callable[[], object], limit: float) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def ended(job: subprocess.Popen, limit: float = 30) -> int:
    output, _ = job.communicate(timeout=limit)
    print(output)
    return job.returncode


def test_the_first_attempt_begins_the_run_and_a_requeued_one_resumes_it(tmp_path):
    assert ended(submit(tmp_path, ours=NOTED)) == 0
    (tmp_path / "runs/faces").mkdir(parents=True)
    (tmp_path / "runs/faces/run.json").write_text("{}")
    assert ended(submit(tmp_path, ours=NOTED)) == 0
    begin = f"sweepvote search --space effnet.yaml --data {tmp_path}/photos --answer --storage {tmp_path}/runs --name faces"
    assert calls(tmp_path) == [begin, f"sweepvote resume {tmp_path}/runs/faces"]


@pytest.mark.parametrize("sent, requeued", [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_before_a_time_limit_the_search_ends_softly_and_the_job_is_requeued_and_a_cancelled_one_is_not(sent, requeued, tmp_path):
    job = submit(tmp_path, ours=WAITS)
    wait_for(lambda: calls(tmp_path), 20)
    job.send_signal(sent)
    assert ended(job) == 143
    assert calls(tmp_path)[1:] == ([f"scontrol requeue {os.getpid()}"] if requeued else [])


def test_a_search_that_fails_ends_the_job_with_its_exit_code(tmp_path):
    assert ended(submit(tmp_path, ours=f"{NOTED}; exit 2")) == 2 and len(calls(tmp_path)) == 1


def test_over_several_nodes_ray_is_started_on_each_and_gone_afterwards(tmp_path):
    # Not done before the other nodes have begun.
    assert ended(submit(tmp_path, ours=f'until grep "ray start --address=" "$CALLS"; do sleep 0.05; done; {NOTED}', nodes=3)) == 0
    said = calls(tmp_path)
    (address,) = {match[1] for line in said if (match := re.search(r"--address[ =](\S+)", line))}
    host, _, port = address.partition(":")
    head, worker = (next(line for line in said if line.startswith(start)) for start in ("ray start --head", "srun"))
    assert f"--port={port}" in head and "--block" in head
    assert worker == f"srun --nodes=2 --ntasks=2 --exclude={host} --cpus-per-task=1 ray start --address={address} --num-cpus=1 --block"
    assert [line for line in said if line.startswith("sweepvote") and line.endswith(f"--name faces --address {address}")]
    with socket.socket() as asked:
        assert asked.connect_ex((host, int(port))) != 0


def test_the_signal_comes_in_time_for_trials_to_report_and_save():
    batch, _, seconds = OPTIONS["signal"].partition("@")
    assert batch == "B:USR1" and int(seconds) > 60 and "requeue" in OPTIONS and OPTIONS["open-mode"] == "append"


SWEEPVOTE = f"exec {sys.executable} -c 'from sweepvote.cli import main; main()' \"$@\""


@pytest.mark.nightly
def test_a_search_that_a_time_limit_ends_is_resumed_by_the_requeued_job_and_answers(tiny_space, demo, tmp_path):
    words = ("--space", tiny_space, "--data", demo, "--answer", "--set", "run/epochs=30", "--no-dashboard", "--set", "run/probe=false")
    changed = {"search": f"({shlex.join(map(str, words))})"}
    job = submit(tmp_path, ours=SWEEPVOTE, **changed)
    run = tmp_path / "runs" / "faces"
    wait_for(lambda: list(run.glob("trials/*/reports.jsonl")), 120)
    job.send_signal(signal.SIGUSR1)
    assert ended(job, 120) == 143 and calls(tmp_path) == [f"scontrol requeue {os.getpid()}"]
    left = json.loads((run / "summary.json").read_text())["trials"]
    assert left["interrupted"] and left["finished"] + left["stopped"] < 4
    assert ended(submit(tmp_path, ours=SWEEPVOTE, **changed), 300) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["trials"]["finished"] + summary["trials"]["stopped"] == 4 and summary["answer"]


@pytest.mark.nightly
def test_over_two_nodes_trials_run_on_rays_cluster(tiny_space, demo, tmp_path):
    words = (
        "--space",
        tiny_space,
        "--data",
        demo,
        "--set",
        "run/epochs=2",
        "--set",
        "run/grace=1",
        "--set",
        "run/probe=false",
        "--trials",
        "2",
    )
    real = f'echo "ray $*" >> "$CALLS"; exec {Path(sys.executable).parent}/ray "$@"'
    job = submit(tmp_path, ours=SWEEPVOTE, ray=real, nodes=2, search=f"({shlex.join(map(str, words))})")
    assert ended(job, 300) == 0
    assert {"ray", "srun"} <= {line.split()[0] for line in calls(tmp_path)}
    assert json.loads((tmp_path / "runs/faces/summary.json").read_text())["trials"]["finished"] >= 1
