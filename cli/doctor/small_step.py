"""A small step, simulated: what has to work before anything else is worth a look."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ...hardware.errors import AthanorError
from .finding import Finding

MACHINE, MODEL = "cluster-64", "moda-tiny"


def simulation() -> Iterator[Finding]:
    """One step of a small model, and the catalogues that it comes from."""
    subject, needed, do = "simulation", "everything", "install athanor anew, and report this line"
    begun = time.perf_counter()
    try:
        from ...hardware.machine import list_machines
        from ...sim.simulate import simulate
        from ...workloads.model.model import list_models

        machines, models = len(list_machines()), len(list_models())
        step = simulate(MACHINE, MODEL).totals.step_seconds
    except (AthanorError, OSError, ImportError, RuntimeError, AttributeError) as reason:
        yield Finding(subject, False, f"{type(reason).__name__}: {reason}".splitlines()[0], needed, do, True)
        return
    took = time.perf_counter() - begun
    found = f"{machines} machines and {models} models; a step of {MODEL} on {MACHINE} takes {1e3 * step:.3g} ms there"
    yield Finding(subject, True, f"{found}, and took {took:.2g} s here", needed, "", True)
