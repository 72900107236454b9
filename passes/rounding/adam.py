"""Adam whose state can be kept and taken up again, with the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array

if TYPE_CHECKING:
    import torch


class Adam:
    """torch's Adam (Kingma and Ba 2015) with a rate for each tensor."""

    def __init__(self, rates: Sequence[tuple[torch.Tensor, float]]) -> None:
        import torch

        self._tensors = [tensor for tensor, _ in rates]
        self._rates = [rate for _, rate in rates]
        self._adam = torch.optim.Adam([{"params": [t], "lr": r} for t, r in rates])
        self._done = 0

    def step(self, loss: torch.Tensor, share: float = 1.0) -> None:
        """One step down the gradient of `loss`, at this share of the rates."""
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self._done += 1

    def arrays(self) -> dict[str, Array]:
        """Tensors, moments and the number of steps."""
        found: dict[str, Array] = {"done": np.asarray(self._done)}
        for i, tensor in enumerate(self._tensors):
            state = self._adam.state[tensor]
            found[f"{i}/value"] = tensor.detach().numpy()
            found |= {f"{i}/{name}": state[name].numpy() for name in ("exp_avg", "exp_avg_sq")}
        return found

    def load(self, arrays: Mapping[str, Array] | None) -> int:
        """Go on from `arrays`; the steps done, 0 without any."""
        import torch

        if arrays is None:
            return 0
        self._done = int(arrays["done"])
        for i, tensor in enumerate(self._tensors):
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(arrays[f"{i}/value"]))
            moments = {name: torch.from_numpy(arrays[f"{i}/{name}"]) for name in ("exp_avg", "exp_avg_sq")}
            self._adam.state[tensor] = {"step": torch.tensor(float(self._done)), **moments}
        return self._done
