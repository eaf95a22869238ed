"""Is there a usable GPU? Asked in a process of its own, so that a sick driver takes nobody along.

The calling process imports no library of CUDA and opens no device: one that has initialised CUDA must not be forked
any more. The questions are in `device_probe.py`; the child says before each what it is about to do, so that one that
hangs or crashes has told where.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from service.runtimes.spawn import command, environment

# CUDA compiles cupy's kernels at the first start, cuML imports for seconds, and a driver may have to wake up first.
TIMEOUT_S: Final = 120.0

# Libraries print what they like; only lines that begin so are the child's.
MARK: Final = "tandem-device: "


@dataclass(frozen=True, slots=True)
class Device:
    """The first device that CUDA shows, and whether it can be used; `reason` is a sentence for an operator.

    `count` is of the devices that are visible, `memory_bytes` all that the device has. What is not known is
    empty or zero.
    """

    count: int = 0
    name: str = ""
    compute_capability: str = ""
    driver: str = ""
    memory_bytes: int = 0
    usable: bool = False
    reason: str = ""


def probe(timeout_s: float = TIMEOUT_S, variables: Mapping[str, str] | None = None) -> Device:
    """What there is. Never raises: whatever goes wrong is the reason. `variables` are for the child's environment."""
    try:
        done = subprocess.run(
            command("service.runtimes.device_probe"),
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        device, stage = _heard(late.stdout or b"")
        return replace(device, usable=False, reason=f"the GPU did not answer within {timeout_s:g} s: {stage} hangs")
    except OSError as error:
        return Device(reason=f"the probe could not be started: {error}")
    device, stage = _heard(done.stdout)
    if done.returncode == 0 and device.reason:
        return device
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return replace(device, usable=False, reason=": ".join([f"{stage} ended the probe ({how})", *last]))


def _heard(output: bytes) -> tuple[Device, str]:
    """The last that the child said, and what it was about to do."""
    device, stage = Device(), "starting the probe"
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(MARK):
            try:
                said = json.loads(line.removeprefix(MARK))
            except ValueError:  # cut in the middle, by its end
                continue
            device, stage = Device(**said["device"]), said["stage"]
    return device, stage
