"""The training loop: exact resume, schedule, clipping, minibatches, averages."""

from itertools import islice

import pytest
import torch
from torch import nn

from dgm.batches import minibatches
from dgm.nets import Mlp
from dgm.training import Ema, Fit, fit, learning_rate, progress


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


class _Run:
    """A small training run with every kind of randomness: batches, noise, dropout, averages."""

    def __init__(self, cfg, path=None):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.SiLU(), nn.Linear(8, 1))
        self.ema, rng = Ema(self.net, 0.9), _rng()
        x = torch.randn(50, 3, generator=rng)
        batches = minibatches((x, x.sum(1, keepdim=True)), 8, rng)

        def loss(batch):
            noise = 0.1 * torch.randn(batch[0].shape, generator=rng)
            return (self.net(batch[0] + noise) - batch[1]).square().mean()

        self.losses = fit(loss, self.net, batches, cfg, path, also={"ema": self.ema})

    def go(self, steps=None):
        """Train for some more steps, all by default; returns the losses."""
        seen = []
        for value in islice(self.losses, steps):
            self.ema.update(self.net)
            seen.append(value)
        return seen

    def state(self):
        """All parameters, of the network and of its average."""
        both = (*self.net.parameters(), *self.ema.parameters())
        return torch.cat([p.detach().flatten() for p in both])


@pytest.mark.parametrize("stop", [1, 7, 20])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_resumed_run_equals_the_uninterrupted(tmp_path, stop, schedule):
    """Bit for bit: losses, parameters and averages, after a stop anywhere in or between epochs."""
    cfg = Fit(20, lr=1e-2, schedule=schedule, clip=0.5, save_every=0.0)
    whole = _Run(cfg)
    losses = whole.go()

    first = _Run(cfg, tmp_path / "run.pt")
    first.go(stop)
    first.losses.close()
    torch.manual_seed(99)  # another process, another state
    second = _Run(cfg, tmp_path / "run.pt")
    assert second.go() == losses
    assert torch.equal(second.state(), whole.state())


def test_nothing_is_saved_without_a_path(tmp_path, monkeypatch):
    """Without `checkpoint` no file appears; with it the file appears at the end."""
    monkeypatch.chdir(tmp_path)
    _Run(Fit(3)).go()
    assert not list(tmp_path.iterdir())
    _Run(Fit(3), "run.pt").go()
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_finished_run_is_not_trained_again(tmp_path):
    """A second call yields the same losses and leaves the parameters as they were saved."""
    first, again = (_Run(Fit(5), tmp_path / "run.pt") for _ in range(2))
    losses = first.go()
    assert again.go() == losses
    assert torch.equal(again.state(), first.state())


def test_other_settings_are_refused(tmp_path):
    """A checkpoint of another configuration is named, with both settings and the mend."""
    _Run(Fit(5), tmp_path / "run.pt").go()
    _Run(Fit(5, save_every=7.0), tmp_path / "run.pt").go()  # changes no number
    with pytest.raises(ValueError, match=r"run\.pt was made with .*delete the file"):
        _Run(Fit(6), tmp_path / "run.pt").go()


def test_batches_that_cannot_be_resumed_are_refused(tmp_path):
    """A plain iterator has no state that could be saved."""
    net = Mlp(1, 1)
    endless = iter(lambda: torch.zeros(4, 1), None)
    with pytest.raises(ValueError, match="to resume exactly"):
        next(fit(lambda b: net(b).sum(), net, endless, Fit(3), tmp_path / "run.pt"))


def test_batches_drawn_from_a_generator_resume(tmp_path):
    """Fresh samples need no state beside the generator that is passed as rng."""

    def run(steps):
        net, rng = nn.Linear(2, 1, bias=False), _rng(5)
        nn.init.ones_(net.weight)
        fresh = iter(lambda: torch.randn(4, 2, generator=rng), None)
        cfg = Fit(12, save_every=0.0)
        loss = lambda b: net(b).square().mean()
        losses = fit(loss, net, fresh, cfg, tmp_path / f"{steps}.pt", rng=rng)
        return list(islice(losses, steps))

    whole = run(12)
    run(5)
    (tmp_path / "5.pt").rename(tmp_path / "11.pt")
    assert run(11) == whole[:11]


@pytest.mark.parametrize("steps", [10, 37, 1000])
def test_one_cycle_is_torchs(steps):
    """Oracle: torch's OneCycleLR with its defaults."""
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.OneCycleLR(
        opt, max_lr=3e-3, total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        got = learning_rate(step, Fit(steps, lr=3e-3, schedule="one_cycle"))
        assert got == pytest.approx(oracle.get_last_lr()[0], rel=1e-9)
        opt.step()
        if step < steps - 1:
            oracle.step()


def test_constant_schedule_is_adam():
    """Oracle: torch's Adam in a plain loop, bit for bit, with clipping by torch."""
    x = torch.randn(16, 2, generator=_rng())
    nets = [nn.Linear(2, 1), nn.Linear(2, 1)]
    nets[1].load_state_dict(nets[0].state_dict())
    loss = lambda net, b: (net(b) - 10).square().mean()
    cfg = Fit(6, lr=0.05, betas=(0.5, 0.9), weight_decay=0.1, clip=0.3)
    got = list(fit(lambda b: loss(nets[0], b), nets[0], iter([x] * 6), cfg))
    opt = torch.optim.Adam(nets[1].parameters(), lr=0.05, betas=(0.5, 0.9), weight_decay=0.1)
    for value in got:
        opt.zero_grad()
        oracle = loss(nets[1], x)
        assert oracle.item() == value
        oracle.backward()
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.3)
        opt.step()
    assert torch.equal(nets[0].weight, nets[1].weight)


def test_one_cycle_is_used():
    """Oracle: a plain loop with torch's OneCycleLR."""
    x = torch.randn(16, 2, generator=_rng())
    nets = [nn.Linear(2, 1), nn.Linear(2, 1)]
    nets[1].load_state_dict(nets[0].state_dict())
    loss = lambda net, b: (net(b) - 10).square().mean()
    cfg = Fit(20, lr=0.5, schedule="one_cycle")
    list(fit(lambda b: loss(nets[0], b), nets[0], iter([x] * 20), cfg))
    opt = torch.optim.Adam(nets[1].parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        opt, max_lr=0.5, total_steps=20, cycle_momentum=False
    )
    for step in range(20):
        opt.zero_grad()
        loss(nets[1], x).backward()
        opt.step()
        if step < 19:
            cycle.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-5, atol=1e-6)


def test_unknown_schedule_is_refused():
    """The two names are said."""
    with pytest.raises(ValueError, match="'constant' or 'one_cycle', not 'cosine'"):
        learning_rate(0, Fit(10, schedule="cosine"))


def test_an_epoch_shows_every_row_once():
    """Pairs stay together; the next epoch has another order; the rest of an epoch is dropped."""
    x = torch.arange(21)
    batches = minibatches((x, 10 * x), 5, _rng())
    epochs = [torch.cat([next(batches)[0] for _ in range(4)]) for _ in range(50)]
    assert all(len(e.unique()) == 20 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert len(torch.cat(epochs).unique()) == 21
    a, b = next(batches)
    assert torch.equal(10 * a, b)


@pytest.mark.parametrize("batch", [0, 22])
def test_impossible_batch_sizes_are_refused(batch):
    """Zero, and more than there are rows."""
    with pytest.raises(ValueError, match="between 1 and 21"):
        minibatches(torch.arange(21), batch, _rng())


def test_ema_is_the_weighted_sum():
    """Oracle: the sum (1 - d) sum_k d^(n-k) p_k + d^n p_0; buffers are copied."""
    net, d = nn.BatchNorm1d(1), 0.8
    ema, values = Ema(net, d), [1.0]  # batch norm starts at weight 1
    for k in range(1, 6):
        with torch.no_grad():
            net.weight.fill_(k**2)
            net.running_mean.fill_(k)
        ema.update(net)
        values.append(k**2)
    oracle = d**5 * values[0] + (1 - d) * sum(d ** (5 - k) * values[k] for k in range(1, 6))
    assert ema.average.weight.item() == pytest.approx(oracle, rel=1e-6)
    assert ema.average.running_mean.item() == 5 and net.weight.item() == 25


def test_progress_passes_values_on(capsys):
    """The losses unchanged; the bar is plain text on stdout and nothing goes to stderr."""
    assert list(progress(iter([3.0, 2.0, 1.0]), 3, "fit")) == [3.0, 2.0, 1.0]
    out, err = capsys.readouterr()
    assert err == "" and "3/3" in out and "fit" in out and out.isascii()
