"""What a checkpoint holds: weights and the optimizer's state of the whole model, each once, however often ranks have them."""

from __future__ import annotations

from ...hardware.precisions import BYTES
from ..lowering.data_parallel.held_tensors import held_tensors
from ..lowering.data_parallel.sharding import cut_axes, held
from ..model.precision import POLICIES
from ..optimizers.optimizer import kept_precision
from ..plan.setting import Setting
from .stages import MemoryStages


def checkpoint_bytes(setting: Setting) -> float:
    """Bytes of a checkpoint, at the last precision policy of the plan; replicas are saved once.

    With Adam in mixed precision 14 for each parameter: 2 of the weight, 4 each of its master copy and both moments. That is
    BLOOM-176B's 2.3 TiB and the 105 GB of Llama 3 8B that MLPerf Storage writes.
    """
    stages, tensors = MemoryStages(setting), held_tensors(setting)
    formats, total = POLICIES[setting.plan.precisions.names[-1]], 0.0
    for each in held(setting):
        cut, mine = setting.mesh.size(*cut_axes(setting, each.part)), formats[each.part]
        held_bytes = stages.by_stage(each.parameters) * float(BYTES[mine.weight])
        for one in tensors.ruled(each) if setting.model.trains(each.part) else ():
            held_bytes = held_bytes + stages.by_stage(one.parameters) * one.rule.state_bytes(mine)
            for tensor, count in one.tensors.items():
                kept = sum(one.rule.kept(tensor).values()) * BYTES[kept_precision(mine)]
                held_bytes = held_bytes + stages.by_stage(count) * kept / cut
        total += cut * float(held_bytes.sum())
    return total
