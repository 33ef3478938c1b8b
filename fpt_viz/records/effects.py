"""What interventions changed: tables of effects with their intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records.parts import Part, is_head, words_of

if TYPE_CHECKING:
    import pandas as pd

Interval = tuple[float, float]
Table = TypeVar("Table", bound="_Table")  # not Self: run-time shape checks cannot read it on a method


class _Table:
    """A frozen dataclass that is saved as one JSON file with its checksum."""

    KIND = ""

    def save(self, path: str | Path) -> None:
        """Write everything into one JSON file, atomically."""
        content = {"kind": self.KIND, "schema": store.SCHEMA_VERSION, **asdict(self)}  # type: ignore[call-overload]
        store.write_json(Path(path), store.sealed(content))
        store.note(self, Path(path))

    @classmethod
    def load(cls: type[Table], path: str | Path) -> Table:
        """The effects that :meth:`save` wrote."""
        content = store.unsealed(store.read_json(Path(path)), Path(path))
        if content.pop("kind", None) != cls.KIND:
            raise RecordError(f"{path} is no {cls.KIND} file")
        if content.pop("schema", 0) > store.SCHEMA_VERSION:
            raise RecordError(f"{path} has a newer schema than {store.SCHEMA_VERSION}: use a newer fpt_viz")
        try:
            return store.note(cls.from_json(content), Path(path))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is no whole {cls.KIND} file: {error}") from error

    @classmethod
    def from_json(cls: type[Table], content: dict[str, Any]) -> Table:
        """The table whose ``dataclasses.asdict`` went through JSON as ``content``."""
        return cls(**{name: _tuples(value) for name, value in content.items()})


def _tuples(value: Any) -> Any:
    """``value`` with each list as a tuple, since JSON knows no tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class AblationEffects(_Table):
    """What is lost without each set of parts (heads, attention edges, MLPs); one entry a set in every tuple.

    Intervals are 95 % bootstrap intervals over examples, of the difference paired by example.
    """

    KIND = "ablation_effects"

    sets: tuple[tuple[Part, ...], ...]
    """The parts cut together, a head as (layer, head); sets of one where single parts are ablated. See ``parts``."""
    accuracy_drop: tuple[float, ...]
    """Accuracy without intervention minus with it, -1 to 1; per target (for bits: per bit)."""
    accuracy_interval: tuple[Interval, ...]
    loss_rise: tuple[float, ...]
    """Cross-entropy with the intervention minus without, in nats."""
    loss_interval: tuple[Interval, ...]
    logit_drop: tuple[float, ...]
    """Fall of the logit difference: correct class minus the best other one."""
    logit_interval: tuple[Interval, ...]
    baseline_accuracy: float
    baseline_loss: float
    baseline_logit: float
    """Mean logit difference without intervention."""
    ablation: str
    """``"zero"``, ``"mean"`` or ``"resample"``."""
    split: str
    n_examples: int
    reference: str = ""
    """The reference set of a mean or of resampling, in words; empty for zero ablation."""
    source: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, chosen: slice) -> AblationEffects:
        """The effects of some of the sets."""
        per_set = ("sets", *(f"{name}_interval" for name in ("accuracy", "loss", "logit")))
        per_set += ("accuracy_drop", "loss_rise", "logit_drop")
        return replace(self, **{name: getattr(self, name)[chosen] for name in per_set})

    @property
    def single_heads(self) -> bool:
        """Whether each set is one head."""
        return all(len(parts) == 1 and is_head(parts[0]) for parts in self.sets)

    def to_pandas(self) -> pd.DataFrame:
        """One row a set; single heads also get the columns layer and head."""
        import pandas as pd

        table: dict[str, Any] = {"heads": [" ".join(map(words_of, parts)) for parts in self.sets]}
        if self.single_heads:
            table |= {"layer": [heads[0][0] for heads in self.sets], "head": [heads[0][1] for heads in self.sets]}
        for name, interval in (("accuracy_drop", "accuracy"), ("loss_rise", "loss"), ("logit_drop", "logit")):
            table[name] = getattr(self, name)
            bounds = getattr(self, f"{interval}_interval")
            table[f"{interval}_low"], table[f"{interval}_high"] = zip(*bounds, strict=True) if bounds else ((), ())
        return pd.DataFrame(table)


@dataclass(frozen=True, kw_only=True)
class TopHeadsEffects(_Table):
    """What is lost without the k heads that route best, beside random sets of k heads; one entry a k."""

    KIND = "top_heads_effects"

    k: tuple[int, ...]
    top: AblationEffects
    """The effect of cutting the top k heads: one set for each k."""
    random: tuple[AblationEffects, ...]
    """For each k, the effects of random sets of k heads."""
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TopHeadsEffects:
        """The table whose ``dataclasses.asdict`` went through JSON as ``content``."""
        top = AblationEffects.from_json(content["top"])
        random = tuple(AblationEffects.from_json(row) for row in content["random"])
        return cls(k=tuple(content["k"]), top=top, random=random, source=content["source"])

    def rows(self) -> list[dict[str, Any]]:
        """One row a k: k, drops of the top heads (with interval), and the mean over random sets (with its range)."""
        rows = []
        for i, k in enumerate(self.k):
            row: dict[str, Any] = {"k": k, "heads": [list(head) for head in self.top.sets[i]]}
            for name, interval in (("accuracy_drop", "accuracy"), ("loss_rise", "loss"), ("logit_drop", "logit")):
                drops = getattr(self.random[i], name)
                row[name] = getattr(self.top, name)[i]
                row[f"{interval}_interval"] = list(getattr(self.top, f"{interval}_interval")[i])
                row[f"random_{name}"] = sum(drops) / len(drops)
                row[f"random_{interval}_range"] = [min(drops), max(drops)]
            rows.append(row)
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """:meth:`rows` as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows())
