"""A job: steps of small dense models by the plans in argv, as JSON, one after another; rank 0 prints a line about each.

With ``spoil`` before them, one exchange is not what it should be: in broadcasts, all but the first member send other numbers.
With ``mislead``, operations have labels that say what is not so.
"""

import json
import sys
from pathlib import Path

from athanor.mpi_runtime.job.environment import prepare

prepare()
from athanor.mpi_runtime.execute import execute
from athanor.mpi_runtime.training.transformer import carrying


def spoil():
    carry = carrying._whole

    def wrong(transport, stream, exchange, payload, message):
        if exchange.operation == "broadcast":
            payload = payload + 1e-6 * transport.group(stream, exchange).me
        return carry(transport, stream, exchange, payload, message)

    carrying._whole = wrong


plans = sys.argv[1:]
if plans[0] == "spoil":
    spoil()
    del plans[0]
if plans[0] == "mislead":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support.labels import mislead

    mislead()
    del plans[0]
for plan in plans:
    options = json.loads(plan)
    way = execute.Way(**options.pop("way", {}))
    run = execute.execute("laptop", options.pop("model", "gpt-tiny"), way=way, **{"steps": 1, **options})
    if run is not None:
        names = {rank: [] for rank in run.classes}
        for row in run.trace:
            name, rank = row.operation, row.ranks
            names[rank].append(name)
        print(json.dumps({"summary": run.summary(), "names": names}))
