"""Job scripts for Slurm and PBS: calibrate, execute, compare and train in one job, by a run file's plan."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ....hardware.errors import InputError
from ....hardware.fabrics.fabric import UNBOUNDED
from ....mpi_runtime.execute.capabilities import require_trained
from ....workloads.plan.run_file import RunFile
from ....workloads.plan.setting import Setting
from ..kinds import Contents, Exporter, Wanted
from ..run_settings import RUN_FILE, setting_of

LIMIT = "01:00:00"
"""Of the whole job."""


@dataclass(frozen=True)
class JobShape:
    """How a job lies on its nodes: its name, nodes, ranks a node, and the cores that each rank is bound to."""

    name: str
    nodes: int
    each: int
    cores: int

    @classmethod
    def of(cls, setting: Setting) -> JobShape:
        """That of a plan: a rank has the cores of its core groups; beside accelerators one, of the host."""
        node, group, each = setting.machine.node, setting.machine.core_group, setting.ranks_per_node
        mine = max(1, node.core_groups // each) * group.compute_cores
        return cls(setting.model.name, setting.layout.nodes, each, 1 if group.accelerator or group.tiles else mine)

    @property
    def ranks(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.each


def slurm_header(shape: JobShape, *more: str) -> list[str]:
    """What sbatch reads of a script: a task for each rank, whole nodes."""
    options = [
        f"--job-name={shlex.quote(shape.name)}",
        f"--nodes={shape.nodes}",
        f"--ntasks-per-node={shape.each}",
        *more,
        "--exclusive",
    ]
    return ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]


class JobScript(Exporter):
    """A script that measures a cluster, and how far a plan's predictions for it are from its runs."""

    takes: ClassVar[str] = RUN_FILE

    @abstractmethod
    def header(self, shape: JobShape) -> list[str]:
        """What the scheduler reads, and the folder that the script runs in."""

    @abstractmethod
    def launcher(self, shape: JobShape) -> list[str]:
        """Lines that set ``launch``, the words before a command that all ranks run, each bound to its cores."""

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One script."""
        if own := RunFile.read(source).settings:
            raise InputError(
                f"{source}: set.{next(iter(own))} is of the run file's machine, and the job measures one of its own: leave it out"
            )
        setting = setting_of(source, wanted)
        shape = JobShape.of(setting)
        if shape.ranks != setting.mesh.ranks:
            raise InputError(
                f"{source}: {setting.mesh.ranks} ranks, {shape.each} a node, do not fill {shape.nodes} nodes evenly, as a job"
                " has to"
            )
        model = ["--model", shlex.quote(wanted.model)] if wanted.model else []
        try:
            require_trained(setting)
            untrained = ""
        except InputError as reason:
            untrained = str(reason)
            wanted.tell(f"the script leaves training out: {reason}")
        lines = [
            *self.header(shape),
            "",
            "# The MPI of the site, and Athanor for it: once, on a login node, with these modules loaded,",
            "#   python3 -m venv venv && venv/bin/pip install 'athanor[sysmpi]'",
            "[ ! -e modules.sh ] || source modules.sh   # module load python openmpi, or what your site calls them",
            "[ ! -e venv ] || source venv/bin/activate",
            f"export OMP_NUM_THREADS={shape.cores}   # BLAS threads of a rank: the cores that it is bound to",
            "",
            f"run={shlex.quote(str(source))} out=${{OUT:-out}} steps=${{STEPS:-10}}",
            'mkdir -p "$out"',
            *self.launcher(shape),
            " ".join(['here=(--machine "$out/machine.toml"', "--ranks-per-node", str(shape.each), *model]) + ")",
            "",
            "# Interrupted by its limit, calibration goes on where it stopped when the job is submitted again.",
            f'"${{launch[@]}}" athanor calibrate -o "$out/machine.toml" {_supernodes(setting, shape)}${{CALIBRATE:-}}'
            f" --expect-ranks {shape.ranks}",
            f'"${{launch[@]}}" athanor execute "$run" "${{here[@]}}" --steps "$steps" --expect-ranks {shape.ranks}'
            ' -o "$out/measured.json"',
            'athanor simulate "$run" "${here[@]}" --steps "$steps" -o "$out/predicted.json"',
            'athanor compare "$out/predicted.json" "$out/measured.json" --out "$out/compare"',
            "",
            *_training(untrained, shape),
        ]
        return {wanted.out: "\n".join(lines) + "\n"}


class SlurmJob(JobScript):
    """script for Slurm that calibrates, executes, compares and trains by a run file's plan."""

    def header(self, shape: JobShape) -> list[str]:
        """Whole nodes, in the folder that the job was submitted from."""
        more = (f"--cpus-per-task={shape.cores}", f"--time={LIMIT}")
        return [*slurm_header(shape, *more), "set -euo pipefail", 'cd "${SLURM_SUBMIT_DIR:-.}"']

    def launcher(self, shape: JobShape) -> list[str]:
        """srun, which binds a task to as many cores as it has CPUs."""
        return [
            f"launch=(srun --ntasks={shape.ranks} --ntasks-per-node={shape.each} --cpus-per-task={shape.cores}"
            " --cpu-bind=cores)"
        ]


class PbsJob(JobScript):
    """script for PBS that calibrates, executes, compares and trains by a run file's plan."""

    def header(self, shape: JobShape) -> list[str]:
        """Whole nodes, in the folder that the job was submitted from."""
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in shape.name)[:15]
        return [
            "#!/bin/bash",
            f"#PBS -N {name}",
            f"#PBS -l select={shape.nodes}:ncpus={shape.each * shape.cores}:mpiprocs={shape.each}:ompthreads={shape.cores}",
            "#PBS -l place=scatter:excl",
            f"#PBS -l walltime={LIMIT}",
            "set -euo pipefail",
            'cd "${PBS_O_WORKDIR:-.}"',
        ]

    def launcher(self, shape: JobShape) -> list[str]:
        """The library's mpiexec: Open MPI has other words than MPICH and Intel for where ranks go."""
        return [
            f"launch=(mpiexec -n {shape.ranks} -ppn {shape.each} -bind-to core:{shape.cores})",
            'if [[ "$(mpiexec --version 2>&1)" == *"Open MPI"* || "$(mpiexec --version 2>&1)" == *PRRTE* ]]; then',
            f"    launch=(mpiexec -n {shape.ranks} --map-by ppr:{shape.each}:node:PE={shape.cores} --bind-to core)",
            "fi",
        ]


def _supernodes(setting: Setting, shape: JobShape) -> str:
    """Hosts that stand in a row share a leaf switch, so many as the run file's machine says."""
    known = setting.machine.fabric.supernode
    return "" if known == UNBOUNDED or known >= shape.nodes else f"--nodes-per-supernode {known} "


def _training(untrained: str, shape: JobShape) -> list[str]:
    """The training, with its steps predicted from the loads that it records."""
    if untrained:
        return [f"# The plan is not trained for real: {untrained}"]
    return [
        f'"${{launch[@]}}" athanor train "$run" "${{here[@]}}" --steps "${{TRAIN_STEPS:-100}}" --data "${{DATA:-made}}"'
        f' --expect-ranks {shape.ranks} --out "$out/train" --predict'
    ]
