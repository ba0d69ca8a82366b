"""Commands as somebody types them: whole processes in a folder."""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.conftest import ROOT

SERVES = re.compile(r"(sweepvote |python -m (analysis|tuner)\.)(demo|watch)\b")


def typed(folder: Path, words: list[str], **environment: str) -> str:
    """Run a command of ours in the folder and give what it printed; a server is asked for its page and ended by Ctrl-C."""
    program = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    if SERVES.match(shlex.join(words)):
        return _served(folder, program, surroundings)
    done = subprocess.run(program, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _served(folder: Path, program: list[str], environment: dict[str, str]) -> str:
    process = subprocess.Popen(program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    heard = ""
    try:
        for line in process.stdout or ():
            heard += line
            if found := re.search(r"http://\S+", line):
                with urllib.request.urlopen(found[0]) as page:
                    assert "<html" in page.read().decode()
                break
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode in (0, 130) and "http://" in heard, heard
    return heard
