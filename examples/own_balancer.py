"""A balancing policy of one's own: a rank may be overloaded by a tenth, the rest goes to the least loaded rank of its group."""

from dataclasses import dataclass
from typing import ClassVar

import athanor
import numpy as np
from athanor.workloads.routing.balancers import Balancer, Carried


@dataclass(frozen=True)
class Overflow(Balancer):
    """Tokens above ``factor`` times the mean are spread over the ranks below it, in proportion to their room."""

    factor: float = 1.1
    about: ClassVar[str] = "Overflow:F, at most F times the mean, surplus to ranks with room"

    @classmethod
    def parse(cls, argument):
        return cls(float(argument or cls.factor))

    def carry(self, wanted, tokens):
        every = wanted.sum(axis=0)
        limit = int(np.ceil(self.factor * tokens * len(wanted)))
        kept = np.minimum(every, limit)
        surplus = (every - kept).sum(axis=-1)
        reached = np.cumsum(limit - kept, axis=-1)
        share = np.floor(reached * (surplus / reached[:, -1])[:, None]).astype(np.int64)
        share[:, -1] = surplus
        return Carried(kept + np.diff(share, prepend=0, axis=-1), moved=surplus, dropped=0 * surplus)


for balancer in ("none", "__main__:Overflow:1.5", "__main__:Overflow:1.1", "swipe"):
    run = athanor.simulate("sunway-oceanlight", "moda-1.93t", router="zipf:0.8", balancer=balancer)
    load = run.summary()["load_balance"]
    print(f"{balancer:21s} {run.summary()['step_seconds']:6.2f} s, most over mean {load['max_over_mean']:.2f}")

# > none                   52.53 s, most over mean 33.47
# > __main__:Overflow:1.5   3.65 s, most over mean 1.50
# > __main__:Overflow:1.1   3.03 s, most over mean 1.10
# > swipe                   2.98 s, most over mean 1.00
