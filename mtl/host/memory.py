"""Memory that training frees is kept for its next call, on a CPU with Linux and glibc: no page faults in between.

XLA asks for a program's working memory at every call and frees it at its end, and ``malloc`` gives pieces that large
back to the system at once. A step of ResNet-18 on 64 images takes a gigabyte: 276,000 page faults at every call, 0.3 to
0.4 s of system time where the step itself takes 0.8 s. Kept, it is none, at a third more memory (AMD EPYC, one core,
by ``getrusage``). Huge pages would do too, and cost a second a call whenever the kernel had to make room for them.
"""

from __future__ import annotations

import ctypes
import sys

#: Of ``mallopt``, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4

_keeps = False


def keep() -> bool:
    """Have this process keep the memory it frees, and return whether it does: call it before JAX has a backend."""
    import jax

    global _keeps
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        _keeps = all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
        # Only the main thread's share of memory can hold pieces of any size, so that calls run in it: one is waited for
        # anyway. (One share for all threads would do, and a network on two devices took 1.3 times as long.)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    return _keeps


def give_back() -> None:
    """Give what this process keeps back to the system, so that it can be asked for in another size."""
    if _keeps:
        ctypes.CDLL(None).malloc_trim(0)
