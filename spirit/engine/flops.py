"""How much of what a device can do a training does: model FLOPs utilization (MFU)."""

import re
import time

import torch

# TFLOP/s of dense products in bfloat16 with sums in float32, from the makers' data sheets; "H100"
# stands behind its slower kinds.
PEAKS = {
    "GB200": 2_500.0,
    "B200": 2_250.0,
    "GH200": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A40": 149.7,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI300X": 1_307.0,
    "MI250X": 383.0,
}


class Utilization:
    """Turns FLOPs and seconds into a share of what the devices of a training can do."""

    def __init__(
        self, formula: str, device: torch.device, dtype: str, tflops: float, devices: int
    ) -> None:
        """`formula` says what is counted; `tflops` is a device's peak, 0 to find it out."""
        self.devices = devices
        self.peak, origin = (tflops, "training.peak_tflops") if tflops else _peak(device, dtype)
        self.said = (
            f"MFU = ({formula}) / seconds / ({devices} x {self.peak:,.3g} TFLOP/s: {origin})"
            if self.peak
            else f"no MFU: the peak of {origin} is not known; training.peak_tflops says it"
        )

    def share(self, flops: float, seconds: float) -> float | None:
        """The MFU, of 1; None where no peak is known."""
        return flops / seconds / (self.devices * self.peak * 1e12) if self.peak else None


def _peak(device: torch.device, dtype: str) -> tuple[float, str]:
    """(TFLOP/s, where that figure comes from)."""
    if device.type == "cpu":
        return _measured(torch.float32 if dtype == "fp32" else torch.bfloat16)
    name = torch.cuda.get_device_name(device)
    found = next((p for known, p in PEAKS.items() if re.search(rf"\b{known}\b", name)), 0.0)
    return found, f"{name}, dense bf16 by its data sheet" if found else name


def _measured(dtype: torch.dtype) -> tuple[float, str]:
    size, best = 1_024, float("inf")
    left, right = torch.ones(2, size, size, dtype=dtype).unbind()
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
    name = str(dtype).removeprefix("torch.")
    return 2 * size**3 / best / 1e12, f"{size} x {size} products in {name}, measured here"
