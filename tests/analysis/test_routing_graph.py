"""The routing graph against paths enumerated one by one."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from fpt_viz.analysis import _mixing
from fpt_viz.analysis._routing_graph import RoutingGraph
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.analysis.routing_graph import routing_graph
from fpt_viz.errors import ConfigError


def random_patterns(rng: np.random.Generator, *shape: int, causal: bool = False) -> Tensor:
    scores = rng.normal(size=(*shape, shape[-1])) * 2
    if causal:
        scores[..., ~np.tri(shape[-1], dtype=bool)] = -np.inf
    return torch.from_numpy(scores).softmax(-1)


def edges_of(graph: RoutingGraph) -> list[tuple[int, int, int]]:
    return list(zip(graph.layer.tolist(), graph.source.tolist(), graph.target.tolist(), strict=True))


def path_flows(weights: Tensor, roots: list[int], share: float = 0.5) -> dict[tuple[int, ...], float]:
    """Of one example: each path from an input token to a root, as its tokens layer by layer, and what it carries."""
    n_layers, _, n_tokens = weights.shape[0], weights.shape[1], weights.shape[-1]
    fused = [share * np.eye(n_tokens) + (1 - share) * layer.mean(0).numpy() for layer in weights]
    flows = {}
    for path in product(range(n_tokens), repeat=n_layers + 1):
        if path[-1] in roots:
            steps = [fused[layer][path[layer + 1], path[layer]] for layer in range(n_layers)]
            flows[path] = float(np.prod(steps)) / len(roots)
    return flows


def test_a_graph_of_two_layers_is_what_a_hand_finds():
    weights = torch.zeros(2, 1, 2, 3, 3)
    weights[:, 0] = torch.eye(3)
    weights[0, 0, 0, 1] = torch.tensor([1.0, 0, 0])  # L0H0: token 1 reads token 0
    weights[1, 0, 1, 2] = torch.tensor([0.0, 1.0, 0])  # L1H1: token 2 reads token 1

    graph = routing_graph(weights, torch.tensor([[2]]), share=1.0)

    # Token 2 keeps 1/2 by the residual stream and 1/4 by L1H0; L1H1 brings 1/4 of token 1, a quarter of which L0H0
    # had brought there from token 0.
    found = {
        edge: (round(flow, 6), round(residual, 6), tuple(heads))
        for edge, flow, residual, heads in zip(
            edges_of(graph), graph.flow.tolist(), graph.residual.tolist(), graph.heads.tolist(), strict=True
        )
    }
    assert found == {
        (0, 2, 2): (0.75, 0.375, (0.1875, 0.1875)),
        (0, 1, 1): (0.1875, 0.125, (0.0, 0.0625)),
        (0, 0, 1): (0.0625, 0.0, (0.0625, 0.0)),
        (1, 2, 2): (0.75, 0.5, (0.25, 0.0)),
        (1, 1, 2): (0.25, 0.0, (0.0, 0.25)),
    }
    assert graph.inputs.tolist() == [0.0625, 0.1875, 0.75]
    assert graph.readout.tolist() == [0, 0, 1]
    assert graph.carried == 1.0
    assert graph.attention[edges_of(graph).index((1, 1, 2))] == 0.5
    assert edges_of(routing_graph(weights, torch.tensor([[2]]), share=0.75)) == [(0, 2, 2), (1, 2, 2)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.3, 0.8, 0.95]), causal=st.booleans())
def test_what_is_kept_is_on_whole_paths_carries_the_share_and_could_not_be_stronger(seed, share, causal):
    rng = np.random.default_rng(seed)
    n_layers, n_tokens = rng.integers([1, 3], [4, 5])
    weights = random_patterns(rng, n_layers, 1, 2, n_tokens, causal=causal)
    roots = [1, int(n_tokens) - 1]

    graph = routing_graph(weights, torch.tensor([roots]), share=share)

    paths = path_flows(weights[:, 0], roots)
    kept = set(edges_of(graph))

    def edges(path: tuple[int, ...]) -> list[tuple[int, int, int]]:
        return [(layer, path[layer], path[layer + 1]) for layer in range(n_layers)]

    whole = {path: flow for path, flow in paths.items() if kept >= set(edges(path))}
    assert graph.carried == pytest.approx(sum(whole.values()))
    assert graph.carried >= share - 1e-12
    assert kept == {edge for path in whole if whole[path] > 0 for edge in edges(path)}
    strength = {edge: sum(flow for path, flow in paths.items() if edge in edges(path)) for edge in kept}
    for edge, flow in zip(edges_of(graph), graph.flow.tolist(), strict=True):
        assert flow == pytest.approx(strength[edge])
    every = {
        (layer, source, target): 0.0
        for layer in range(n_layers) for source in range(n_tokens) for target in range(n_tokens)
    }  # fmt: skip
    for path, flow in paths.items():
        for edge in edges(path):
            every[edge] += flow
    weakest = min(strength.values())
    stronger = {edge for edge, flow in every.items() if flow > weakest * (1 + 1e-6)}
    without = sum(flow for path, flow in paths.items() if stronger >= set(edges(path)))
    assert without < share


@pytest.mark.parametrize("sink", [None, 0])
def test_the_whole_graph_conserves_the_flow_and_its_inputs_are_the_rollout(sink):
    weights = random_patterns(np.random.default_rng(0), 4, 3, 5, 6)
    roots = torch.tensor([[4, 5], [3, -1], [-1, -1]])

    graph = routing_graph(weights, roots, share=1.0, sink=sink)

    rolled = attention_rollout(weights, roots, sink=sink)
    torch.testing.assert_close(graph.inputs, (rolled[0].mean(0) + rolled[1, 0]) / 2)
    torch.testing.assert_close(graph.residual + graph.heads.sum(-1), graph.flow)
    for layer in range(4):
        flow, target = graph.flow[graph.layer == layer], graph.target[graph.layer == layer]
        torch.testing.assert_close(flow.sum(), torch.tensor(1.0).double())
        onward = graph.readout if layer == 3 else torch.zeros(6).double().index_add(
            0, graph.source[graph.layer == layer + 1], graph.flow[graph.layer == layer + 1]
        )  # fmt: skip
        torch.testing.assert_close(torch.zeros(6).double().index_add(0, target, flow), onward)
    assert (graph.heads >= 0).all()
    if sink is not None:
        assert (graph.heads[(graph.source == 0) & (graph.target != 0)] == 0).all()


def test_the_shares_of_heads_follow_their_weights():
    weights = random_patterns(np.random.default_rng(0), 2, 1, 3, 4)

    graph = routing_graph(weights, torch.tensor([[3]]), share=1.0, heads=torch.tensor([[0.0, 1.0, 1.0], [1.0, 0, 0]]))

    assert (graph.heads[graph.layer == 0, 0] == 0).all()
    assert (graph.heads[graph.layer == 1, 1:] == 0).all()
    last = graph.layer == 1
    expected = 0.5 * weights[1, 0, 0, 3, graph.source[last]]
    torch.testing.assert_close(graph.heads[last, 0], expected)


def test_examples_in_chunks_and_padding_change_nothing(monkeypatch):
    whole = random_patterns(np.random.default_rng(0), 3, 3, 2, 4)
    padded = torch.full((3, 3, 2, 6, 6), torch.nan, dtype=torch.float64)
    padded[..., :4, :] = 0.0
    padded[..., :4, :4] = whole
    mask = torch.tensor([[True] * 4 + [False] * 2] * 3)
    together = routing_graph(whole, torch.tensor([[3]]))

    monkeypatch.setattr(_mixing, "CHUNK_VALUES", 1)
    found = routing_graph(padded, torch.tensor([[3]]), mask=mask)

    assert edges_of(found) == edges_of(together)
    for name in ("flow", "attention", "residual", "heads"):
        torch.testing.assert_close(getattr(found, name), getattr(together, name))
    torch.testing.assert_close(found.inputs[:4], together.inputs)


LAST = torch.tensor([[3]])
SOME = random_patterns(np.random.default_rng(0), 2, 2, 3, 4, causal=True)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: routing_graph(SOME, torch.tensor([[0]])), "token 0 of example 0 .*in a causal model"),
        (lambda: routing_graph(SOME, torch.tensor([[3]]), share=0.0), "share must be above 0 and at most 1, got 0"),
        (lambda: routing_graph(SOME, torch.tensor([[-1]])), "no example has a read-out token"),
        (lambda: routing_graph(SOME, LAST, share=1.0, max_edges=13), "14 of 32 edges carry 100.0% .*max_edges=13"),
    ],
    ids=["blank root", "share", "no root", "edges"],
)
def test_what_has_no_graph_is_refused(ask, message):
    with pytest.raises(ConfigError, match=message):
        ask()


def test_it_tells_in_a_line_what_it_holds():
    graph = routing_graph(SOME, torch.tensor([[3]]), share=1.0)

    assert repr(graph) == "RoutingGraph(14 edges of 2 layers x 4 tokens, 100.0% of the flow)"
