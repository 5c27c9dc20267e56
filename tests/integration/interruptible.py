"""Runs the module that its arguments name so that Ctrl-C ends it.

What runs in the background ignores Ctrl-C, and so would a child of such a test run.
"""

import runpy
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
