"""The allocator keeps memory for the next array."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import numpy as np
from streams.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    arrays = lambda: [np.ones(125_000) for _ in range(80)]
    for _ in range(3):
        arrays()
    before = faults()
    for _ in range(20):
        arrays()
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_arrays_take_the_memory_of_those_before_them() -> None:
    """Large arrays made again and again in a thread cost next to no page faults, and thousands without."""
    pages = {
        how: int(
            subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("keep", "default")
    }
    assert pages["keep"] * 3 < pages["default"]


USED = """
import numpy as np
from streams.allocator import keep_memory, used_bytes
keep_memory()
before = used_bytes()
arrays = [np.ones(125_000) for _ in range(50)]
objects = [str(number) for number in range(100_000)]
while_held = used_bytes()
del arrays, objects
print(while_held - before, used_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be asked")
def test_memory_that_is_given_back_is_not_in_use() -> None:
    """Though the process keeps it: 50 MB of arrays and some 10 MB of objects, and then next to nothing."""
    done = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True, check=True)
    held, given_back = map(int, done.stdout.split())
    assert 55e6 < held < 75e6
    assert abs(given_back) < 2e6
