"""The network against SimGrid, and at 96,000 ranks: ``python benchmarks/network.py``, with ``--record`` to keep the figures.

Each row runs three times in a process of its own; what counts is the smallest CPU time after start-up (which is shown apart)
and the largest peak memory. What SimGrid takes stands beside it: recorded (SimGrid 4.0, C++, on two cores like those of a laptop)
or, for random flows and where its Python module can be imported, measured in the same run.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

RUNS = 3
MIB = 2.0**20
RECORD = Path(__file__).parent / "network.json"
ORACLE = Path(__file__).parent.parent / "tests" / "data" / "simgrid.csv"
NAMES = {
    "all": ("all-to-all", "linear"),
    "pairshift": ("all-to-all", "pairwise-shift"),
    "pairxor": ("all-to-all", "pairwise-xor"),
    "ring": ("all-reduce", "ring"),
}
RECORDED = {"pairxor": 4.6, "pairshift": 7.0, "ring": 11.5, "all": 8.2, "flows 10000": 6.0, "flows 4000": 0.63}
"""CPU seconds of SimGrid 4.0 at 1,024 ranks in four supernodes."""

RECORDED_MIB = {"pairxor": 58, "pairshift": 58, "ring": 58, "all": 2031}


def oracle(
    pattern: str, ranks: int, supernode: int, nbytes: float, model: str = "cm02", routing: str = "adaptive"
) -> float:
    """Simulated seconds of a pattern on the oracle's platform."""
    from athanor.sim.studies.collective import collective

    options = {"nodes_per_supernode": supernode, "network_model": model, "routing": routing}
    return collective("simgrid-tree", *NAMES[pattern], ranks, nbytes, **options).seconds


def whole(operation: str, algorithm: str, nbytes: float) -> float:
    """Simulated seconds of a collective of 96,000 ranks on the new Sunway."""
    from athanor.sim.studies.collective import collective

    return collective("sunway-oceanlight", operation, algorithm, 96_000, nbytes).seconds


def uneven() -> float:
    """An all-to-all-v of 1,024 ranks, an expert each: what a rank receives follows Zipf's law; by CM02, with latency."""
    from athanor.hardware.machine import load_machine
    from athanor.sim.messages.message_simulation import play
    from athanor.sim.messages.message_tables import MessageSteps
    from athanor.sim.messages.rank_symmetry import RankSymmetry
    from athanor.sim.network.network_models import sharing
    from athanor.sim.network.phases.round_bytes import Payload
    from athanor.sim.network.topology import Graph
    from athanor.workloads.collectives import rounds
    from athanor.workloads.mesh.mesh import Mesh
    from athanor.workloads.mesh.placement import place

    ranks, machine = 1024, load_machine("simgrid-tree")
    popularity = np.random.default_rng(1).permutation(1 / np.arange(1.0, ranks + 1))
    share = popularity / popularity.sum()
    graph = Graph.of(machine, place(Mesh.of({"ep": ranks}), machine, "block:ep"))
    groups, all_to_all = np.arange(ranks)[None, :], rounds("all-to-all", "linear", 1, ranks)
    orbits = RankSymmetry.of(graph, groups, all_to_all, 256, [share])
    payloads = [Payload(np.full(ranks, ranks * MIB), share)]
    steps = MessageSteps(graph, groups, all_to_all, 256, payloads, sharing("cm02"), 0.0, orbits)
    return float(play([(steps, np.zeros(steps.ranks))])[0].max())


def flows(count: int) -> float:
    """Seconds until the last of random flows of 1 MiB between 1,024 hosts has ended, without latency."""
    from athanor.sim.network.fluid import Fluid

    hosts, supernode, rate = 1024, 256, 12.5e9
    source, target, across = pairs(count)
    groups, nowhere = hosts // supernode, 2 * hosts + 2 * (hosts // supernode)
    trunks = [2 * hosts + source // supernode, 2 * hosts + groups + target // supernode]
    links = np.stack([source, hosts + target, *(np.where(across, trunk, nowhere) for trunk in trunks)], axis=1)
    capacity = np.concatenate([np.full(2 * hosts, rate), np.full(2 * groups, rate * supernode * 3 / 16), [np.inf]])
    fluid, every = Fluid(count, 4, capacity), np.arange(count)
    fluid.book(every, links, np.ones((count, 4)), np.ones(count), np.full(count, np.inf), np.full(count, MIB))
    fluid.begin(every)
    fluid.settle()
    while (then := fluid.next()) < np.inf:
        fluid.advance(then)
        fluid.settle()
    return fluid.now


def pairs(count: int) -> tuple[Any, Any, Any]:
    """Random pairs of different hosts of 1,024, and which of them lie in different supernodes."""
    random = np.random.default_rng(1)
    source = random.integers(0, 1024, count)
    target = (source + random.integers(1, 1024, count)) % 1024
    return source, target, source // 256 != target // 256


def simgrid_flows(count: int) -> float:
    """The same flows in SimGrid, by its Python module, with plain max-min sharing (CM02 without latency)."""
    from simgrid import Comm, Engine

    plain = ("model:CM02", "TCP-gamma:0", "crosstraffic:0", "weight-S:0")
    engine = Engine(["flows", "--log=root.thresh:critical", *(f"--cfg=network/{each}" for each in plain)])
    hosts = platform(engine)

    def send() -> None:
        source, target, _ = pairs(count)
        sent = [Comm.sendto_async(hosts[a], hosts[b], int(MIB)) for a, b in zip(source, target, strict=True)]
        for each in sent:
            each.wait()

    hosts[0].add_actor("all", send)
    engine.run()
    return float(engine.clock)


def platform(engine: Any) -> list[Any]:
    """The oracle's platform without latency: four supernodes of 256 hosts, each behind a trunk of 3/16 of what they inject."""
    from simgrid import LinkInRoute

    root, zones, hosts = engine.netzone_root, [], []
    for group in range(4):
        zone = root.add_netzone_star(f"s{group}")
        for number in range(256 * group, 256 * group + 256):
            host = zone.add_host(f"h{number}", "1Gf")
            up, down = (zone.add_link(f"{way}{number}", 12.5e9) for way in ("up", "down"))
            for link in (up, down):
                link.set_latency(0)
            zone.add_route(host, None, [LinkInRoute(up)], False)
            zone.add_route(None, host, [LinkInRoute(down)], False)
            hosts.append(host)
        zone.set_gateway(zone.add_router(f"r{group}"))
        zones.append(zone)
    trunks = [
        [root.add_link(f"trunk{way}{group}", 256 * 12.5e9 * 3 / 16) for group in range(4)] for way in ("up", "down")
    ]
    for a in range(4):
        for b in range(4):
            if a != b:
                root.add_route(zones[a], zones[b], [LinkInRoute(trunks[0][a]), LinkInRoute(trunks[1][b])], False)
    return hosts


def start_up() -> float:
    """Simulated seconds of the smallest collective: nearly all that it takes are imports and files."""
    from athanor.sim.studies.collective import collective

    return collective("simgrid-tree", "all-to-all", "linear", 4, 1024.0).seconds


WORK: dict[str, Callable[[], float]] = {
    "start-up": start_up,
    **{
        f"1024 {name}": (lambda name=name: oracle(name, 1024, 256, 2.0**30 if name == "ring" else MIB))
        for name in NAMES
    },
    **{f"flows {count}": (lambda count=count: flows(count)) for count in (4000, 10000)},
    **{f"simgrid flows {count}": (lambda count=count: simgrid_flows(count)) for count in (4000, 10000)},
    "1024 uneven": uneven,
    "96000 linear": lambda: whole("all-to-all", "linear", 8192),
    "96000 ring": lambda: whole("all-reduce", "ring", 1e9),
    "96000 two-level": lambda: whole("all-to-all", "two-level", 8192),
    "96000 pairwise-shift": lambda: whole("all-to-all", "pairwise-shift", 8192),
}


def measure(name: str) -> dict[str, float] | None:
    """CPU seconds (the smallest), peak MiB (the largest) and simulated seconds of a piece of work; None where it cannot run."""
    found = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True)
        if done.returncode:
            return None
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        "cpu": min(each["cpu"] for each in found),
        "mib": max(each["mib"] for each in found),
        "simulated": found[0]["simulated"],
    }


def one(name: str) -> None:
    """Do a piece of work in this process, and print what the whole process took: imports and files included."""
    from athanor.workloads.lowering.simulator_memory import peak_rss_bytes

    simulated = WORK[name]()
    print(json.dumps({"cpu": time.process_time(), "mib": peak_rss_bytes() / MIB, "simulated": simulated}))


def agreement() -> float:
    """The largest relative difference from any row of the oracle."""
    worst = 0.0
    for row in csv.DictReader(ORACLE.read_text().splitlines()):
        numbers = int(row["ranks"]), int(row["hosts_per_supernode"]), float(row["message_bytes"])
        routing = "static" if row["platform"] == "ft" else "adaptive"
        seconds = oracle(row["algorithm"], *numbers, row.get("network_model", "cm02"), routing)
        worst = max(worst, abs(seconds / float(row["simulated_s"]) - 1))
    return worst


def run_all(console: Console) -> dict[str, Any]:
    """Measure everything; the figures as plain data."""
    found: dict[str, Any] = {"agreement": agreement(), "start": measure("start-up"), "rows": []}
    rows = [(f"1,024 ranks: {name}", f"1024 {name}", "1/10", name) for name in NAMES]
    rows.append(("1,024 ranks: all, uneven (Zipf); beside even", "1024 uneven", "1/10", "all"))
    for work, name, target, recorded in rows:
        ours = measure(name)
        found["rows"].append([work, ours, RECORDED[recorded], "recorded", RECORDED_MIB[recorded], target])
    for count in (4000, 10000):
        ours, live = measure(f"flows {count}"), measure(f"simgrid flows {count}")
        theirs = (live["cpu"], "measured", live["mib"]) if live else (RECORDED[f"flows {count}"], "recorded", None)
        found["rows"].append([f"{count:,} random flows", ours, *theirs, "1/3"])
    for name, limit in (("linear", "< 1 s"), ("two-level", "< 1 s"), ("ring", "< 5 s"), ("pairwise-shift", "< 20 s")):
        found["rows"].append([f"96,000 ranks: {name}", measure(f"96000 {name}"), None, "cannot", None, limit])
    if not any(how == "measured" for _, _, _, how, _, _ in found["rows"]):
        console.print("SimGrid's Python module is not there: its figures are recorded ones")
    return found


def cells(row: list[Any]) -> list[str]:
    """A row of figures as text: work, CPU seconds, SimGrid's, their ratio, its target, memory, SimGrid's, simulated seconds."""
    work, ours, theirs, how, mib, target = row
    ratio = f"1/{theirs / ours['cpu']:,.0f}" if theirs else ""
    simgrid = f"{theirs:.2f} ({how})" if theirs else how
    return [
        work,
        f"{ours['cpu']:.3f}",
        simgrid,
        ratio,
        target,
        f"{ours['mib']:.0f}",
        f"{mib:.0f}" if mib else "",
        f"{ours['simulated']:.9g}",
    ]


COLUMNS = ("work", "CPU s", "SimGrid CPU s", "ratio", "target", "peak MiB", "SimGrid MiB", "simulated s")


def main() -> None:
    """Measure everything, print the table, and with ``--record`` keep the figures."""
    console = Console(width=150)
    found = run_all(console)
    start = found["start"]
    console.print(f"largest difference from a row of the oracle: {found['agreement']:.1e} (target 1e-6)")
    console.print(f"start-up {start['cpu']:.2f} CPU s, {start['mib']:.0f} MiB: part of each figure below")
    table = Table(*COLUMNS)
    for row in found["rows"]:
        table.add_row(*cells(row))
    console.print(table)
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        one(sys.argv[2])
    else:
        main()
