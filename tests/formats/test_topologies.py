"""Topologies of Slurm, nvidia-smi and hwloc as machines, and in one line what they do not say or cannot be."""

import pytest
from athanor import InputError, load_machine, read_hwloc, read_nvidia_topo, read_slurm
from athanor.reports.formats.kinds import Asked
from athanor.reports.formats.machines.host_lists import hosts
from athanor.reports.formats.writing import files_of
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import athanor

CONF = """# three levels
SwitchName=core Switches=spine[0-1]
SwitchName=spine0 Switches=leaf[0-2]
SwitchName=spine1 Switches=leaf[3-5]   # second half
SwitchName=leaf0 Nodes=node[000-015]
SwitchName=leaf1 Nodes=node[016-031] LinkSpeed=400
SwitchName=leaf2 Nodes=node[032-047]
SwitchName=leaf3 Nodes=node[048-063]
SwitchName=leaf4 Nodes=node[064-079]
SwitchName=leaf5 Nodes=node[080-087]
"""
YAML = """---
- topology: main
  cluster_default: true
  tree:
    switches:
      - switch: top
        children: s[1-2]
      - switch: s1
        nodes: node[01-04]
      - switch: s2
        nodes: node[05-08]
- topology: other
  flat: true
"""
BLOCKS = """- topology: racks
  block:
    block_sizes: [18, 36]
    blocks:
      - {block: b1, nodes: "n[01-18]"}
      - {block: b2, nodes: "n[19-36]"}
"""


def written(folder, text, name):
    file = folder / name
    file.write_text(text)
    return file


EOS = Asked(machine="eos-h100")


@pytest.mark.parametrize(
    ("text", "name", "downs", "nodes"),
    [
        (CONF, "topology.conf", [16, 3, 2], 88),
        (YAML, "topology.yaml", [4, 2], 8),
        (BLOCKS, "topology.yaml", [18, 2], 36),
    ],
)
def test_slurms_switches_are_the_tiers_of_a_fat_tree(text, name, downs, nodes, tmp_path):
    machine = read_slurm(written(tmp_path, text, name), EOS)
    assert [tier.down for tier in machine.fabric.tiers] == downs
    assert machine.nodes == nodes
    assert machine.node == load_machine("eos-h100").node
    (target, toml), *_ = files_of(machine, tmp_path / "m.toml").items()
    target.write_text(toml)
    assert load_machine(target) == machine
    assert machine.source("fabric.tiers.0.down") == f"{name} of Slurm"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("node[016-031]", "node[016-030]", "switch leaf1 leads to 15, others of its level to 16"),
        ("node[016-031]", "node[015-030]", "node node015 is below two switches"),
        ("Switches=leaf[3-5]", "Switches=leaf[2-4]", "switch leaf2 is below two others"),
        ("Switches=leaf[3-5]", "Switches=leaf[3-6]", "switch leaf6 is named but not described"),
        ("Switches=spine[0-1]", "Switches=spine0", "has 2 switches that no other leads to"),
        ("node[080-087]", "node[087-080]", "must be a number or a range"),
        ("LinkSpeed", "Speed", "no such key of a switch"),
        ("node[000-015]", "node[1-999999999]", "names more than 1,000,000 hosts"),
    ],
)  # fmt: skip
def test_a_tree_that_is_none_is_refused_by_the_switch(old, new, said, tmp_path):
    done = athanor("import", "slurm", written(tmp_path, CONF.replace(old, new), "t.conf"), "--machine", "eos-h100")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def matrix(gpus, cell, cards=0):
    heads = [f"GPU{n}" for n in range(gpus)] + [f"NIC{n}" for n in range(cards)]
    rows = []
    for row in range(gpus):
        cells = ["X" if row == n else cell(row, n) for n in range(gpus)] + [
            "PIX" if row == n else "SYS" for n in range(cards)
        ]
        rows.append("\t".join([f"GPU{row}", *cells, "0-55", "0", "N/A"]))
    rows += [f"NIC{n}\t" + "\t".join(["SYS"] * (gpus + cards)) for n in range(cards)]
    return (
        "\t"
        + "\t".join([*heads, "CPU Affinity", "NUMA Affinity"])
        + "\n"
        + "\n".join(rows)
        + "\n\nLegend:\n\n  X = Self\n"
    )


def test_a_switch_of_nvlink_is_told_from_direct_links(tmp_path):
    through = read_nvidia_topo(written(tmp_path, matrix(8, lambda *_: "NV18", 8), "h100.txt"), EOS).node
    assert (through.core_groups, through.inside, through.interfaces, through.cards) == (8, "switch", 8, "own")
    assert through.ring_bandwidth == 18 * 25e9
    direct = read_nvidia_topo(written(tmp_path, matrix(4, lambda *_: "NV4", 2), "a100.txt"), EOS).node
    assert (direct.core_groups, direct.inside, direct.interfaces, direct.cards) == (4, "links", 2, "shared")
    assert direct.ring_bandwidth == 12 * 25e9
    faster = Asked(machine="eos-h100", defined={"link_bandwidth": "50 GB/s"})
    assert read_nvidia_topo(tmp_path / "h100.txt", faster).node.ring_bandwidth == 18 * 50e9


def test_gpus_that_are_not_joined_alike_are_refused(tmp_path):
    uneven = matrix(4, lambda row, column: "NV2" if {row, column} == {0, 1} else "NV1")
    with pytest.raises(InputError, match="GPU2 has 3 links to others, some GPUs 4"):
        read_nvidia_topo(written(tmp_path, uneven, "uneven.txt"), EOS)
    with pytest.raises(InputError, match="is no matrix"):
        read_nvidia_topo(written(tmp_path, "hello", "x.txt"), EOS)


HWLOC = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0">
    {packages}
  </object>
</topology>
"""
PACKAGE = """<object type="Package"><object type="NUMANode" os_index="0" local_memory="{memory}"/><object type="L3Cache" cache_size="1">{cores}
 </object>{devices}</object>"""
CORES = '<object type="Core"><object type="PU"/><object type="PU"/></object>'
DEVICES = """<object type="Bridge"><object type="PCIDev"><object type="OSDev" name="{gpu}" osdev_type="5"/></object>
<object type="PCIDev"><object type="OSDev" name="{card}" osdev_type="3"/><object type="OSDev" name="ib0" osdev_type="2"/></object></object>"""


def hwloc(cores=(4, 4), gpus=0):
    packages = [
        PACKAGE.format(memory=64 * 2**30, cores=CORES * count, devices=DEVICES.format(gpu=f"cuda{n}" if n < gpus else "fb0", card=f"mlx5_{n}"))
        for n, count in enumerate(cores)
    ]  # fmt: skip
    return HWLOC.format(packages="".join(packages))


def test_hwlocs_numa_nodes_or_gpus_are_core_groups(tmp_path):
    plain = read_hwloc(written(tmp_path, hwloc(), "node.xml"), Asked(machine="laptop"))
    assert (plain.node.core_groups, plain.core_group.compute_cores, plain.node.interfaces) == (2, 4, 2)
    assert plain.core_group.memory == 64 * 2**30
    with_gpus = read_hwloc(written(tmp_path, hwloc(gpus=2), "node.xml"), EOS)
    assert (with_gpus.node.core_groups, with_gpus.node.host_memory) == (2, 128 * 2**30)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (hwloc((4, 5)), "NUMA nodes have 4, 5 cores; must be alike"),
        ("<other/>", "the root is <other>"),
        ('<!DOCTYPE topology [<!ENTITY a "b">]><topology>&a;</topology>', "declares an entity, 'a'"),
        ("<topology>", "not an XML file"),
        ("<topology>" + "<object>" * 200 + "</object>" * 200 + "</topology>", "nests deeper than 100"),
        ('<topology version="3.0"/>', "version is 3.0"),
    ],
)  # fmt: skip
def test_what_is_no_node_is_refused(text, said, tmp_path):
    with pytest.raises(InputError, match=said):
        read_hwloc(written(tmp_path, text, "node.xml"), Asked(machine="laptop"))


@given(st.integers(0, 900), st.integers(0, 50), st.integers(1, 4))
def test_host_lists_are_slurms(first, more, digits):
    found = hosts(f"a[{first:0{digits}d}-{first + more}],b,c[1-2]d[3,5]")
    assert found[: more + 1] == [f"a{number:0{digits}d}" for number in range(first, first + more + 1)]
    assert found[more + 1 :] == ["b", "c1d3", "c1d5", "c2d3", "c2d5"]


@given(st.text(alphabet="ab[]-,0123 ", max_size=30))
def test_any_host_list_is_read_or_refused(text):
    try:
        assert len(hosts(text)) <= 1_000_000
    except ValueError as wrong:
        assert str(wrong)
