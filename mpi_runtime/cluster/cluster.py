"""An emulated cluster: up, run jobs, look at it, down."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import TracebackType

from ...hardware.errors import InputError
from . import job
from .holder import Nursery
from .probe import missing, missing_mpi
from .shape import EmulatedNode, Shape
from .state import ClusterState, find, locked, require_free, states
from .tree import script

NAME = "default"


class Cluster:
    """A cluster that is up. :meth:`up` builds one, :meth:`of` finds one, :meth:`run` runs jobs on it, :meth:`down` ends it.

    As a context manager it goes down at the end::

        with Cluster.up(Shape(supernodes=2, nodes=2, node_rate=25e6, taper=3 / 16)) as cluster:
            done = cluster.run(["python", "job.py"], capture=True)
    """

    def __init__(self, state: ClusterState) -> None:
        self.state = state

    @property
    def shape(self) -> Shape:
        """The cluster's shape and rates."""
        return self.state.shape

    @classmethod
    def up(cls, shape: Shape, name: str = NAME, loopback: bool = False) -> Cluster:
        """Build a cluster; it lives until it is taken down, or its holder is killed.

        On the ``loopback`` device ranks talk plain TCP, without nodes, links or rates: that works where the kernel gives
        no namespaces. Raises :class:`InputError` where the name is taken or the computer cannot have such a cluster.
        """
        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"--name {name}: a name has letters, digits, - and _ only")
        with locked():
            require_free(name)
            if reason := missing_mpi() if loopback else missing():
                raise InputError(f"no cluster can be emulated here: {reason}{'' if loopback else _WORKS}")
            return cls(ClusterState(name, shape, None) if loopback else _built(shape, name))._saved()

    @classmethod
    def of(cls, name: str = NAME) -> Cluster:
        """The cluster of a name; raises :class:`InputError` where none is up."""
        return cls(find(name))

    @classmethod
    def all(cls) -> list[Cluster]:
        """The clusters that are up."""
        return [cls(state) for state in states()]

    def _saved(self) -> Cluster:
        self.state.save()
        return self

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def nodes(self) -> list[EmulatedNode]:
        """The nodes, supernode by supernode."""
        return self.shape.all_nodes

    def run(
        self,
        command: Sequence[str],
        ranks: int | None = None,
        ranks_per_node: int = 1,
        limit: float | None = None,
        capture: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on ``ranks`` ranks, by default one on each node, and give its exit status.

        With ``capture`` its output is in the result, else it goes where this process's does. Raises
        :class:`~athanor.mpi_runtime.cluster.job.TimeLimit` after ``limit`` seconds; none of the job's processes is left
        then, nor after an interruption.
        """
        holder = self.state.holder
        count, nodes = job.placed(self.nodes, ranks, ranks_per_node)
        if holder is None:
            alone = job.environment(self.state.name, job.LOOPBACK)
            return job.run(job.on_loopback(count, command), alone, 0, limit, capture)
        if not holder.alive:
            self.state.forget()
            raise InputError(f"--name {self.state.name}: the cluster's holder (process {holder.pid}) has died")
        started = job.on_nodes(holder.enter(), nodes, count, ranks_per_node, command)
        return job.run(started, job.environment(self.state.name, job.TREE), 2, limit, capture)

    def down(self) -> None:
        """End the cluster and every process on it; nothing of it is left."""
        with locked():
            if self.state.holder:
                self.state.holder.kill()
            self.state.forget()


_WORKS = (
    "; athanor execute runs over shared memory instead, athanor cluster up --loopback over plain TCP without a topology"
)


def _built(shape: Shape, name: str) -> ClusterState:
    """Build the namespaces of a cluster; its holder stays once its state is written."""
    nursery = Nursery(name)
    try:
        nursery.build(script(shape))
        state = ClusterState(name, shape, nursery.holder)
        state.save()
        nursery.stay()
    except BaseException:
        nursery.kill()
        raise
    return state
