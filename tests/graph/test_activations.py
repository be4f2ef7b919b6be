import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modscope.graph.correlations as correlations
import modscope.graph.strongest as strongest
from modscope.errors import GraphError
from modscope.graph.activations import activation_graph
from modscope.graph.correlations import correlation_blocks, ranks
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.unit_values import unit_values
from modscope.partition.quality import n_cut
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring
from planted.graphs import reference


def graph_of(values: np.ndarray, correlation: str = "spearman", n_groups: int = 2) -> UnitGraph:
    group_of = np.sort(np.arange(len(values)) % n_groups)
    names = [f"g{group}" for group in range(n_groups)]
    blocks = correlation_blocks(np.arange(len(values)), values, group_of, names, correlation)  # type: ignore[arg-type]
    return UnitGraph(tuple(blocks), group_of, tuple(names))


def slow_adjacency(values: np.ndarray, correlate: object) -> np.ndarray:
    n_units = len(values)
    adjacency = np.zeros((n_units, n_units))
    for i in range(n_units):
        for j in range(i):
            if np.ptp(values[i]) > 0 and np.ptp(values[j]) > 0:
                adjacency[i, j] = adjacency[j, i] = correlate(values[i], values[j]).statistic ** 2  # type: ignore[operator]
    return adjacency


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_ranks_are_those_of_scipy(seed):
    values = np.random.default_rng(seed).integers(0, 6, (4, 9)).astype(np.float32)
    np.testing.assert_array_equal(ranks(torch.from_numpy(values)).numpy(), scipy.stats.rankdata(values, axis=1) - 1)


@pytest.mark.parametrize(
    ("correlation", "correlate"),
    [("spearman", scipy.stats.spearmanr), ("pearson", scipy.stats.pearsonr), ("kendall", scipy.stats.kendalltau)],
)
@pytest.mark.parametrize("n_groups", [1, 3])
def test_edges_are_squared_correlations(correlation, correlate, n_groups):
    rng = np.random.default_rng(0)
    values = np.maximum(rng.standard_normal((7, 40)), 0).astype(np.float32)  # many ties, as behind a ReLU
    values[2] = 0.5
    found = graph_of(values, correlation, n_groups).adjacency().toarray()
    np.testing.assert_allclose(found, slow_adjacency(values, correlate), atol=1e-6)


def test_the_spearman_graph_is_the_reference():
    vector = reference()["test_vectors"]["spearman_adj"]
    values = np.random.default_rng(7).standard_normal((6, 40))
    values[3] = values[0] ** 3 + 0.1 * values[1]
    graph = graph_of(values, n_groups=1)
    np.testing.assert_allclose(graph.adjacency().toarray(), vector["adj"], atol=1e-6)
    assert n_cut(graph, np.arange(6) % 2) == pytest.approx(vector["ncut_010101"], rel=1e-6)


def test_above_the_limit_each_unit_keeps_its_strongest_edges(monkeypatch):
    values = np.random.default_rng(0).standard_normal((30, 50)).astype(np.float32)
    full = graph_of(values).adjacency().toarray()
    monkeypatch.setattr(correlations, "SPARSE_ABOVE", 10)
    monkeypatch.setattr(strongest, "N_STRONGEST", 4)
    monkeypatch.setattr(strongest, "ROWS_AT_ONCE", 7)
    found = graph_of(values).adjacency().toarray()
    largest = np.argsort(full, axis=1)[:, -4:]
    is_kept = np.zeros_like(full, dtype=bool)
    np.put_along_axis(is_kept, largest, True, axis=1)
    np.testing.assert_allclose(found, np.where(is_kept | is_kept.T, full, 0), atol=1e-6)


class Recorder(nn.Module):
    """A perceptron that keeps what its hidden units do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.before = [self.first(x)]
        self.after = [self.before[0].relu()]
        self.before.append(self.second(self.after[0]))
        self.after.append(self.before[1].relu())
        return self.third(self.after[1])


def perceptron() -> tuple[Recorder, Wiring, Tensor]:
    torch.manual_seed(0)
    model = Recorder()
    x = torch.randn(60, 5)
    return model, read_wiring(model, x[:2]), x


@pytest.mark.parametrize("moment", ["before", "after"])
def test_hidden_units_are_read_on_either_side_of_the_nonlinearity(moment):
    model, wiring, x = perceptron()
    graph = activation_graph(model, wiring, [(x, None)], moment=moment)
    model(x)
    values = torch.cat(getattr(model, moment), dim=1).detach().numpy().T
    hidden = np.concatenate([group.unit_ids for group in wiring.groups if group.kind == "hidden"])
    expected = slow_adjacency(values, scipy.stats.spearmanr)
    np.testing.assert_allclose(graph.adjacency().toarray()[np.ix_(hidden, hidden)], expected, atol=1e-6)
    assert graph.n_units == wiring.n_units
    assert np.all(graph.degrees[np.setdiff1d(np.arange(wiring.n_units), hidden)] == 0)


def test_inputs_and_outputs_join_when_asked():
    model, wiring, x = perceptron()
    graph = activation_graph(model, wiring, [x], inputs=True, outputs=True)
    values = np.concatenate([x.numpy().T, *(part.detach().numpy().T for part in (*model.after, model(x)))])
    np.testing.assert_allclose(graph.adjacency().toarray(), slow_adjacency(values, scipy.stats.spearmanr), atol=1e-6)


def test_batches_are_read_until_there_are_enough_examples():
    model, wiring, x = perceptron()
    whole = activation_graph(model, wiring, [x[:32]])
    parts = activation_graph(model, wiring, [x[:10], x[10:30], x[30:40], x[40:]], max_examples=32)
    np.testing.assert_allclose(parts.adjacency().toarray(), whole.adjacency().toarray(), atol=1e-6)


def test_the_model_is_left_as_it_was():
    model, wiring, x = perceptron()
    model.train()
    activation_graph(model, wiring, [x])
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("reduction", "of_a_map"),
    [
        ("mean", np.mean),
        ("spectral", lambda m: np.linalg.norm(m, ord=2)),
        ("max_column", lambda m: np.linalg.norm(m, ord=1)),
    ],
)
def test_a_channel_counts_by_its_mean_or_by_the_papers_norms(reduction, of_a_map):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    x = torch.randn(40, 1, 6, 6)
    wiring = read_wiring(model, x[:1])
    graph = activation_graph(model, wiring, [x], reduction=reduction)
    with torch.no_grad():
        maps = [model[:2](x).numpy(), model[:4](x).numpy()]  # the second is read flattened
    values = np.concatenate([[[of_a_map(m) for m in layer[:, c]] for c in range(layer.shape[1])] for layer in maps])
    found = graph.adjacency().toarray()[1:8, 1:8]
    np.testing.assert_allclose(found, slow_adjacency(values, scipy.stats.spearmanr), atol=1e-5)


def test_each_token_is_an_example_where_every_layer_sees_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(6, 7, 4)
    graph = activation_graph(model, read_wiring(model, x), [x])
    values = model[0](x).relu().detach().flatten(0, 1).numpy().T
    found = graph.adjacency().toarray()[4:9, 4:9]
    np.testing.assert_allclose(found, slow_adjacency(values, scipy.stats.spearmanr), atol=1e-6)


def test_a_dead_unit_has_no_edges():
    model, wiring, x = perceptron()
    with torch.no_grad():
        model.first.bias[1] = -100
    graph = activation_graph(model, wiring, [x])
    assert graph.degrees[5 + 1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correlation": "cosine"}, "correlation must be one of spearman"),
        ({"moment": "during"}, "moment must be one of before"),
        ({"reduction": "max"}, "reduction must be one of mean"),
    ],
)
def test_an_unknown_option_is_refused(options, message):
    model, wiring, x = perceptron()
    with pytest.raises(GraphError, match=message):
        activation_graph(model, wiring, [x], **options)


def test_no_batches_are_refused():
    model, wiring, _ = perceptron()
    with pytest.raises(GraphError, match="no batches"):
        activation_graph(model, wiring, [])


def test_two_examples_are_too_few():
    model, wiring, x = perceptron()
    with pytest.raises(GraphError, match="at least 3 examples, got 2"):
        activation_graph(model, wiring, [x[:2]])


def test_activations_that_are_no_numbers_are_refused_by_group():
    model, wiring, x = perceptron()
    with torch.no_grad():
        model.second.bias[0] = float("nan")
    with pytest.raises(GraphError, match="first in group 'second'"):
        activation_graph(model, wiring, [x])


def test_a_model_that_fails_on_a_batch_says_on_which_shapes():
    model, wiring, _ = perceptron()
    with pytest.raises(GraphError, match=r"reading activations failed on inputs \(3, 9\)"):
        activation_graph(model, wiring, [torch.randn(3, 9)])


def test_batches_that_can_be_read_only_once_are_enough():
    model, wiring, x = perceptron()
    whole = activation_graph(model, wiring, [x])
    once = activation_graph(model, wiring, (part for part in x.split(7)))
    np.testing.assert_allclose(once.adjacency().toarray(), whole.adjacency().toarray(), atol=1e-6)


def test_no_more_batches_are_taken_than_are_needed():
    model, wiring, x = perceptron()
    batches = iter(x.split(10))
    activation_graph(model, wiring, batches, max_examples=25)
    assert len(list(batches)) == 3


def test_one_example_is_too_few():
    model, wiring, x = perceptron()
    with pytest.raises(GraphError, match="at least 3 examples, got 1"):
        activation_graph(model, wiring, [x[:1]])


def test_empty_batches_count_as_none():
    model, wiring, x = perceptron()
    with pytest.raises(GraphError, match="no batches"):
        activation_graph(model, wiring, [x[:0]])
    whole = activation_graph(model, wiring, [x])
    some = activation_graph(model, wiring, [x[:0], x])
    np.testing.assert_allclose(some.adjacency().toarray(), whole.adjacency().toarray(), atol=1e-6)


def test_a_batch_of_one_example_can_come_first():
    model, wiring, x = perceptron()
    whole = activation_graph(model, wiring, [x])
    parts = activation_graph(model, wiring, [x[:1], x[1:2], x[2:]])
    np.testing.assert_allclose(parts.adjacency().toarray(), whole.adjacency().toarray(), atol=1e-6)


def test_examples_that_are_all_the_same_leave_no_edges():
    model, wiring, x = perceptron()
    graph = activation_graph(model, wiring, [x[:1].expand(10, -1).clone()], inputs=True, outputs=True)
    assert graph.n_edges == 0


def test_infinite_activations_are_refused_by_group():
    model, wiring, x = perceptron()
    with torch.no_grad():
        model.first.bias[0] = float("inf")
    with pytest.raises(GraphError, match="first in group 'first'"):
        activation_graph(model, wiring, [x])


def test_the_wiring_of_another_model_is_refused():
    _, wiring, x = perceptron()
    other = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(GraphError, match="this very model"):
        activation_graph(other, wiring, [x])


class Ordered(nn.Module):
    """Tokens first, examples second, as torch's own recurrent layers have it; one weight by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout = nn.RNN(4, 6, num_layers=2), nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.states, _ = self.rnn(x.transpose(0, 1))
        return self.states[-1] @ self.readout


def test_examples_are_told_apart_where_time_comes_first():
    torch.manual_seed(0)
    model = Ordered()
    x = torch.randn(40, 5, 4)
    wiring = read_wiring(model, x[:2])
    graph = activation_graph(model, wiring, [(x, None)])
    below = nn.RNN(4, 6, batch_first=True)
    below.load_state_dict({key: value for key, value in model.rnn.state_dict().items() if key.endswith("l0")})
    with torch.no_grad():
        model(x)
        values = np.concatenate([below(x)[0].mean(1).numpy().T, model.states[-1].numpy().T])
    hidden = np.concatenate([group.unit_ids for group in wiring.groups if group.kind == "hidden"])
    expected = slow_adjacency(values, scipy.stats.spearmanr)
    np.testing.assert_allclose(graph.adjacency().toarray()[np.ix_(hidden, hidden)], expected, atol=1e-5)


class Experts(nn.Module):
    """Two experts that each see only the examples that are sent to them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(4, 3)
        self.experts = nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        out = hidden.new_zeros(len(x), 4)
        goes = x[:, 0] > 0
        out = out.index_put((goes.nonzero()[:, 0],), self.experts[0](hidden[goes]).relu())
        out = out.index_put(((~goes).nonzero()[:, 0],), self.experts[1](hidden[~goes]).relu())
        return self.last(out)


def test_units_whose_layer_sees_only_some_examples_are_not_read_there():
    torch.manual_seed(0)
    model = Experts()
    x = torch.randn(30, 5)
    x[:2, 0] = torch.tensor([1.0, -1.0])
    wiring = read_wiring(model, x)
    read = unit_values(
        model, wiring, [x, x.flip(0)], wanted=np.ones(wiring.n_units, dtype=bool), moment="after", reduction="mean",
        max_examples=60,
    )  # fmt: skip
    assert len(read.values) == 60
    # every value is that of its example
    np.testing.assert_allclose(read.values[:30], read.values[30:].flip(0), rtol=1e-4, atol=1e-6)


def test_a_model_in_half_precision_has_nearly_the_same_graph():
    model, wiring, x = perceptron()
    exact = activation_graph(model, wiring, [x]).adjacency().toarray()
    half = activation_graph(model.bfloat16(), wiring, [x.bfloat16()]).adjacency().toarray()
    assert np.abs(exact - half).max() < 0.1
    assert np.corrcoef(exact[exact > 0], half[exact > 0])[0, 1] > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("correlation", ["spearman", "pearson", "kendall"])
def test_a_gpu_gives_the_same_graph(correlation):
    model, wiring, x = perceptron()
    here = activation_graph(model, wiring, [x], correlation=correlation).adjacency().toarray()
    there = activation_graph(model.cuda(), wiring, [x], correlation=correlation).adjacency().toarray()
    np.testing.assert_allclose(there, here, atol=1e-4)
