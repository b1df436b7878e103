"""Which links a result lists as used."""

import numpy as np
import pytest
from athanor.hardware.fabrics.fabric import LinkKind
from athanor.sim.network.links import LinkLoads
from athanor.sim.simulate import _links


@pytest.mark.parametrize(("dust", "counted"), [(1e-7, False), (1e-5, True)])
def test_what_rounding_leaves_on_links_is_no_use(dust, counted):
    """Time decides, not bytes: a slow link is used by bytes that a fast one would not be."""
    kinds = LinkKind("nic.out", 10.0, 3, "nic"), LinkKind("trunk.out", 1000.0, 1, "trunk")
    loads = LinkLoads(kinds, {"nic.out": np.array([10.0, 0.0, 10.0 * dust]), "trunk.out": np.array([1000.0 * dust])})
    rows = {row.kind: row for row in _links(loads, 2.0, 1)}
    assert (rows["nic.out"].links, rows["nic.out"].max_utilisation) == (1 + counted, 0.5)
    assert ("trunk.out" in rows) == counted
    assert rows["nic.out"].mean_utilisation == pytest.approx(0.5 if not counted else (1 + dust) / 4)
