"""The `opengrok` command in a process of its own, as a user runs it."""

import os
import subprocess
import sys


def opengrok(*arguments: str, cwd, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "opengrok_jax", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
