"""Operations under labels that say what is not so, no two alike: for tests of code that must not read them."""

import itertools

from athanor.workloads.schedule.operation import Operation

MISLEADING = "again.l99.moe.gradients.wgrad.gather.again.all-gather.send.{}"


def mislead(setattr_=setattr):
    """From now on every operation gets such a label, and another one with every copy."""
    made, numbers = Operation.__init__, itertools.count()

    def init(self, label, *args, **kwargs):
        made(self, MISLEADING.format(next(numbers)), *args, **kwargs)

    setattr_(Operation, "__init__", init)
