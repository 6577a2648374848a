"""The loops that cost most, compiled from C: what numpy and msgspec do in several passes is done in one here.

Everything in it has a twin in Python that gives the same results to the last bit, and takes over where no C compiler
was found when driftline was installed, or with the environment variable ``DRIFTLINE_NATIVE=off``: slower by half, and
no different. The tests compare the two. Nothing in here knows anything of Python's objects: the functions read and
write arrays whose sizes the callers give, and are called through :mod:`ctypes`.
"""
