"""Which device computes, and in which type of numbers."""

from typing import Literal

from maskdpo.errors import UserError

Dtype = Literal["auto", "float32", "bfloat16"]

DEVICES = ("cpu", "cuda", "mps")


def compute_type(dtype: Dtype, device: str) -> Literal["float32", "bfloat16"]:
    """The type to compute in. ``auto`` is bfloat16 where the hardware computes in it, which halves time and memory."""
    import torch

    if dtype == "bfloat16" and device.startswith("mps") and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("`dtype` bfloat16: on mps torch computes in it from macOS 14 on; use `dtype` float32")
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported()
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = device == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def default_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_device(name: str | None) -> str:
    """The named device, or without a name the best one of this machine.

    Raises:
        UserError: there is no such device.
    """
    if name is None:
        return default_device()
    import torch

    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())) or name.endswith(":"):
        raise UserError(f"`device` {name}: no such device; there are cpu, cuda, cuda:N and mps")
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if here <= int(number or 0):
        found = f"torch sees {here} of them here" if number else "torch sees none here"
        raise UserError(f"`device` {name}: {found}; without `device` it would be {default_device()}")
    return name
