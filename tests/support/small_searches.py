"""Questions about plans that take no time: a model of four layers on a few ranks of a small cluster."""

from athanor.hardware.machine import load_machine
from athanor.hardware.node import Node
from athanor.sim.planning.question import Question
from athanor.sim.planning.ranking import Ranked
from athanor.workloads.model.model import Model, load_model

FEW = {"micro_batch": 1, "overlap": "none", "recompute": "none", "attention": "fused"}
"""Options that leave little to be searched."""

CHOICES = ("tp=1,2", "pp=1,2", "zero=0,1", "pipeline=1f1b")


def sized(name="gpt-tiny", **changed):
    """A model of the catalogue with other values, and no plan of its own."""
    return Model(**{**load_model(name).model_dump(), "plan": {}, "layers": 4, **changed})


def hosted(machine="cluster-64", host=1e12):
    """The machine with host memory."""
    found = load_machine(machine)
    beside = {"host_memory": host, "host_link": 16e9, "host_memory_bandwidth": 1e11}
    return found.model_copy(update={"node": Node.model_validate({**found.node.model_dump(), **beside})})


def asked(machine="cluster-64", model=None, gpus=4, tries=CHOICES, batch=8, memory=None, said=(), **fixed):
    """What would be asked for on the command line."""
    machine = load_machine(machine) if isinstance(machine, str) else machine
    options = {"global_batch": batch, **fixed}
    return Question.of(machine, model or sized(), options, tries, gpus, memory=memory, said=said)


def ranked(seconds, mesh, nbytes=1e6, **options):
    """A plan with its figures made up."""
    usual = {"placement": "megatron", "micro_batch": 1, "zero": "1", "offload": "none"}
    memory = dict.fromkeys(("parameters", "gradients", "optimizer", "activations", "other"), nbytes / 5)
    return Ranked(mesh, {**usual, **options}, seconds, {**memory, "total": nbytes, "capacity": 1e9, "host": 7.0})
