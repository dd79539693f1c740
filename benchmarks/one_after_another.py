"""Bare scripts one after another, a process each: `one_after_another.py FOLDER EPOCHS JOBS`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

folder, epochs, jobs = sys.argv[1:]
for job in range(int(jobs)):
    script = Path(__file__).with_name("bare.py")
    subprocess.run([sys.executable, str(script), f"{folder}/{job}", epochs], check=True)
