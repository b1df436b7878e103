"""The device that is measured: found by its name, what the system says of it, and the precisions that it computes in."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError, suggestion
from ...hardware.precisions import BYTES, Precision
from ...workloads.lowering.simulator_memory import available_bytes
from ..calibration.compute import cache

TYPES: dict[Precision, str] = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "float8_e4m3fn",
}
"""PyTorch's names of the number formats."""

USUAL: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "fp8")
"""What is measured where no precision is named and the device has it."""

UNKNOWN_CACHE = 64 << 20
"""Bytes that are taken for the last cache where nothing tells it."""

PROBE = 64
"""Sides of the product that shows whether the device has a precision."""

TRIAL, TRIALS, SLOWER = {"cpu": 512, "cuda": 4096}, 4, 0.8
"""Sides and number of the products that show whether it is fast, and the share of a wider precision's rate that it must have."""


def torch_module() -> Any:
    """PyTorch; raises :class:`InputError` that says what to install where there is none."""
    try:
        return import_module("torch")
    except ImportError:
        raise InputError(
            "--accelerator: needs PyTorch, which is not installed: pip install 'athanor[accelerator]'"
        ) from None


@dataclass(frozen=True)
class MeasuredDevice:
    """A device that PyTorch computes on: ``kind`` is ``cpu`` or ``cuda`` (ROCm's name as well), ``index`` its number."""

    torch: Any
    kind: str
    index: int = 0

    @classmethod
    def named(cls, name: str | None, threads: int | None = None) -> MeasuredDevice:
        """The device of a name, or the first GPU, or else the processor, with so many ``threads``.

        Raises :class:`InputError` where there is no such device.
        """
        torch = torch_module()
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        known = ["cpu", *(f"cuda:{number}" for number in range(count))]
        wanted = name or known[min(1, count)]
        wanted = "cuda:0" if wanted == "cuda" else wanted
        if wanted not in known:
            raise InputError(
                f"--device {name}: torch {torch.__version__} has no such device{suggestion(wanted, known)}"
            )
        kind, _, number = wanted.partition(":")
        if threads is not None:
            if kind != "cpu":
                raise InputError(f"--threads {threads}: is for --device cpu, not {wanted}")
            if not 1 <= threads <= 4096:
                raise InputError(f"--threads {threads}: must lie in 1 to 4096")
            torch.set_num_threads(threads)
        return cls(torch, kind, int(number or 0))

    def __str__(self) -> str:
        """As PyTorch names it."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def dtype(self, precision: Precision) -> Any:
        """PyTorch's type of a precision."""
        return getattr(self.torch, TYPES[precision])

    @cached_property
    def properties(self) -> Any:
        """What CUDA says of the device."""
        return self.torch.cuda.get_device_properties(self.index)

    @property
    def model(self) -> str:
        """The device's own name."""
        return processor_name() if self.kind == "cpu" else str(self.properties.name)

    @property
    def words(self) -> str:
        """The device in words, for sources."""
        threads = f", {self.processors} thread{'s' if self.processors > 1 else ''}" if self.kind == "cpu" else ""
        return f"{self.model}{threads}"

    @property
    def processors(self) -> int:
        """Multiprocessors, or threads."""
        return int(self.torch.get_num_threads() if self.kind == "cpu" else self.properties.multi_processor_count)

    @property
    def clock(self) -> float:
        """Hertz; 0 where nothing tells them."""
        return 1e3 * float(getattr(self.properties, "clock_rate", 0.0)) if self.kind == "cuda" else 0.0

    @property
    def memory(self) -> float:
        """Bytes."""
        if self.kind == "cuda":
            return float(self.properties.total_memory)
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    @property
    def last_cache(self) -> int:
        """Bytes of the cache next to the memory."""
        if self.kind == "cuda":
            return int(getattr(self.properties, "L2_cache_size", 0)) or UNKNOWN_CACHE
        return max(cache(2), cache(3)) or UNKNOWN_CACHE

    @property
    def local_memory(self) -> float:
        """Bytes of a multiprocessor's shared memory, or of a core's second cache; 0 where nothing tells them."""
        if self.kind == "cuda":
            return float(getattr(self.properties, "shared_memory_per_multiprocessor", 0))
        return float(cache(2))

    def free(self) -> int:
        """Bytes that are free now, with those that PyTorch keeps for what comes next."""
        if self.kind == "cpu":
            return int(available_bytes())
        cuda = self.torch.cuda
        kept = cuda.memory_reserved(self.index) - cuda.memory_allocated(self.index)
        return int(cuda.mem_get_info(self.index)[0]) + int(kept)

    def precisions(self, named: str | None) -> list[Precision]:
        """The precisions of a comma-separated list, or the usual ones that the device is fast in, widest first.

        Raises :class:`InputError` for one that does not exist or that the device lacks.
        """
        if named is None:
            return self._fast()
        wanted: list[Precision] = []
        for text in dict.fromkeys(part.strip() for part in named.split(",")):
            found = next((kind for kind in TYPES if kind == text), None)
            if found is None:
                raise InputError(f"--precision {named}: {text or 'nothing'} is no precision{suggestion(text, TYPES)}")
            if self.rate(found, PROBE) is None:
                raise InputError(
                    f"--precision {named}: torch {self.torch.__version__} has no {text} products on {self}"
                )
            wanted.append(found)
        if wanted == ["fp8"]:
            raise InputError("--precision fp8: only products are computed in it; name another one beside it")
        return sorted(wanted, key=lambda kind: -BYTES[kind])

    def _fast(self) -> list[Precision]:
        """The usual precisions, but for those that are slower than a wider one: a library only imitates them."""
        rates: dict[Precision, float] = {}
        for kind in USUAL:
            rate = self.rate(kind, TRIAL[self.kind])
            wider = [rates[known] for known in rates if BYTES[known] > BYTES[kind]]
            if rate is not None and rate > SLOWER * max(wider, default=0.0):
                rates[kind] = rate
        return list(rates)

    def rate(self, precision: Precision, side: int) -> float | None:
        """FLOP/s of a square product in a precision, the best of some; None where the device has none such."""
        torch, times = self.torch, []
        with suppress(RuntimeError, AttributeError, NotImplementedError, TypeError):
            a = torch.ones(side, side, device=str(self)).to(self.dtype(precision))
            multiply = multiplier(self, precision)
            for _ in range(TRIALS):
                begin = time.perf_counter()
                multiply(a, a)
                if self.kind == "cuda":
                    torch.cuda.synchronize(self.index)
                times.append(time.perf_counter() - begin)
            return 2.0 * side**3 / max(min(times), 1e-9)
        return None

    def about(self) -> dict[str, Any]:
        """What tells these samples from others: a resumed calibration takes only those of the same."""
        return {
            "device": f"{self}, {self.model}",
            "torch": str(self.torch.__version__),
            "cuda": self.torch.version.cuda or self.torch.version.hip if self.kind == "cuda" else None,
            "threads": self.processors if self.kind == "cpu" else None,
            "fp32": str(self.torch.get_float32_matmul_precision()),
            "host": platform.node(),
        }


def multiplier(device: MeasuredDevice, precision: Precision) -> Callable[[Any, Any], Any]:
    """What computes A · Bᵀ in a precision: in eighths with scales of one, into bf16."""
    torch = device.torch
    if precision != "fp8":
        return lambda a, b: torch.mm(a, b.t())
    one = torch.ones((), device=str(device))
    return lambda a, b: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def processor_name() -> str:
    """What the system calls the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
