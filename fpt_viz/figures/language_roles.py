"""What the heads that route did with words before."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel, Points, VLine
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, Head, array, head_name, interval, listed, number, origin, short
from fpt_viz.records import LanguageRoles

__all__ = ["language_roles"]

WORDS = {
    "previous_token": "previous", "duplicate_token": "duplicate", "induction": "induction", "sink": "sink",
    "delimiter": "delimiter", "offset": "best offset",
}  # fmt: skip


@remembered
def language_roles(roles: LanguageRoles, *, top: int = 12) -> Figure:
    """Role scores in language of the heads that route best, and how each role goes with the routing score.

    Left: the heads with the highest routing scores down (of a task without routing scores, those with the strongest
    role), roles across, and below them the mean of all heads and of the same network with random weights. Right: each
    role's rank correlation with the routing score, over all heads and within layers.

    Args:
        roles: From ``fpt_viz.measures.language_roles``.
        top: Heads to show.

    Raises:
        ConfigError: ``top`` is below 1.
    """
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    n_heads = roles.score.shape[2]
    scored = roles.routing_score is not None
    strongest = array(roles.routing_score if roles.routing_score is not None else roles.score.amax(0)).ravel()
    order = [divmod(int(i), n_heads) for i in np.argsort(-strongest, kind="stable")[:top]]
    panels = [_scores(roles, order)] + ([_correlations(roles)] if scored else [])
    finding = _finding(roles, order)
    best = "highest routing scores" if scored else "strongest roles (its task has no routing score)"
    return Figure(
        title="What the heads did with words before",
        alt=f"Heatmap of role scores in language of the {len(order)} heads with the {best}, of "
        f"{origin(roles.source)}{', and dot chart of rank correlations with the routing score' if scored else ''}. "
        f"{finding}",
        panels=tuple(panels),
        columns=len(panels),
        note=f"Roles: the frozen network before training, on {roles.n_pieces} pieces of {roles.text}; random: the same "
        f"network with random weights. Heads: the {best}, of {origin(roles.source)}"
        + (
            f", {roles.n_examples} {roles.split} examples; bars: 95 % bootstrap intervals over heads."
            if scored
            else "."
        ),
        finding=finding,
        source={**roles.source, "text": roles.text, "split": roles.split},
    )


def role_words(role: str, roles: LanguageRoles) -> str:
    """A role as it is told in a figure."""
    return WORDS.get(role, f"offset {roles.needed_offset}" if role == "needed_offset" else role.replace("_", " "))


def _scores(roles: LanguageRoles, order: list[Head]) -> Panel:
    """Heads down, roles across, and two rows of means."""
    score, random = array(roles.score), array(roles.random)
    layers, heads = (list(axis) for axis in zip(*order, strict=True))
    rows = [*score[:, layers, heads].T, score.mean((1, 2)), random.mean((1, 2))]
    names = [role_words(role, roles) for role in roles.roles]
    z = np.array(rows)
    if roles.routing_score is not None:
        routing = array(roles.routing_score)
        z = np.column_stack([[*routing[layers, heads], routing.mean(), np.nan], z])
        names = ["routing", *names]
    heatmap = Heatmap(
        z=z,
        x_labels=tuple(names),
        y_labels=(*map(head_name, order), "all, mean", "random, mean"),
        colours=Colours(vmin=0.0, vmax=1.0, label="mean attention on the role's tokens"),
        text=tuple(tuple("" if np.isnan(value) else short(value) for value in row) for row in z.tolist()),
        cell_names=("head", "role"),
    )
    return Panel(marks=(heatmap,), y_title="head")


def _correlations(roles: LanguageRoles) -> Panel:
    """One row a role: its correlation over all heads, and within layers."""
    n_roles = len(roles.roles)
    marks = []
    both = (
        ("over all heads", roles.correlation, roles.correlation_interval, -0.12),
        ("within layers", roles.within, roles.within_interval, 0.12),
    )
    for series, (label, values, bounds, shift) in enumerate(both):
        assert values is not None and bounds is not None  # with the routing score
        low, high = array(bounds).T
        marks.append(
            Points(
                x=array(values), y=np.arange(n_roles) + shift, low=low, high=high, across=True, label=label,
                series=series,
            )
        )  # fmt: skip
    return Panel(
        marks=(VLine(at=0.0, label=""), *marks),
        x_title="rank correlation with the routing score",
        y_title="role",
        x_range=(-1.0, 1.0),
        y_range=(n_roles - 0.5, -0.5),
        y_ticks=(tuple(map(float, range(n_roles))), tuple(role_words(role, roles) for role in roles.roles)),
        n_lines=2 * n_roles,
    )


def _finding(roles: LanguageRoles, order: list[Head]) -> str:
    score = array(roles.score)
    above = score - array(roles.uniform)[:, None, None]  # roles with many tokens get much from any head
    if roles.correlation is None or roles.correlation_interval is None or roles.within is None or roles.p is None:
        layer, head = order[0]
        i = int(np.nan_to_num(above[:, layer, head]).argmax())
        return f"Strongest: {head_name(order[0])}, {role_words(roles.roles[i], roles)} {number(score[i, layer, head])}."
    within_p = roles.within_p
    assert within_p is not None  # with the others
    told = [
        f"{role_words(role, roles)} {number(roles.correlation[i])} (95 % interval "
        f"{interval(roles.correlation_interval[i].tolist())}, p = {float(roles.p[i]):.2g}), within layers "
        f"{number(roles.within[i])} (p = {float(within_p[i]):.2g})"
        for i, role in enumerate(roles.roles)
    ]
    mine: Array = np.nan_to_num(above[:, [layer for layer, _ in order], [head for _, head in order]])
    strongest = [role_words(roles.roles[int(i)], roles) for i in mine.argmax(0)]
    most = max(sorted(set(strongest)), key=strongest.count)
    return (
        f"Rank correlations with the routing score: {listed(told)}. Of the {len(order)} heads shown, "
        f"{strongest.count(most)} are farthest above even attention in {most}."
    )
