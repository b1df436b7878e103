"""Jobs and faults of campaigns as tests need them: small, with constant costs where closed forms are asked."""

from dataclasses import replace

from athanor.hardware.site.faults import Component, Faults
from athanor.sim.campaign.faults.fault_history import FaultProcess, InUse
from athanor.sim.campaign.job import CheckpointLevel, Job

HOUR, DAY = 3600.0, 86400.0
ONE = InUse(nodes=1, accelerators=1, interfaces=1, supernodes=1)


def plain_faults(mtbf, **more):
    """Exponential faults of one component, noticed and mended at once."""
    component = Component(name="all", per="job", mtbf=mtbf, takes="nothing")
    given = {"detection": 0.0, "repair": 0.0, "scheduling": 0.0, "initialisation": 0.0}
    return Faults(component=(component,), **{**given, **more})


def plain_process(mtbf):
    """The process of such faults."""
    return FaultProcess(plain_faults(mtbf), ONE)


def many_kinds():
    """Faults of every kind: nodes, software, Weibull, announced, slow, silent; with tails, on 64 nodes."""
    components = (
        Component(name="node", mtbf=20 * DAY),
        Component(name="software", per="job", takes="nothing", mtbf=3 * DAY),
        Component(name="memory", per="accelerator", shape=0.7, mtbf=100 * DAY),
        Component(name="maintenance", per="job", mtbf=2 * DAY, planned=True, takes="nothing"),
        Component(name="slow node", mtbf=60 * DAY, slowdown=1.3, detection=2 * HOUR),
        Component(name="corruption", mtbf=100 * DAY, silent=True, detection=3 * HOUR),
    )
    faults = Faults(
        component=components,
        detection=300.0,
        repair=20_000.0,
        repair_spread=3.0,
        scheduling=100.0,
        initialisation=50.0,
        restart_spread=4.0,
    )
    return FaultProcess(faults, InUse(nodes=64, accelerators=512, interfaces=64, supernodes=4))


MIXED = Job(20 * DAY, 1800.0, 60.0, 400.0, 100.0, planned=frozenset([3]), slowed={4: 0.75})
LEVELS = (
    CheckpointLevel("memory", 1, 5.0, 5.0),
    CheckpointLevel("neighbour", 3, 20.0, 20.0),
    CheckpointLevel("file system", 12, 90.0, 100.0),
)
JOBS = {
    "levels": replace(MIXED, levels=LEVELS, survives=(1, 0, 2, 1, 1, 2), spares=12, work=10 * DAY),
    "restart": MIXED,
    "few spares": replace(MIXED, work=2 * DAY, spares=3),
    "asynchronous": replace(MIXED, work=5 * DAY, commit=500.0, spares=8, stall=0.1),
    "elastic": replace(MIXED, work=8 * DAY, spares=1, speeds=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5)),
}
