"""Commands one after another in one job: ``commands.py OUT COMMANDS``, a JSON list of lists of words.

Writes to OUT, for each command, what each rank printed and said and its exit status, and the files that are there after it.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from athanor.mpi_runtime.job.environment import prepare

prepare()  # as the commands do, before NumPy is imported

from athanor.mpi_runtime.job.world import start
from support.command_line import athanor

world = start()
told = []
for words in json.loads(sys.argv[2]):
    done = athanor(*words)
    ranks = world.comm.gather((done.returncode, done.stdout, done.stderr))
    told.append({"ranks": ranks, "files": sorted(path.name for path in Path().iterdir())})
    world.comm.Barrier()
if world.first:
    Path(sys.argv[1]).write_text(json.dumps(told))
