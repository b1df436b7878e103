"""What would make a plan fit, and the command that tells."""

import json

import pytest
from athanor.cli import cli
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.workloads import memory as memory_of
from athanor.workloads.memory import memory, remedies, require_fit, sample_loads
from click.testing import CliRunner
from support.memory_settings import GB, gpt, gpus, moe, need, setting
from support.paths import ROOT

# --- what would make it fit ----------------------------------------------------------------------------------------------


def plans():
    """Plans that do not fit, each for another reason."""
    large = gpt(32, 4096, 32)
    yield large, gpus(8 * GB), {"mesh": {"dp": 64}, "tokens_per_rank": 2048}
    yield large, gpus(40 * GB), {"mesh": {"dp": 8, "tp": 4}, "tokens_per_rank": 16384, "micro_batch": 8}
    yield large, gpus(16 * GB, host=2048 * GB), {"mesh": {"dp": 8}, "global_batch": 64}
    yield moe(layers=24, hidden=1024, expert_hidden=8192, experts=64), gpus(8 * GB), {"mesh": {"ep": 8, "dp": 8}}


@pytest.mark.parametrize(("model", "machine", "options"), list(plans()))
def test_remedies_are_plans_that_fit(model, machine, options):
    here = setting(model, machine, **options)
    loads = sample_loads(here)
    assert not memory(here, loads).fits
    found = [remedy for remedy, _ in zip(remedies(here, loads), range(6), strict=False)]
    assert found, "there is a way"
    for remedy in found:
        again = {**options, **remedy.options}
        other = need(model, machine, **again)
        assert other.fits and other.total == pytest.approx(remedy.need.total), remedy.flags
        assert setting(model, machine, **again).mesh.ranks == here.mesh.ranks


def test_nothing_is_advised_that_contradicts():
    """A pipeline takes --zero 1 and nothing beyond; without tp there is no sequence parallelism."""
    here = setting(gpt(32, 4096, 32), gpus(1 * GB), mesh={"pp": 4, "dp": 2}, tokens_per_rank=8192, micro_batch=1)
    with pytest.raises(DoesNotFit, match=r"on stage 0: .*no change of --zero"):
        require_fit(here, [], memory(here, []))


# --- the command -------------------------------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(cli, ["memory", *words])


FITS = ("--machine", "sunway-oceanlight", "--model", "moda-14.5t")


def test_the_command_tells_what_fits():
    done = run(*FITS)
    assert done.exit_code == 0 and "fits: 35." in done.output and "moe.activation" in done.output
    plain = json.loads(run(*FITS, "--json", "-").stdout)
    assert plain["fits"] and plain["remedies"] == [] and plain["host_bytes"] == {"total": 0.0, "capacity": None}
    mine = [line["bytes"] for line in plain["lines"] if not line["host"]]
    assert sum(mine) == pytest.approx(plain["memory_per_rank_bytes"]["total"])
    assert len(plain["stages"]) == 1 and plain["stages"][0]["layers"] == 10


def test_the_command_prints_what_helps_and_raises():
    done = run(*FITS, "--zero", "0", "--json", "-")
    assert isinstance(done.exception, DoesNotFit)
    plain = json.loads(done.stdout)
    assert plain["remedies"][0]["change"] == "--zero hierarchical"
    assert plain["remedies"][0]["memory_per_rank_bytes"]["total"] < 96e9
    assert "What would make it fit" in run(*FITS, "--zero", "0").output
    assert isinstance(run(*FITS, "--zero", "7").exception, InputError)


def test_every_key_of_the_output_is_explained():
    page = (ROOT / "docs" / "formats" / "memory.md").read_text()
    plain = json.loads(run(*FITS, "--zero", "0", "--json", "-").stdout)
    keys = [*plain, *plain["memory_per_rank_bytes"], *plain["host_bytes"]]
    for key in [*keys, *plain["stages"][0], *plain["lines"][0], *plain["remedies"][0]]:
        assert f"`{key}`" in page, key


def test_an_interruption_leaves_what_was_found(monkeypatch):
    def cut_short(setting, loads):
        yield from (remedy for remedy, _ in zip(remedies(setting, loads), range(1), strict=False))
        raise KeyboardInterrupt

    monkeypatch.setattr(memory_of, "remedies", cut_short)
    done = run(*FITS, "--zero", "0")
    assert done.exit_code == 1 and "--zero hierarchical" in done.stdout, "click tells of the interruption"
