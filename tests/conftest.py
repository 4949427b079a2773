"""One thread a process: the tests' models are small, and idle OpenMP threads spin on cores that others need."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
