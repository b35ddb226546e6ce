"""What every benchmark shares: the machine's description, interleaved timing, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rdolib import _kernels

RESULTS = Path(__file__).parent / "results"


def hardware(*peers: str) -> dict[str, Any]:
    """Processor, cores, caches and versions, those of the peers too: without them a number means nothing."""
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.partition(":") for line in info.read_text().splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        cpu = f"{fields.get('model name', cpu)}, family {fields.get('cpu family')}, model {fields.get('model')}"
        flags = " ".join(sorted(set(fields.get("flags", "").split()) & {"avx2", "avx512f", "fma"}))
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        caches[f"L{level} {kind.lower()}"] = size
    packages = ("numpy", "numba", "llvmlite", "scipy", *peers)
    return {
        "cpu": cpu,
        "vector_instructions": flags,
        "caches": caches,
        "threads": _kernels.n_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "load_average": list(os.getloadavg()),
        "commit": commit(),
    }


def commit() -> str:
    """The commit that was measured, with a plus sign if files differ from it."""
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=RESULTS.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()


def interleave(
    contenders: dict[str, Callable[[], object]],
    turns: int,
    calls: int = 1,
    start: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Seconds per call of each contender: median, least and greatest over all calls.

    Everybody warms up once; then all take turns, so that a slow spell of the machine meets everybody. A turn
    is `start` (not timed), then `calls` calls, each timed.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        start()
        call()
    for _ in range(turns):
        for name, call in contenders.items():
            start()
            for _ in range(calls):
                begun = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begun)
    return {name: {"median": float(np.median(t)), "least": min(t), "greatest": max(t)} for name, t in times.items()}


def save(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/<name>.json``, floats at six significant digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(item) for item in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(rounded(result), indent=2) + "\n", encoding="utf8")
    return path
