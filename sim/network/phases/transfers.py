"""From an exchange of the Schedule to what the network carries: transfers, one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....hardware.fabrics.fabric import LinkKind
from ....hardware.machine import Machine
from ....hardware.message_costs import BOTH, ONE
from ....workloads.collectives import Pattern, Round, check, rounds
from ....workloads.mesh.placement import Layout
from ....workloads.plan.kept import KeptWork
from ....workloads.schedule.work import Exchange
from ..links import Array, Groups, Index, LinkLoads
from ..message_costs import MessageCosts
from .flow_classes import Demand
from .flow_symmetry import Marks
from .kept_exchanges import LATEST, KeptExchanges, backwards, balanced
from .phases import phases
from .phases_on_trees import ByLevel
from .round_bytes import Amounts, full, shares, weights
from .traffic_factors import TrafficFactors, traffic_factors
from .transfer import AtOnce, MessageTimes, Part, Transfer

_Unit = tuple[Pattern, int, Groups, TrafficFactors | None]
"""A pattern, the step, the groups in which it runs, and what its bytes weigh."""


class Traffic:
    """Turns exchanges into transfers for one layout; results are kept, since layers repeat.

    At ``bound`` depth their bytes count on links as at ``links`` depth; what exchanges take at least, others know
    (:class:`~athanor.sim.messages.exchange_bounds.ExchangeBounds`).
    """

    def __init__(self, machine: Machine, layout: Layout, depth: str) -> None:
        self.machine, self.layout, self.depth = machine, layout, depth
        self.costs = MessageCosts.of(machine)
        self._farthest: dict[Groups, tuple[Index, Index]] = {}
        self.phases = phases(machine, layout, "links" if depth == "bound" else depth, least=depth == "bound")
        self._even: dict[tuple[object, ...], list[Transfer]] = {}
        self._units: dict[_Unit, tuple[Demand, LinkLoads]] = {}
        self._scopes: dict[tuple[tuple[str, ...], str, Part | None], Groups] = {}
        self._parts: dict[tuple[tuple[str, ...], bytes, bytes], Part] = {}
        self._groups: dict[tuple[tuple[int, ...], bytes], Groups] = {}
        self._chosen: dict[tuple[Groups, bytes], Groups] = {}
        self._factors: dict[tuple[str, str, tuple[str, ...]], TrafficFactors | None] = {}
        self.couplings: dict[
            Hashable, Any
        ] = {}  # what was found of links that its groups share, by those who ask for it
        self._crowded: dict[tuple[str, ...], bool] = {}
        self._kept: KeptExchanges[list[Transfer]] = KeptExchanges(LATEST // layout.mesh.ranks)
        self._kept_at_once: KeptExchanges[list[AtOnce]] = KeptExchanges(4 * LATEST // layout.mesh.ranks)
        self._first: Traffic | None = None  # of points of a study: whose flow classes these are as well

    @classmethod
    def of(cls, machine: Machine, layout: Layout, depth: str, kept: KeptWork | None = None) -> Traffic:
        """The traffic of a layout; points of a study that have it in common take it from what is ``kept``.

        Where only the rates of links differ, flow classes are those of another such machine.
        """
        if kept is None:
            return cls(machine, layout, depth)
        fabric, node, own = (
            machine.fabric.model_dump(mode="json"),
            machine.node.model_dump(mode="json"),
            machine.calibration,
        )
        rates = (
            node.pop("interface_bandwidth"),
            fabric.pop("taper", None),
            own.network_efficiency,
            own.message_overhead,
            own.link_burst,
            own.messages,
        )
        shape = (id(layout), json.dumps([machine.nodes, fabric, node], default=str), depth)
        its, first = kept.of("traffic", shape, lambda: (rates, cls(machine, layout, depth)))
        if its == rates:
            first._even.clear()  # transfers of sizes that the next point may not have
            return first
        made = cls(machine, layout, depth)
        made._like(first)
        return made

    def _like(self, other: Traffic) -> None:
        """Take over the flow classes of traffic on the same links at other rates."""
        mine, known = self.phases, other.phases
        if self.depth != "fluid" or not isinstance(mine, ByLevel) or not isinstance(known, ByLevel):
            return
        if [replace(kind, capacity=1.0) for kind in mine.kinds] != [
            replace(kind, capacity=1.0) for kind in known.kinds
        ]:
            return
        pairs = zip((*mine.links.cable, *mine.links.domains), (*known.links.cable, *known.links.domains), strict=True)
        if mine.links.cables != known.links.cables or not all(np.array_equal(one, two) for one, two in pairs):
            return
        self._first = other
        self._scopes, self._parts, self._groups = other._scopes, other._parts, other._groups
        self._chosen, self._factors = other._chosen, other._factors

    def _unit(self, unit: _Unit, make: Callable[[], tuple[Demand, LinkLoads]]) -> tuple[Demand, LinkLoads]:
        """What a pattern's step asks for one byte a rank, as it is known here, or at other rates, or made now."""
        if unit not in self._units:
            if self._first is None:
                self._units[unit] = make()
            elif unit in self._first._units:
                self._units[unit] = _rated(self._first._units[unit], self.phases.kinds)
            else:
                self._units[unit] = make()
                self._first._units[unit] = _rated(self._units[unit], self._first.phases.kinds)
        return self._units[unit]

    def crowded(self, axes: tuple[str, ...]) -> bool:
        """Whether groups along axes share links that can be full, as far as one sees at a glance."""
        if axes not in self._crowded:
            self._crowded[axes] = self.phases.crowded(self.layout.groups(axes))
        return self._crowded[axes]

    def forget(self) -> None:
        """Keep no exchanges whose bytes differ from rank to rank: those of the next step are others."""
        self._kept.clear()
        self._kept_at_once.clear()

    def part(self, axes: tuple[str, ...], rows: Index, apart: Marks) -> Part:
        """Some of the groups along axes; the same one for the same groups and links."""
        key = (axes, rows.tobytes(), apart.tobytes())
        return self._parts.setdefault(key, Part(axes, rows, apart))

    def transfers(self, exchange: Exchange, part: Part | None = None) -> list[Transfer]:
        """The transfers of an exchange, in order: those of all groups, or of a part of them."""
        if self.layout.mesh.size(*exchange.axes) == 1:
            return []
        if exchange.received is not None or not isinstance(exchange.nbytes, float):
            return self._unevenly(exchange, part)
        key = (exchange.operation, exchange.algorithm, exchange.axes, exchange.nbytes, part)
        if key not in self._even:
            self._even[key] = self._evenly(exchange, exchange.nbytes, part)
        return self._even[key]

    def _evenly(self, exchange: Exchange, nbytes: float, part: Part | None) -> list[Transfer]:
        """Every rank has the same bytes for every other: flows and loads of one byte a rank, scaled."""
        found, weight = list[Transfer](), self._factors_of(exchange)
        for each in rounds(exchange.operation, *self._shape(exchange)):
            scope = self._scope(exchange.axes, each.scope, part)
            apart = part.apart if part else None
            for step, times in each.distinct():
                unit = (each.pattern, step, scope, weight)

                def made(
                    each: Round = each, step: int = step, scope: Groups = scope, apart: Marks | None = apart
                ) -> tuple[Demand, LinkLoads]:
                    groups, ones = scope.members, np.ones(scope.members.shape)
                    if each.everyone:
                        return self._all_pairs(weight, scope, ones, ones / groups.shape[1], apart)
                    return self._one_each(weight, groups, _targets(each, groups, step), ones, apart)

                demand, loads = self._unit(unit, made)
                factor = nbytes * each.share * times
                largest = nbytes * each.share / (scope.members.shape[1] if each.everyone else 1)
                posted = self._posted(each, step, scope, largest, not found)
                found.append(self._transfer(each, times, scope, demand.scaled(factor), loads, factor, posted))
        return found

    def _unevenly(self, exchange: Exchange, part: Part | None) -> list[Transfer]:
        """Those of an exchange whose bytes differ from rank to rank: known, or the other way of one that is."""
        key = exchange.sends, part
        if (found := self._kept.get(key)) is None:
            there = self._kept.get((backwards(exchange), part))
            if there is not None and self._returns(exchange):
                found = [each.returning(part.apart if part else None) for each in there]
            else:
                found = self._uneven(exchange, part)
            self._kept.put(key, exchange, found)
        return found

    def _returns(self, exchange: Exchange) -> bool:
        """Whether links carry the same as in the exchange of which senders are the receivers of this, the other way."""
        if not self.phases.two_way or not balanced(exchange, self.layout.mesh):
            return False
        return [(each.everyone, each.scope) for each in rounds(exchange.operation, *self._shape(exchange))] == [
            (True, "group")
        ]

    def at_once(self, exchanges: Sequence[Exchange], times: Sequence[Array] | None = None) -> list[AtOnce] | None:
        """The transfers of several exchanges of one operation, algorithm and axes whose bytes differ, in order.

        ``times``: how often ranks do each, as in :meth:`weighted`, the same ranks all of them; seconds then mean nothing. None
        where ranks do not send to all of their group at once.
        """
        if times is not None:
            return self._at_once(exchanges, times)
        kept = self._kept_at_once
        known = {each.sends: self._known_at_once(each) for each in exchanges}
        missing = {each.sends: each for each in exchanges if known[each.sends] is None}
        if missing:
            found = self._at_once(list(missing.values()))
            if found is None:
                return None
            for number, (key, each) in enumerate(missing.items()):
                of_this = known[key] = [transfer.of(number) for transfer in found]
                kept.put(key, each, of_this)
            if len(missing) == len(exchanges):
                return found
        return [AtOnce.joined(each) for each in zip(*(known[each.sends] or [] for each in exchanges), strict=True)]

    def _known_at_once(self, exchange: Exchange) -> list[AtOnce] | None:
        """Those of one exchange, where they are known or it brings back what a known one took."""
        found = self._kept_at_once.get(exchange.sends)
        if found is None and (there := self._kept_at_once.get(backwards(exchange))) and self._returns(exchange):
            found = [each.returning() for each in there]
            self._kept_at_once.put(exchange.sends, exchange, found)
        return found

    def _at_once(self, exchanges: Sequence[Exchange], times: Sequence[Array] | None = None) -> list[AtOnce] | None:
        """:meth:`at_once` of exchanges of which nothing is known."""
        first = exchanges[0]
        if self.costs.measured or self.costs.burst:
            return None
        algorithm, outer, inner = self._shape(first)
        found = rounds(first.operation, algorithm, outer, inner)
        if self.layout.mesh.size(*first.axes) == 1 or not all(each.everyone for each in found):
            return None
        check(first.operation, algorithm, outer * inner, uneven=first.operation == "all-to-all")
        held = Amounts.of(self.layout, [each.nbytes for each in exchanges])
        if times is not None:
            held = held.multiplied(times)
        wanted = Amounts.of(self.layout, [1.0 if each.received is None else each.received for each in exchanges])
        weight, moved = self._factors_of(first), list[AtOnce]()
        for number, each in enumerate(found):
            scope = self._scope(first.axes, each.scope)
            if times is not None:
                scope = self._among(scope, full(self.layout, times[0]))
            groups = scope.members
            if each.action == "exchange":
                if each.scope == "inner":
                    of_each = weights(self.layout, first.axes, each.scope, wanted.by_rank())
                    share = shares(of_each[:, groups])
                else:
                    share = shares(wanted.at(groups))
            sent = held.at(groups) * each.share
            if number + 1 < len(found):
                every = np.zeros((len(exchanges), self.layout.mesh.ranks))
                every[:, groups] = share * sent.sum(axis=2, keepdims=True)
                held = Amounts(self.layout, every.reshape(-1, *self.layout.mesh.shape))
            overhead = self.machine.calibration.message_overhead
            alone = self.phases.all_pairs_at_once(scope, self._weighed(weight, groups, sent), share, overhead)
            posted = alone.longest + overhead * max(1, each.messages(groups.shape[1]))
            moved.append(AtOnce(np.maximum(posted, alone.ends) if overhead else alone.ends, alone.loads, alone.apart))
        return moved

    def _uneven(self, exchange: Exchange, part: Part | None = None, only: Array | None = None) -> list[Transfer]:
        """Bytes differ from rank to rank; what a round brings is what the next one sends on.

        ``only``: which ranks there are at all, whole groups of them.
        """
        algorithm, outer, inner = self._shape(exchange)
        check(exchange.operation, algorithm, outer * inner, uneven=exchange.operation == "all-to-all")
        held = full(self.layout, exchange.nbytes)
        wanted = full(self.layout, 1.0 if exchange.received is None else exchange.received)
        found, weight = list[Transfer](), self._factors_of(exchange)
        several = list(rounds(exchange.operation, algorithm, outer, inner))
        for each in several:
            scope = self._scope(exchange.axes, each.scope, part)
            if only is not None:
                scope = self._among(scope, only)
            groups, apart = scope.members, part.apart if part else None
            if each.action == "exchange":
                share = shares(weights(self.layout, exchange.axes, each.scope, wanted)[groups])
            if each.everyone:
                sent = held[groups] * each.share
                if each is not several[-1]:
                    held = np.empty_like(held)
                    held[groups] = share * sent.sum(axis=1, keepdims=True)
                demand = self._all_pairs(weight, scope, sent, share, apart)
                largest = float((sent.max(axis=1) * share.max(axis=1)).max(initial=0.0))
                posted = self._posted(each, 0, scope, largest, not found)
                found.append(self._transfer(each, 1, scope, *demand, None, posted))
                continue
            for step, times in each.distinct():
                portion = share[:, _positions(each, groups, step)] if each.action == "exchange" else each.share
                sent = held[groups] * (portion * times)
                demand = self._one_each(weight, groups, _targets(each, groups, step), sent, apart)
                posted = self._posted(each, step, scope, float(sent.max(initial=0.0)) / times, not found)
                found.append(self._transfer(each, times, scope, *demand, None, posted))
        return found

    def weighted(self, exchange: Exchange, times: Array) -> LinkLoads:
        """Bytes on every link where ranks do an exchange ``times`` often, an array over the mesh that is alike within groups."""
        found = LinkLoads(self.phases.kinds)
        if self.layout.mesh.size(*exchange.axes) == 1:
            return found
        if exchange.received is not None or not isinstance(exchange.nbytes, float):
            held = np.asarray(exchange.nbytes) * times
            for transfer in self._uneven(replace(exchange, nbytes=held), only=full(self.layout, times)):
                found.plus(transfer.loads, 1.0)
            return found
        held, weight = full(self.layout, exchange.nbytes * times), self._factors_of(exchange)
        for each in rounds(exchange.operation, *self._shape(exchange)):
            scope = self._scope(exchange.axes, each.scope)
            groups = scope.members
            for step, repeated in each.distinct():
                sent = held[groups] * (each.share * repeated)
                if each.everyone:
                    even = np.full(groups.shape, 1.0 / groups.shape[1])
                    found.plus(self._all_pairs(weight, scope, sent, even)[1], 1.0)
                else:
                    found.plus(self._one_each(weight, groups, _targets(each, groups, step), sent)[1], 1.0)
        return found

    def _factors_of(self, exchange: Exchange) -> TrafficFactors | None:
        """What the bytes of an exchange weigh, worked out once."""
        key = (exchange.operation, exchange.algorithm, exchange.axes)
        if key not in self._factors:
            groups = self.layout.groups(exchange.axes)
            self._factors[key] = traffic_factors(
                self.machine, self.layout, groups, exchange.operation, exchange.algorithm
            )
        return self._factors[key]

    def _all_pairs(
        self, weight: TrafficFactors | None, scope: Groups, sent: Array, share: Array, apart: Marks | None = None
    ) -> tuple[Demand, LinkLoads]:
        """:meth:`Phases.all_pairs` of what the bytes weigh."""
        return self.phases.all_pairs(scope, self._weighed(weight, scope.members, sent), share, apart)

    def _weighed(self, weight: TrafficFactors | None, groups: Index, sent: Array) -> Array:
        """What bytes ``[…, group, member]`` for all others weigh."""
        if weight is None:
            return sent
        others = np.broadcast_to(groups[:, None, :], (*groups.shape, groups.shape[1])).reshape(-1, groups.shape[1])
        return sent * weight.of_all(groups.reshape(-1), others, self.layout.node).reshape(groups.shape)

    def _one_each(
        self,
        weight: TrafficFactors | None,
        groups: Index,
        targets: Index,
        sent: Array,
        apart: Marks | None = None,
    ) -> tuple[Demand, LinkLoads]:
        """:meth:`Phases.one_each` of what the bytes weigh."""
        if weight is not None:
            sent = sent * weight.of(groups, targets, self.layout.node)
        return self.phases.one_each(groups, targets, sent, apart)

    def _shape(self, exchange: Exchange) -> tuple[str, int, int]:
        """Algorithm, and the group as a grid of supernodes and ranks in each (one row where its parts are unequal)."""
        grid = self.layout.two_level(exchange.axes)
        outer, inner = (1, self.layout.mesh.size(*exchange.axes)) if grid is None else grid.shape[1:]
        return exchange.algorithm, outer, inner

    def _scope(self, axes: tuple[str, ...], scope: str, part: Part | None = None) -> Groups:
        """The groups in which a round runs, ``[groups, size]``."""
        key = (axes, scope, part)
        if key not in self._scopes:
            # Scopes of different axes may be the very same groups: one object stands for them.
            members = np.ascontiguousarray(self.layout.scope(axes, scope))
            if part is not None:  # of these, those within the part's groups, which stand next to each other
                of_group = members.reshape(len(self.layout.groups(axes)), -1, members.shape[1])
                self._scopes[key] = Groups(of_group[part.rows].reshape(-1, members.shape[1]))
            else:
                self._scopes[key] = self._groups.setdefault((members.shape, members.tobytes()), Groups(members))
        return self._scopes[key]

    def _among(self, scope: Groups, only: Array) -> Groups:
        """The groups of which ``only`` is not zero."""
        key = (scope, only.tobytes())
        if key not in self._chosen:
            self._chosen[key] = Groups(scope.members[only[scope.members[:, 0]] != 0])
        return self._chosen[key]

    def _transfer(
        self,
        each: Round,
        times: int,
        scope: Groups,
        demand: Demand,
        loads: LinkLoads,
        factor: float | None,
        posted: MessageTimes | None,
    ) -> Transfer:
        further = max(0, each.messages(scope.members.shape[1]) - 1)
        return Transfer(demand, loads, factor, times, self.machine.calibration.message_overhead, further, posted)

    def _posted(self, each: Round, step: int, scope: Groups, nbytes: float, first: bool) -> MessageTimes | None:
        """What the largest messages of a step, of ``nbytes``, cost beside links; None where latencies and overheads are all."""
        costs, groups = self.costs, scope.members
        if not costs.measured:
            return MessageTimes(None, 0.0, costs.burst, first) if costs.burst else None
        if scope not in self._farthest:
            node = self.layout.node[groups]
            level = costs.levels(node[:, :1], node)
            group, member = np.unravel_index(int(level.argmax()), level.shape)
            self._farthest[scope] = node[group, :1], node[group, member : member + 1]
        position = _positions(each, groups, step) if not each.everyone else np.arange(groups.shape[1])
        sends = position >= 0
        way = BOTH if (sends & np.isin(np.arange(len(position)), position[sends])).any() else ONE
        start, rate = costs.start(*self._farthest[scope], np.array([nbytes]), way)
        return MessageTimes(float(start[0]), nbytes / float(rate[0]), costs.burst, first)


def _rated(unit: tuple[Demand, LinkLoads], kinds: tuple[LinkKind, ...]) -> tuple[Demand, LinkLoads]:
    """The same flows on the same links at the rates of these kinds."""
    demand, loads = unit
    capacity = {kind.name: kind.capacity for kind in kinds}
    rates = np.array([capacity[name] for name in demand.names])
    return replace(demand, capacity=rates), LinkLoads(kinds, loads.loads)


def _positions(each: Round, groups: Index, step: int) -> Index:
    """The position in its group that each member sends to at a step, -1 where none."""
    size = groups.shape[1]
    return each.pattern.targets(np.arange(size), size, step)


def _targets(each: Round, groups: Index, step: int) -> Index:
    """The same as ranks, ``[groups, size]``."""
    position = _positions(each, groups, step)
    return np.where(position >= 0, groups[:, position], -1)
