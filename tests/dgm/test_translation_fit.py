"""The game against one played by hand; places, features and the potential against their parts."""

import itertools

import torch
from torch import nn

from dgm.translation import patch_nce
from dgm.translation_fit import (
    GameFit,
    ImagePotential,
    PatchHead,
    contrast_loss,
    encoder_features,
    play_game,
    random_places,
)
from dgm.translation_nets import TranslationUNet


def _linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(2, 2), nn.Linear(2, 1)


def _losses(net, judge):
    def map_loss(x):
        y = net(x)
        return -judge(y).mean() + y.square().mean(), (y,)

    def judge_loss(x, made):
        return judge(made[0]).mean() - judge(x).mean() + judge.weight.square().sum()

    return map_loss, judge_loss


def _by_hand(opt, module, loss):
    """One Adam step on gradients from autograd.grad."""
    for p, g in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters()))):
        p.grad = g
    opt.step()


def test_the_game_is_the_one_played_by_hand():
    """Oracle: two Adam optimisers driven step by step with autograd.grad and fresh copies."""
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    nets, copies = _linear(0), _linear(0)
    cfg = GameFit(4, 0.1, 0.05, map_steps=2)
    losses = list(play_game(*_losses(*nets), *nets, itertools.repeat(x), cfg))

    net, judge = copies
    opt_net = torch.optim.Adam(net.parameters(), 0.1, (0.5, 0.999))
    opt_judge = torch.optim.Adam(judge.parameters(), 0.05, (0.5, 0.999))
    for found, part in zip(losses, (1, 1, 1, 0.5)):
        opt_net.param_groups[0]["lr"], opt_judge.param_groups[0]["lr"] = 0.1 * part, 0.05 * part
        for _ in range(2):
            y = net(x)
            value = -judge(y).mean() + y.square().mean()
            _by_hand(opt_net, net, value)
        verdict = judge(y.detach()).mean() - judge(x).mean() + judge.weight.square().sum()
        _by_hand(opt_judge, judge, verdict)
        torch.testing.assert_close(torch.tensor(found), torch.stack([value, verdict]).detach())
    for module, copy in zip(nets, copies):
        torch.testing.assert_close(module.state_dict(), copy.state_dict())


def test_neither_side_is_moved_by_the_other():
    """Judges get no gradient in the maps' step; what was made has no graph for the judges."""
    net, judge = _linear(1)
    seen = []

    def map_loss(x):
        seen.append(judge.weight.requires_grad)
        y = net(x)
        return judge(y).mean(), (y,)

    def judge_loss(x, made):
        seen.append((made[0].requires_grad, judge.weight.requires_grad))
        return judge(made[0]).mean()

    list(
        play_game(map_loss, judge_loss, net, judge, itertools.repeat(torch.ones(3, 2)), GameFit(2))
    )
    assert seen == [False, (False, True)] * 2


def test_rates_are_constant_then_fall_to_zero():
    """Oracle: the rates written out for four rounds and for eight."""
    assert [GameFit(4).rate(k) for k in range(4)] == [1, 1, 1, 0.5]
    assert [GameFit(8).rate(k) for k in range(8)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_places_differ_and_lie_inside():
    """Oracle: all places of a map are each found once when all are asked for."""
    rows, columns = random_places(3, 5, 15, torch.Generator().manual_seed(0))
    assert sorted(zip(rows.tolist(), columns.tolist())) == list(
        itertools.product(range(3), range(5))
    )
    assert random_places(7, 7, 32, torch.Generator().manual_seed(0)).shape == (2, 32)


def test_contrast_looks_at_the_same_places_of_both():
    """Oracle: patch_nce of features taken by hand at the places of an equal generator."""
    torch.manual_seed(0)
    net, head = TranslationUNet(1, 1, 4), PatchHead((4, 8), 6)
    x, y = torch.randn(2, 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(5)
    expected = 0.0
    for fx, fy, level in zip(encoder_features(net, x), encoder_features(net, y), head.levels):
        r, c = random_places(fx.shape[2], fx.shape[3], 32, rng)
        keys = torch.stack([level(fx[:, :, i, j]) for i, j in zip(r, c)], 1)
        queries = torch.stack([level(fy[:, :, i, j]) for i, j in zip(r, c)], 1)
        expected = expected + patch_nce(queries, keys) / 2
    found = contrast_loss(net, head, x, y, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, expected)
    x.requires_grad_()
    contrast_loss(net, head, x, y, rng).sum().backward()
    assert x.grad is None  # the keys are held fixed


def test_a_potential_is_one_number_for_one_image():
    """A batch gives what its images give one by one."""
    torch.manual_seed(0)
    f, y = (
        ImagePotential(3, 4),
        torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0)),
    )
    one_by_one = torch.cat([f(y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(f(y), one_by_one)
    assert one_by_one.std() > 0
