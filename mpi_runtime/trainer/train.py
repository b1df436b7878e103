"""train(): machine, model, plan and data in, a trained model and the record of its training out; a collective call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import AthanorError, InputError
from ...hardware.machine import Machine
from ...workloads.loads.loads import LoadStatistics
from ...workloads.lowering import lower_step
from ...workloads.model.model import Model, load_model
from ...workloads.model.precision import Formats, Part
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.setting import Setting
from ...workloads.plan.signatures import documented
from ...workloads.results.training_run import TrainingRun
from ..execute import observation as observed
from ..execute.capabilities import require_trained
from ..execute.execute import ScheduledJob, Way, setting_of, whole
from ..job.agreement import agree_on, flags, job
from ..job.ending import numbers_text
from ..job.world import World
from ..training.tokens import Tokens
from ..training.transformer.experts.gate_training import GateTraining
from ..training.transformer.training import ModelTraining
from ..training.transformer.weights.shards import Place
from . import checkpoints
from .corpus import MADE, Corpus, corpus_of
from .loss_scale import LossScale, ScaleEvent, has_halves
from .whole_tensors import Array, WholeTensors, shard_of

TIME_LIMIT = 24 * 3600.0
"""Seconds after which a training ends itself where the user names no other limit."""


class Diverged(AthanorError):
    """The loss is no number any more."""

    exit_status = 1


@dataclass(frozen=True)
class Lesson:
    """How to train, beside the plan: on which data, and what to keep.

    ``out`` is the folder for checkpoints, one every ``checkpoint_every`` steps and one at the end; ``resume`` the folder of a run
    to go on with, or of one of its checkpoints. ``loss_scale`` is dynamic, none or a number; left out, it is dynamic where there
    are halves.
    """

    data: str = MADE
    out: str | Path | None = None
    checkpoint_every: int | None = None
    resume: str | Path | None = None
    loss_scale: str = ""
    balance_loss: float = 0.0
    z_loss: float = 0.0
    gate_bias: float = 0.0
    allow_overcommit: bool = False

    def __post_init__(self) -> None:
        for name in ("balance_loss", "z_loss", "gate_bias"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be a number from 0 on")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise InputError(f"--checkpoint-every {self.checkpoint_every}: must be at least 1 step")
        if self.checkpoint_every is not None and self.out is None:
            raise InputError("--checkpoint-every: needs --out DIR, the folder that checkpoints go to")


@documented(lambda option: not option.simulated_only)
def train(
    machine: str | Path | Machine = "laptop",
    model: str | Path | Model | None = None,
    *,
    data: str = MADE,
    out: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: str | Path | None = None,
    loss_scale: str = "",
    balance_loss: float = 0.0,
    z_loss: float = 0.0,
    gate_bias: float = 0.0,
    allow_overcommit: bool = False,
    expect_ranks: int | None = None,
    time_limit: float = TIME_LIMIT,
    ready: Callable[[], None] = lambda: None,
    advance: Callable[[str], None] = lambda text: None,
    **options: Unpack[PlanOptions],
) -> TrainingRun | None:
    """Train ``model`` over MPI, by the schedule that ``simulate()`` predicts for ``machine``, for ``steps`` steps.

    Every rank of the job calls it with the same arguments; rank 0 gets the record, the others None. One process alone is a job of
    one rank. Without a mesh that fits the ranks, experts are dealt to as many as can be, and data parallelism takes the rest.
    ``data`` is ``made``, a corpus of known entropy, or the path of a file, read byte by byte. Tokens choose experts by the scores
    of a gate that learns, unless a ``router`` is named. ``out`` is the folder for checkpoints, one every ``checkpoint_every``
    steps. ``balance_loss`` and ``z_loss`` weight auxiliary losses of gates, ``gate_bias`` is the rate at which biases follow the
    load of experts. ``resume`` is a run's folder to go on with, on any mesh. Raises ``InputError`` on one rank, on the others
    ``Ended``.
    """
    asked: dict[str, Any] = {
        "data": data,
        "out": out,
        "checkpoint_every": checkpoint_every,
        "resume": resume,
        "loss_scale": loss_scale,
        "balance_loss": balance_loss,
        "z_loss": z_loss,
        "gate_bias": gate_bias,
        "allow_overcommit": allow_overcommit,
    }
    given = {"machine": machine, "model": model, **flags(asked), **flags(options)}
    with job("train", given, expect_ranks=expect_ranks, time_limit=time_limit) as world:
        lesson = world.agree(lambda: Lesson(**asked))
        world.agree(ready if world.first else lambda: None)
        drawn = options.get("router") is not None
        setting, overcommit = world.agree(lambda: _setting(machine, model, options, world))
        agree_on(world, whole(setting))
        world.agree(lambda: require_trained(setting))
        way = Way(check=False, allow_overcommit=allow_overcommit or overcommit)
        return Trainer(world, setting, way, lesson, not drawn, advance).run()


def _setting(
    machine: str | Path | Machine, model: str | Path | Model | None, options: Mapping[str, Any], world: World
) -> tuple[Setting, bool]:
    """The setting; where nobody names a mesh and the model's own is of other ranks, one of as many as there are."""
    try:
        return setting_of(machine, model, options, world)
    except InputError:
        of_file = resolved(machine, model or "moda-tiny", options, None)[2].get("mesh")
        if options.get("mesh") is not None or of_file is not None:
            raise
    found = load_model(resolved(machine, model or "moda-tiny", options, None)[1])
    return setting_of(machine, model, {**options, "mesh": usual_mesh(found, world.size)}, world)


def usual_mesh(model: Model, ranks: int) -> dict[str, int]:
    """Experts over as many ranks as divide both, data parallelism over the rest."""
    experts = math.gcd(model.experts, ranks) if model.experts else 1
    return {"ep": experts, "dp": ranks // experts} if experts > 1 else {"dp": ranks}


@dataclass(frozen=True)
class _Seen:
    """What a rank tells of a step."""

    seconds: float
    drawing: float
    loss: float
    squares: float
    tokens: list[Tokens]


class Trainer:
    """One training: its job, its data, and the record that rank 0 keeps."""

    def __init__(
        self,
        world: World,
        setting: Setting,
        way: Way,
        lesson: Lesson,
        learned: bool,
        advance: Callable[[str], None],
    ) -> None:
        self.world, self.setting, self.lesson, self.advance = world, setting, lesson, advance
        self.corpus: Corpus = world.agree(lambda: corpus_of(lesson.data, setting.model.vocabulary, setting.plan.seed))
        world.agree(lambda: self._batch(0))
        self.gates = GateTraining(lesson.balance_loss, lesson.z_loss, lesson.gate_bias)
        self.job = ScheduledJob(
            world,
            setting,
            way,
            "model",
            advance,
            lambda setting, transport, place: ModelTraining(
                setting, transport, place, self._batch, learned, True, self.gates
            ),
        )
        assert isinstance(self.job.data, ModelTraining)
        self.training = self.job.data
        self.training.usable = self._all_usable
        self.scale = world.agree(lambda: LossScale.parse(lesson.loss_scale, setting))
        self.learned, self._overflowed, self._scaled = learned, False, False
        self._operations = self.job.mine(self.job.schedule)
        self.record = TrainingRun(self._told())
        self._diverged: list[int] = []  # ranks whose loss is no number

    def _batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The words of a step's batch, and those that follow."""
        batch = self.setting.batch
        count = self.setting.mesh.replicas * batch.tokens // batch.seq_len
        words = self.corpus.batch(step, count, batch.seq_len + 1)
        return words[:, :-1], words[:, 1:]

    def _told(self) -> dict[str, Any]:
        setting = self.setting
        return {
            "model": setting.model.name,
            "machine": setting.machine.name,
            "mesh": dict(zip(setting.mesh.axes, setting.mesh.shape, strict=True)),
            "ranks": setting.mesh.ranks,
            "data": self.corpus.name,
            "entropy": self.corpus.entropy,
            "gate": "learned" if self.learned else f"router {setting.plan.router}",
            "balancer": setting.plan.balancer,
            "gate_training": {key: getattr(self.lesson, key) for key in ("balance_loss", "z_loss", "gate_bias")},
            "precision": setting.plan.precision,
            "optimizer": setting.plan.optimizer,
            "seed": setting.plan.seed,
            "parameters": setting.model.parameters.total,
            "tokens_per_rank": setting.batch.tokens,
            "tokens_per_step": setting.mesh.replicas * setting.batch.tokens,
            "plan": setting.plan_used(),
            "measured": self.job.measured(),
        }

    def run(self) -> TrainingRun | None:
        """All steps."""
        first, steps = self._first(), self.setting.plan.steps
        for step in range(first, steps):
            self._begin(step)
            operations = self._operations
            began = time.perf_counter()
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                self.training.start_step(step)
                self.job.executor.clear()
                drawn = time.perf_counter()
                self.job.executor.run(operations)
            seconds = time.perf_counter() - began
            loss = self.training.loss if self._counts else 0.0
            seen = _Seen(seconds, drawn - began, loss, self.training.holdings.squares(), self.training.tokens())
            every = self.job.comm.gather(seen)
            if every is not None:
                self._note(every)
            if self.scale is not None:
                self.record.loss_scale.append(self.training.scale)
                if self._scaled:
                    self.scale.after(step + 1, self._overflowed)
                self.record.scale_events = [each._asdict() for each in self.scale.events]
            if self.gates.bias_rate:
                self.gates.adjust(self.job.comm.bcast(self._loads()))
            self.world.agree(self._require_numbers)
            self._keep(step + 1, steps)
        self.job.conditions = conditions = self.job.watch.seen()
        if self.job.comm.rank:
            return None
        self.record.told["measured"] |= conditions.plain()
        self.record.warnings += self.job.warnings()
        return self.record

    def _begin(self, step: int) -> None:
        """Numbers are of the formats of the step from now on, and so is what the schedule says."""
        formats = self.setting.plan.precisions.at(step)
        if formats != self.training.formats:
            updates = self.training.holdings.updates
            shards = self.job.comm.allgather(shard_of(self.training))
            self.world.agree(lambda: self._change_formats(formats, step, shards, updates))
            self.job.tell(f"step {step + 1}: {self._policy(step)}")
        self._scaled = self.scale is not None and (self.scale.fixed or has_halves(formats))
        self.training.scale = self.scale.value if self.scale is not None and self._scaled else 1.0

    def _change_formats(
        self, formats: Mapping[Part, Formats], step: int, shards: Sequence[dict[str, Array]] = (), updates: int = 0
    ) -> None:
        self.training.take_formats(formats)
        self._operations = self.job.mine(lower_step(self.setting, step)[0])
        if shards:
            WholeTensors(f"--precision {self.setting.plan.precision}", shards).restore(self.training, updates)

    def _policy(self, step: int) -> str:
        """The name of a step's policy."""
        schedule = self.setting.plan.precisions
        return next(name for name in schedule.names if schedule.policy(name) == schedule.at(step))

    def _all_usable(self, finite: Callable[[], bool]) -> bool:
        """Whether the gradients of all ranks are numbers; where losses are not scaled, there is no such check."""
        if not self._scaled:
            return True
        self._overflowed = not all(self.job.comm.allgather(finite()))
        return not self._overflowed

    @property
    def _counts(self) -> bool:
        """Whether this rank's loss is told: of those that share tokens, one does."""
        place = self.training.place
        return place.me("pp") == place.of("pp") - 1 and place.me("tp") == place.me("col") == 0

    def _note(self, every: list[_Seen]) -> None:
        """Record a step; on rank 0."""
        record, model = self.record, self.setting.model
        record.loss.append(sum(each.loss for each in every))
        self._diverged = sorted(
            self.job.places.index(at) for at, each in enumerate(every) if not math.isfinite(each.loss)
        )
        record.step_seconds.append(max(each.seconds for each in every))
        record.data_seconds.append(max(each.drawing for each in every))
        record.gradient_norm.append(math.sqrt(sum(each.squares for each in every)))
        if model.experts:
            record.moe_layers = [number for number, layer in enumerate(model.stack) if layer.moe]
            balance = LoadStatistics()
            balance.add(observed.loads([each.tokens for each in every], self.setting))
            record.load_balance.append(balance.summary())
            counts = np.zeros((len(record.moe_layers), model.experts), dtype=np.int64)
            for rank, each in enumerate(every):
                if self._routes(rank):
                    for tokens in each.tokens:
                        counts[record.moe_layers.index(tokens.layer)] += tokens.experts
            record.experts.append(counts)
        step = len(record.loss)
        if step % max(1, self.setting.plan.steps // 20) == 0 or step in (1, self.setting.plan.steps):
            self.job.tell(f"step {step} of {self.setting.plan.steps}: loss {record.loss[-1]:.4f}")

    def _loads(self) -> dict[int, NDArray[np.int64]]:
        """What was wanted of each layer in the last step, on rank 0."""
        return dict(zip(self.record.moe_layers, self.record.experts[-1], strict=True)) if self.record.experts else {}

    def _routes(self, rank: int) -> bool:
        """Whether a rank's tokens are counted: ranks along ``tp`` that have parts of the same experts route the same ones."""
        at = [int(each) for each in np.unravel_index(rank, self.setting.mesh.shape)]
        return Place.in_mesh(self.setting, at).routes

    def _require_numbers(self) -> None:
        if self.record.loss and not math.isfinite(self.record.loss[-1]):
            raise Diverged(
                f"step {len(self.record.loss)}: the loss is {self.record.loss[-1]}, first of"
                f" {numbers_text(self._diverged, self.world)}; a smaller learning rate helps"
            )

    # --- checkpoints ------------------------------------------------------------------------------------------------------

    def _keep(self, done: int, steps: int) -> None:
        """Write a checkpoint where one is due."""
        every = self.lesson.checkpoint_every
        if every is None or self.lesson.out is None or (done % every and done != steps):
            return
        checkpoints.write(self.world, self.training, Path(self.lesson.out), done, self._manifest(done))

    def _manifest(self, done: int) -> dict[str, Any]:
        setting = self.setting
        return {
            "step": done,
            "updates": self.training.holdings.updates,
            "biases": {str(layer): each.tolist() for layer, each in self.gates.biases.items()},
            "scale": None if self.scale is None else [self.scale.value, self.scale.good],
            **checkpoints.kind_of_run(setting, self.corpus.name),
            **checkpoints.routed(setting),
            "zero": setting.plan.zero,
            "tokens_per_step": self.record.told["tokens_per_step"],
            "history": self.record.history() if not self.job.comm.rank else {},
        }

    def _first(self) -> int:
        """The step to begin with."""
        if self.lesson.resume is None:
            return 0
        found = self.world.agree(lambda: checkpoints.Checkpoint(checkpoints.latest(Path(self.lesson.resume or "."))))
        self.world.agree(lambda: self._require_alike(found))
        step = int(found.manifest["step"])
        formats = self.setting.plan.precisions.at(step)
        if formats != self.training.formats:
            self.world.agree(lambda: self._change_formats(formats, step))
        self.world.agree(lambda: found.restore(self.training))
        if found.routed_as(self.setting):
            self.world.agree(lambda: found.remember(self.training, self.world.rank))
        elif found.manifest.get("balancing"):
            before = f"{found.manifest['balancer']} on the mesh {found.manifest['mesh']}"
            self.record.warnings.append(f"the balancing policy begins without what it had seen: it was {before}")
        self.record.go_on(found.manifest["history"], step)
        self.gates.biases = {int(layer): np.array(each) for layer, each in found.manifest["biases"].items()}
        if self.scale is not None and found.manifest["scale"] is not None:
            self.scale.value, self.scale.good = found.manifest["scale"]
            self.scale.events = [ScaleEvent(**each) for each in self.record.scale_events]
        before = found.manifest["tokens_per_step"]
        if before != self.record.told["tokens_per_step"]:
            self.record.warnings.append(
                f"steps of {before:,} tokens went before, and are of {self.record.told['tokens_per_step']:,} now"
                " (--tokens-per-rank)"
            )
        return step

    def _require_alike(self, found: checkpoints.Checkpoint) -> None:
        for key, value in checkpoints.kind_of_run(self.setting, self.corpus.name).items():
            found.require(key, value, f"--{key}")
        if int(found.manifest["step"]) >= self.setting.plan.steps:
            raise InputError(
                f"--resume {found.path}: has {found.manifest['step']} steps already; --steps {self.setting.plan.steps}"
                " counts those too"
            )
