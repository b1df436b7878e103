"""Tokens that go once to each node that wants them, and are handed on there: what is left of an exchange's bytes."""

from __future__ import annotations

from math import prod

import numpy as np

from ...plan.setting import Setting


def distinct(experts: float, nodes: float, top_k: int) -> float:
    """Nodes that the experts of a token lie on, in the mean of uniform choices without replacement.

    A node has its share of the ``experts``; it is missed by all choices with the chance that they are all of others.
    """
    others = experts - experts / nodes
    missed = prod(max(0.0, (others - chosen) / (experts - chosen)) for chosen in range(top_k))
    return nodes * (1.0 - missed)


def node_share(setting: Setting, axes: tuple[str, ...]) -> float:
    """The bytes of an exchange of tokens that count where each token is sent once to a node, over those of all its copies.

    Between nodes it goes to the rank of the same place, which hands it on to those that have its experts: bytes within a node are
    as many as without, and run beside those between nodes. The slower of both holds the exchange up. With ``--route-nodes M``
    the experts of a token lie on M nodes at most. On one node nothing is saved.

    Source: DeepSeek-AI 2024 (DeepSeek-V3), sections 2.1.2 and 3.2.2; DeepEP.
    """
    plan, layout, node = setting.plan, setting.layout, setting.machine.node
    home = layout.node[layout.groups(axes)]
    nodes = int(np.max([len(np.unique(group)) for group in np.unique(home, axis=0)]))
    if nodes == 1:
        return 1.0
    members = home.shape[1] / nodes
    limit = min(nodes, plan.route_nodes or nodes)
    between = distinct(setting.model.experts * limit / nodes, limit, setting.top_k) * (nodes - 1) / nodes
    copies = setting.top_k * (nodes - 1) / nodes
    inside = setting.top_k * (members - 1) / members
    rate = setting.machine.injection / setting.ranks_per_node
    port = node.ring_bandwidth * (node.inside_all_to_all or 1.0)
    far = rate * (node.network_all_to_all or 1.0)
    return float(min(1.0, max(between, inside * far / port) / copies))
