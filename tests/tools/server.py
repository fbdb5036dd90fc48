"""Imported by the server that forks commands: it ends with the process that started it, and with it
they do."""

import ctypes
import signal
import sys

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
