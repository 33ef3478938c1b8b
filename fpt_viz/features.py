"""What the output layer reads, where it alone learns: computed once for each training example, and kept.

Nothing before the output layer changes then, so a step needs no pass through the backbone. Without dropout, which would
make each pass another one: the paper's own output-only runs (Lu et al., 2021, section 3.9) reuse features likewise.
"""

from __future__ import annotations

from hashlib import blake2b

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.config import TrainConfig
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task
from fpt_viz.tasks.base import sent

BATCH = 64
"""Examples in one forward pass."""
BUDGET_BYTES = 2 << 30
"""The most that a training split may take, inputs and features, to be kept."""
N_PROBED = 32
"""Random examples that must be among the kept ones: augmented images are not, so nothing would be found again."""


class Features:
    """The states that the output layer of ``model`` reads, for the examples of ``task``.

    Kept for the whole training split where it is small enough and will be seen through at least once; always computed
    in the same batches, so that a run which is resumed ends with the same weights. Other examples are computed when
    asked for. The model's weights before the output layer must not change.
    """

    def __init__(self, model: FrozenPretrainedTransformer, task: Task) -> None:
        self.model, self.task = model, task
        self._row: dict[bytes, int] = {}
        self._kept: Tensor | None = None
        self._checked: dict[tuple[int, str], tuple[Tensor, Batch]] = {}

    @classmethod
    def of(cls, model: FrozenPretrainedTransformer, task: Task, config: TrainConfig) -> Features | None:
        """Those for a training run; None where more than the output layer learns, or ``config`` asks for dropout.

        Cost: a forward pass over the training split where it is kept.
        """
        learns = {name for name in model.trained_tensors() if not name.startswith("output.")}
        if learns or not config.cache_features or config.dropout:
            return None
        found = cls(model, task)
        n_train = task.n_examples("train")
        if n_train is not None and n_train <= config.n_steps * config.batch_size and found._fits(n_train):
            found._keep_all(n_train)
        return found

    @property
    def n_kept(self) -> int:
        """Training examples whose features are kept."""
        return len(self._row)

    def __call__(self, batch: Batch) -> Float[Tensor, "batch readout hidden"]:
        """The features of ``batch``; without a gradient."""
        if self._kept is None:
            return self._computed(batch)
        rows = torch.tensor([self._row.get(key, -1) for key in _keys(batch)])
        missing = rows < 0
        found = self._kept[sent(rows, self._kept.device)]
        if bool(missing.any()):
            found[missing.to(found.device)] = self._computed(batch[missing])
        return found

    def of_split(self, n_examples: int, split: str) -> tuple[Float[Tensor, "batch readout hidden"], Batch]:
        """Distinct examples of a split, on the model's device, and their features; kept from the first call on."""
        if (n_examples, split) not in self._checked:
            batch = self.task.distinct(n_examples, split)
            self._checked[n_examples, split] = self._computed(batch), batch.to(self._device)
        return self._checked[n_examples, split]

    @property
    def _device(self) -> torch.device:
        return self.model.output.weight.device

    def _fits(self, n_train: int) -> bool:
        n_values = self.task.n_tokens * (self.task.n_values or 2) + self.task.n_readout * self.model.backbone.d_model
        return 4 * n_train * n_values <= BUDGET_BYTES

    def _keep_all(self, n_train: int) -> None:
        """Keep the features of the training split, unless what is drawn from it is something else each time."""
        batch = self.task.distinct(n_train, "train")
        row = {key: i for i, key in enumerate(_keys(batch))}
        drawn = self.task.sample(N_PROBED, torch.Generator().manual_seed(0))
        if all(key in row for key in _keys(drawn)):
            self._row, self._kept = row, self._computed(batch)

    def _computed(self, batch: Batch) -> Float[Tensor, "batch readout hidden"]:
        with inspecting(self.model):
            parts = [batch[start : start + BATCH].trimmed().to(self._device) for start in range(0, len(batch), BATCH)]
            return torch.cat([self.model.features(part.inputs, part.mask) for part in parts])


def _keys(batch: Batch) -> list[bytes]:
    """One key an example, by the values of its real tokens: 128 bits of a hash, so that no two examples share one."""
    lengths = [batch.inputs.shape[1]] * len(batch) if batch.mask is None else batch.mask.sum(1).tolist()
    rows = zip(batch.inputs.contiguous().numpy(), lengths, strict=True)
    return [blake2b(row[:n_real].tobytes(), digest_size=16).digest() for row, n_real in rows]
