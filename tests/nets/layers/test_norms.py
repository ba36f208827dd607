"""Norms: batch norm over all processes, and passes that leave no trace in the statistics."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nets.layers.norms import InstanceNorm, Norm, build_norm, per_sample, unsynced, untracked
from tests.processes import gang

Result = dict[str, list]


def network(norm: Norm) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), build_norm(norm, 4), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(4, 5, 3), build_norm(norm, 5)).double()


def batch(dtype: torch.dtype = torch.float64) -> Tensor:
    """Samples of very different means, so that statistics of a half are far from the whole's."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.arange(4.0)[:, None, None, None]
    return (torch.randn(4, 3, 9, 8, generator=generator) + offsets).to(dtype)


def results(net: nn.Sequential, x: Tensor, probe: Tensor) -> Result:
    """Two training steps' outputs and gradients, the statistics, then an output in eval mode."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = net(x)
        (out * probe).sum().backward()
    found = {name: parameter.grad for name, parameter in net.named_parameters()}
    found |= dict(net.named_buffers()) | {"out": out.detach(), "grad": x.grad}
    found["eval"] = net.eval()(x).detach()
    return {name: value.tolist() for name, value in found.items()}


def probes() -> Tensor:
    return torch.randn(4, 5, 5, 4, generator=torch.Generator().manual_seed(2)).double()


def in_the_gang(cut: int) -> dict[str, Result | list]:
    """What this process finds on its share of the batch: the first `cut` samples, or the rest."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = slice(0, cut) if rank == 0 else slice(cut, 4)
    found: dict[str, Result | list] = {}
    found["training"] = results(network("sync-batch"), batch()[mine], probes()[mine])
    low = build_norm("sync-batch", 3)(batch(torch.bfloat16)[mine])
    assert low.dtype == torch.bfloat16
    found["low"] = low.float().tolist()
    found["bare"] = build_norm("sync-batch", 3, eps=0.8, affine=False)(batch()[mine]).tolist()
    kept = network("sync-batch")
    with untracked(kept):
        found["untracked"] = kept(batch()[mine]).tolist()
    assert not kept[1].num_batches_tracked and not kept[1].running_mean.any()
    if rank == 0:
        with unsynced(kept):
            found["alone"] = kept(batch()[mine]).tolist()
    found["ddp"] = under_ddp(batch()[mine], probes()[mine])
    dist.destroy_process_group()
    return found


def under_ddp(x: Tensor, probe: Tensor) -> list:
    """Gradient of the first weight, averaged over the processes."""
    net = network("sync-batch")
    wrapped = DistributedDataParallel(net)
    (wrapped(x) * probe).sum().backward()
    del wrapped
    return net[0].weight.grad.tolist()


@pytest.mark.parametrize("cut", [2, 1])
def test_two_processes_normalise_as_one(cut: int) -> None:
    first, second = gang.run(2, in_the_gang, cut)
    expected = results(network("batch"), batch(), probes())
    for name, value in expected.items():
        ours = [precise(found["training"][name]) for found in (first, second)]
        if name in ("out", "grad", "eval"):
            whole = torch.cat(ours)
        elif "running" in name or "tracked" in name:
            assert torch.equal(*ours)
            whole = ours[0]
        else:
            whole = ours[0] + ours[1]
        assert torch.allclose(whole, precise(value), rtol=1e-11, atol=1e-11), name
    low = torch.tensor(first["low"] + second["low"])
    assert torch.allclose(low, nn.BatchNorm2d(3)(batch(torch.float32)), atol=2e-2)
    bare = nn.BatchNorm2d(3, eps=0.8, affine=False).double()(batch())
    assert torch.allclose(precise(first["bare"] + second["bare"]), bare, rtol=1e-11, atol=1e-11)
    for found in (first, second):
        assert found["untracked"] == found["training"]["out"]
        # Two steps were summed there, and DDP takes the mean over processes.
        gradient = 4 * precise(found["ddp"])
        assert torch.allclose(gradient, precise(expected["0.weight"]), rtol=1e-11, atol=1e-11)
    plain = network("batch")(batch()[:cut])
    assert torch.allclose(precise(first["alone"]), plain, atol=1e-11)


def precise(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_on_gpus_torchs_own_shares_the_state() -> None:
    """It runs on the CPU where there is no process group."""
    ours, plain, x = build_norm("sync-batch", 3), build_norm("batch", 3), batch(torch.float32)
    for _ in range(2):
        found, wanted = ours._by_torch(x), plain(x)
        assert torch.equal(found, wanted)
        found.square().sum().backward()
        wanted.square().sum().backward()
    with untracked(ours):
        assert torch.equal(ours._by_torch(x), wanted)
    assert torch.equal(ours.weight.grad, plain.weight.grad)
    state = plain.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_alone_a_sync_batch_norm_is_a_batch_norm() -> None:
    sync, plain = network("sync-batch"), network("batch")
    assert list(sync.state_dict()) == list(plain.state_dict())
    assert results(sync, batch(), probes()) == results(plain, batch(), probes())


@pytest.mark.parametrize("norm", ["batch", "sync-batch"])
def test_an_untracked_pass_leaves_no_trace(norm: Norm) -> None:
    net, x = network(norm), batch()
    net(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(x)
    net.load_state_dict(before)
    with untracked(net):
        assert torch.equal(net(x + 1), network(norm)(x + 1))
        assert torch.equal(net(x), expected)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        in_eval = net.eval()(x)
    assert torch.equal(in_eval, net(x)) and not torch.equal(in_eval, expected)
    net.train()(x)
    assert net[1].num_batches_tracked == 2


def test_statistics_are_tracked_again_after_an_error() -> None:
    net = network("batch")
    with pytest.raises(RuntimeError), untracked(net):
        net(torch.zeros(1, 2, 9, 9))
    assert net[1].track_running_stats and net[4].track_running_stats


def test_samples_that_influence_each_other() -> None:
    x = batch()
    for norm in ("instance", "batch", "sync-batch", "none"):
        net = network(norm)
        alone = torch.cat([net(sample[None]) for sample in x])
        assert torch.allclose(net(x), alone, atol=1e-12) == per_sample(norm)


def test_instance_norm_is_no_view_before_its_activation() -> None:
    for count in (1, 3):
        x = torch.randn(count, 4, 6, 5, dtype=torch.float64, requires_grad=True)
        out = InstanceNorm()(x, nn.ReLU(inplace=True))
        plain = nn.functional.relu(nn.functional.instance_norm(x))
        assert torch.allclose(out, plain, atol=1e-12)
        graph, names = [out.grad_fn], set()
        while graph:
            node = graph.pop()
            names.add(node.name())
            graph += [parent for parent, _ in node.next_functions if parent is not None]
        assert "CopySlices" not in names and "ReluBackward0" in names


@pytest.mark.parametrize("first", [torch.contiguous_format, torch.channels_last])
def test_passes_of_different_layout_share_a_backward(first: torch.memory_format) -> None:
    """Generated images come in another layout than real ones now and then."""
    second = torch.channels_last if first is torch.contiguous_format else torch.contiguous_format
    net, same = network("batch"), network("batch")
    one, other = batch(), batch() + 1
    passes = [one.to(memory_format=first), other.to(memory_format=second)]
    sum(net(x).square().mean() for x in passes).backward()
    sum(same(x).square().mean() for x in (one, other)).backward()
    for found, expected in zip(net.parameters(), same.parameters(), strict=True):
        assert torch.allclose(found.grad, expected.grad, rtol=1e-9, atol=1e-12)
    for found, expected in zip(net.buffers(), same.buffers(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12)
