"""A SIGTERM is noted while the block lasts, and is what it was before and after."""

import os
import signal
import subprocess
import sys
import threading

from opengrok_jax.training import sigterm


def test_a_sigterm_is_noted_and_the_handler_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm.noted() as came:
        assert not came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert came()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_the_main_thread_nothing_is_touched():
    seen = []

    def work():
        before = signal.getsignal(signal.SIGTERM)
        with sigterm.noted() as came:
            seen.append((came(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_the_status_is_the_shells():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    words = ["bash", "-c", f'"{sys.executable}" -c "{code}"; exit $?']
    assert subprocess.run(words, stderr=subprocess.DEVNULL).returncode == sigterm.STATUS
