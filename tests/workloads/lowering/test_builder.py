"""The builder of schedules: what waits for what, by a clock that knows its rules alone; and algorithms that groups allow."""

from dataclasses import replace
from random import Random

import pytest
from athanor.workloads.collectives import ALGORITHMS
from athanor.workloads.lowering.builder import FLAT, GRADIENTS, WEIGHTS, Program, settle
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.labels import spelled
from athanor.workloads.schedule.operation import Role, Task
from athanor.workloads.schedule.work import Exchange, Gemm, Loop
from hypothesis import given, settings
from hypothesis import strategies as st
from support.machines import tree

MESH = Mesh.of({"ep": 2, "tp": 2})
LAYOUT = place(MESH, tree(), "block:ep,tp")
PRODUCT, LOOP = Gemm(8.0, 8, 8, 1.0, "fp32"), Loop(3.0)
SUM = Exchange("all-reduce", "ring", ("tp",), 8.0, "fp32")
WORKS = {"product": PRODUCT, "loop": LOOP, "exchange": SUM}


class Clock:
    """When operations that last so long begin, told by the rules of a program and nothing else.

    The main line goes on when its last operation is done and everything has come that was needed since. What runs aside
    begins when the main line has come so far, and its own stream is free.
    """

    def __init__(self, beside_products):
        self.beside_products = beside_products
        self.now, self.came, self.product = 0.0, 0.0, None  # `product`: when the last operation began, if it was one
        self.free, self.spans = {}, []
        self.aside, self.coming = [], None

    def run(self, stream, begin, seconds):
        begin = max(begin, self.free.get(stream, 0.0))
        self.free[stream] = begin + seconds
        self.spans.append((begin, begin + seconds))
        return begin, begin + seconds

    def add(self, what, overlaps, seconds):
        overlaps = overlaps if self.beside_products else None
        if overlaps == "next product":
            self.wait_for_coming()
            self.coming = self.run("tensor", max(self.now, self.came), seconds)[1]
        elif overlaps == "last product" and self.product is not None:
            self.came = max(self.came, self.run("tensor", max(self.product, self.came), seconds)[1])
        else:
            if what != "product":
                self.wait_for_coming()
            begin, self.now = self.run("communication" if what == "exchange" else "compute", self.begin(), seconds)
            self.product = begin if what == "product" else None
            self.wait_for_coming()

    def begin(self):
        begin, self.came = max(self.now, self.came), 0.0
        return begin

    def wait_for_coming(self):
        self.came, self.coming = max(self.came, self.coming or 0.0), None

    def beside(self, stream, after, seconds):
        self.aside.append(self.run(stream, max(self.now, after), seconds)[1])
        return self.aside[-1]

    def join(self):
        self.came, self.aside = max(self.came, *self.aside, 0.0), []


CALLS = ["add", "add", "add", "beside a product", "aside", "at once", "need", "join"]


@st.composite
def calls(draw):
    """Calls of a program's methods: what to call, with what, and how long the operation lasts."""
    random = Random(draw(st.integers(0, 1 << 32)))
    found = []
    for _ in range(draw(st.integers(1, 16))):
        call, seconds, which = random.choice(CALLS), random.uniform(1, 9), random.randrange(-3, 6)
        stream = random.choice([GRADIENTS, WEIGHTS])
        what, overlaps = random.choice(["product", "product", "loop", "exchange"]), None
        if call == "beside a product":
            call, what, overlaps = "add", "exchange", random.choice(["next product", "last product"])
        found.append((call, seconds, which, stream, what, overlaps))
    return found


def begins(operations, lasting):
    """When operations begin and end: each when those before it on its stream, and those that it names, are done."""
    spans, free = [], {}
    for operation, seconds in zip(operations, lasting, strict=True):
        begin = max([free.get(operation.stream, 0.0), *(spans[number][1] for number in operation.after)])
        free[operation.stream] = begin + seconds
        spans.append((begin, begin + seconds))
    return spans


@settings(max_examples=150, deadline=None)
@given(st.booleans(), calls())
def test_operations_begin_as_soon_as_the_rules_let_them(beside_products, calls):
    clock, program = Clock(beside_products), Program(LAYOUT, beside_products=beside_products)
    lasting, aside = [], []  # seconds of each operation; numbers of those that run aside
    for call, seconds, which, stream, what, overlaps in calls:
        known = aside[which % len(aside)] if aside and which >= 0 else None
        if call == "add":
            clock.add(what, overlaps, seconds)
            program.add(Task(overlaps=overlaps), WORKS[what])
        elif call == "aside":
            clock.beside(stream, 0.0 if known is None else clock.spans[known][1], seconds)
            aside.append(program.aside(Task(), SUM, "gradient_sync", stream, known))
        elif call == "at once":
            clock.aside.append(clock.run(stream, 0.0, seconds)[1])
            aside.append(program.at_once(Task(), SUM, "gradient_sync", stream))
        elif call == "need" and known is not None:
            clock.came = max(clock.came, clock.spans[known][1])
            program.need(known)
        elif call == "join":
            clock.join()
            program.join()
        lasting += [seconds] * (call in ("add", "aside", "at once"))
    operations = program.schedule().operations
    assert begins(operations, lasting) == clock.spans
    for operation in operations:
        assert list(operation.after) == sorted(set(operation.after)), "each once, in order"
        assert all(operations[number].stream != operation.stream for number in operation.after)


def test_what_was_waited_for_is_not_joined_again():
    program = Program(LAYOUT)
    first, second = (program.aside(Task(), SUM, "gradient_sync") for _ in range(2))
    program.need(first)
    program.add(Task(), LOOP)
    program.join()
    program.add(Task(), LOOP)
    program.join()
    program.add(Task(), LOOP)
    assert [each.after for each in program.schedule().operations[2:]] == [(first,), (second,), ()]


def test_operations_are_of_the_pass_that_is_under_way():
    """Phase, micro-batch and recomputation are those at the time; a label is made from the task where none is given."""
    program = Program(LAYOUT, wanted=lambda task: task.role is not Role.NORM)
    task = Task(Role.PRODUCT, "ffn", operand="up")
    program.add(task, PRODUCT)
    program.add(Task(Role.NORM), LOOP)
    program.phase, program.micro_batch, program.recomputed = "backward", 3, True
    program.aside(task, SUM, "gradient_sync", label="mine")
    program.at_once(Task(Role.NORM), SUM, "offload", WEIGHTS)
    program.note("once")
    program.note("again")
    program.note("once")
    schedule = program.schedule()
    assert [(each.label, each.phase, each.category, each.stream) for each in schedule.operations] == [
        (spelled(task), "forward", "compute", "compute"),
        ("mine", "backward", "gradient_sync", GRADIENTS),
        (spelled(Task(Role.NORM)), "backward", "offload", WEIGHTS),
    ]
    assert [each.task for each in schedule.operations] == [
        task,
        replace(task, micro_batch=3, recomputed=True),
        Task(Role.NORM, micro_batch=3, recomputed=True),
    ]
    assert schedule.notes == ("once", "again") and schedule.layout is LAYOUT


EVEN = place(Mesh.of({"ep": 8}), tree(nodes=8, supernode=4), "block:ep")
UNEVEN = place(Mesh.of({"ep": 6}), tree(nodes=8, supernode=4), "block:ep")
EVERY = [(operation, name) for operation, known in ALGORITHMS.items() for name in known]


@pytest.mark.parametrize("operation, algorithm", EVERY, ids=lambda each: each)
@pytest.mark.parametrize("layout", [EVEN, UNEVEN], ids=["4+4", "4+2"])
def test_only_algorithms_in_two_levels_give_way_and_only_where_groups_are_uneven(operation, algorithm, layout):
    asked = Exchange(operation, algorithm, ("ep",), 64.0, "fp32")
    found, note = settle(asked, layout)
    gives_way = layout is UNEVEN and ALGORITHMS[operation][algorithm].grid
    assert found == (replace(asked, algorithm=FLAT[operation]) if gives_way else asked)
    assert not ALGORITHMS[operation][found.algorithm].grid or layout is EVEN
    assert bool(note) == gives_way
    program = Program(layout)
    for _ in range(2):
        program.add(Task(), asked)
    assert [each.work for each in program.schedule().operations] == [found, found]
    assert program.schedule().notes == ((note,) if gives_way else ())
    if gives_way:
        assert f"{operation} over ep runs as {FLAT[operation]} instead of {algorithm}" in note
