"""Two ranks that seem to be under different kernels: rank 1's clock is off, and drifts. Prints how far starts lie apart."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from athanor.mpi_runtime.job import clock
from athanor.mpi_runtime.job.ending import guarded
from athanor.mpi_runtime.job.world import start

plain = time.perf_counter
world = start()
began, wrong = world.comm.bcast(plain()), 1e-3 if world.rank else 0.0
clock.EVERY = 0.1
with guarded(world, 60):
    one = clock.Clock.of(world)
    apart = replace(world, kernels=("here", "there"))
    time.perf_counter = lambda: plain() + (5.0 if wrong else 0.0) + wrong * (plain() - began)
    found, starts = clock.Clock.of(apart), []
    for _ in range(10):
        time.sleep(0.06)
        found.follow(apart)
        begun = found.start_together(apart)
        true = (begun.moment - (5.0 if wrong else 0.0) + wrong * began) / (1.0 + wrong)
        every = world.comm.gather((true, found.uncertainty))
        if every:
            starts.append((abs(every[0][0] - every[1][0]), every[1][1]))
    rates = world.comm.gather(found.rate)
    if rates:
        print(
            json.dumps(
                {
                    "rate": rates[1],
                    "starts": starts[4:],
                    "uncertainty": starts[-1][1],
                    "one kernel": [one.offset_at(0.0), one.uncertainty],
                }
            )
        )
