"""What a benchmark ran on and with, and how its runs are put side by side."""

import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ["torch", "transformers", "trl", "onnxruntime"]


def facts():
    """Machine, versions and load, for the JSON."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    flags = next((line.split() for line in info.splitlines() if line.startswith("flags")), [])
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load average is {load:.2f}; measure on an idle machine", file=sys.stderr)
    return {"processor": model or platform.processor(), "cores": os.cpu_count(),
            "instructions": [flag for flag in flags if flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni")],
            "system": platform.platform(terse=True), "load": round(load, 2), "versions": versions(),
            "commit": commit()}


def versions():
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def commit():
    here = Path(__file__).parent
    result = subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return result.stdout.strip()


def measured(command):
    """Runs a command to its end; its peak resident memory in MiB."""
    command = [str(word) for word in command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}\n{errors[-2000:]}")
    return usage.ru_maxrss / 1024


def has_low_precision(machine):
    """Whether Kudos has bf16 and int8 on this processor; on others it computes in f32 alone."""
    return {"avx512_bf16", "avx512_vnni"} <= set(machine["instructions"])


def row(work, peer, unit, kudos, theirs, target, higher_is_better=True):
    """One line of a table: medians, and the median of the ratios within each round (above 1: Kudos is better)."""
    pairs = list(zip(kudos, theirs))
    ratios = [k / t if higher_is_better else t / k for k, t in pairs]
    found = {"work": work, "peer": peer, "unit": unit, "kudos": statistics.median(kudos),
             "peer_value": statistics.median(theirs), "ratio": statistics.median(ratios), "target": target,
             "rounds": len(pairs)}
    print(f"{work} | {peer} | Kudos {found['kudos']:.4g} {unit} | peer {found['peer_value']:.4g} | "
          f"{found['ratio']:.2f}x (target {target})", flush=True)
    return found
