"""Oracles: exhaustive distances, k-means by hand, autograd, enumeration of every code string."""

import itertools
from math import log

import torch
import torch.nn.functional as F

from dgm.vqprior import CodePrior
from dgm.vqvae import VQVAE, EmaCodebook, encode_codes, nearest_code, perplexity, quantise, vq_loss

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_nearest_code():
    """Oracle: all distances by cdist. Kills: argmax, the norm of the code forgotten."""
    z, book = draw(5, 7, 3), 3 * draw(11, 3, seed=1)
    expected = torch.cdist(z.reshape(-1, 3), book).argmin(-1).reshape(5, 7)
    assert torch.equal(nearest_code(z, book), expected)


def test_straight_through():
    """The value is the code, the gradient that of z_e: identity from z_q to z_e."""
    z, book = draw(2, 4, 3).requires_grad_(), draw(6, 3, seed=1).requires_grad_()
    q = quantise(z, book)
    torch.testing.assert_close(q.z_q, book[q.codes])
    g = draw(2, 4, 3, seed=2)
    gz, gb = torch.autograd.grad(q.z_q, (z, book), g, allow_unused=True)
    torch.testing.assert_close(gz, g)
    assert gb is None  # reconstruction must not reach the codebook


def test_codebook_and_commitment_gradients():
    """Each loss moves one side only, by 2 (difference). Kills: swapped or lost detach."""
    z, book = draw(2, 4, 3).requires_grad_(), draw(6, 3, seed=1).requires_grad_()
    q = quantise(z, book)
    gz, gb = torch.autograd.grad(q.codebook.sum(), (z, book), retain_graph=True, allow_unused=True)
    assert gz is None
    expected = torch.zeros_like(book)
    diff = 2 * (book[q.codes] - z).detach()
    expected.index_add_(0, q.codes.flatten(), diff.flatten(0, 1))
    torch.testing.assert_close(gb, expected)
    gz, gb = torch.autograd.grad(q.commitment.sum(), (z, book), allow_unused=True)
    torch.testing.assert_close(gz, -diff)
    assert gb is None


def test_losses_are_per_example_sums():
    """Oracle: squared distance of each example, by hand."""
    z, book = draw(2, 4, 3), draw(6, 3, seed=1)
    q = quantise(z, book)
    by_hand = torch.stack(
        [sum((v - book[c]).norm() ** 2 for v, c in zip(*pair)) for pair in zip(z, q.codes)]
    )
    torch.testing.assert_close(q.codebook, by_hand)
    torch.testing.assert_close(q.commitment, by_hand)


def test_perplexity():
    """Oracle: uniform use of m codes has perplexity m; half and quarters by hand."""
    assert abs(perplexity(torch.arange(8).repeat(3), 16).item() - 8) < 1e-5
    value = perplexity(torch.tensor([[0, 0], [1, 2]]), 5)
    assert abs(value.item() - 2**1.5) < 1e-5


def test_ema_is_the_batch_mean_at_decay_zero():
    """Oracle: one k-means update. Kills: counts not divided out, sums over the wrong axis."""
    book = EmaCodebook(4, 3, decay=0.0).to(F64)
    z = draw(10, 5, 3)
    codes = nearest_code(z, book.book)
    book.update(z, codes)
    for m in codes.unique():
        torch.testing.assert_close(book.book[m], z[codes == m].mean(0))


def test_ema_converges_to_the_cluster_mean():
    """After many updates with the same batch the start is forgotten, at rate decay."""
    book = EmaCodebook(2, 3, decay=0.9).to(F64)
    start = book.book.clone()
    z, codes = draw(8, 3), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    for _ in range(5):
        book.update(z, codes)
    left = 0.9**5  # weight of the start, which counts as one vector
    expected = (left * start[1] + (1 - left) * z[6:].sum(0)) / (left + (1 - left) * 2)
    torch.testing.assert_close(book.book[1], expected)


def test_restart_revives_only_dead_codes():
    """Dead codes land on given vectors, the others stay."""
    book = EmaCodebook(5, 3).to(F64)
    book.counts.copy_(torch.tensor([3.0, 0.1, 2.0, 0.0, 1.0]))
    before, z = book.book.clone(), draw(6, 3)
    assert book.restart(z, torch.Generator().manual_seed(0)) == 2
    torch.testing.assert_close(book.book[[0, 2, 4]], before[[0, 2, 4]])
    assert (torch.cdist(book.book[[1, 3]], z).min(1).values == 0).all()
    torch.testing.assert_close(book.sums[[1, 3]], book.book[[1, 3]])
    assert (book.counts >= 0.5).all()


def test_vqvae_sites_keep_their_place():
    """Changing one corner of the image changes that corner's code vector, not the far one."""
    torch.manual_seed(0)
    model, x = VQVAE(8, 4, 8), torch.rand(1, 1, 28, 28)
    other = x.clone()
    other[..., :4, :4] = 1 - other[..., :4, :4]
    moved = (model.encode(x) - model.encode(other)).abs().sum(-1)[0]
    assert moved[0] > 0 and moved[48] == 0 and moved.shape == (49,)
    logits = model.decode(model.encode(x))
    assert logits.shape == (1, 784)
    z = model.encode(x).detach().requires_grad_()
    (g,) = torch.autograd.grad(model.decode(z)[0, 0], z)  # top-left pixel
    assert g[0, 0].abs().sum() > 0 and g[0, 48].abs().sum() == 0


def test_prior_is_causal():
    """Oracle: a changed code moves only the logits after it. Kills: an off-by-one shift."""
    torch.manual_seed(0)
    prior, y = CodePrior(5, side=3, hidden=8), torch.tensor([1])
    codes = torch.randint(5, (1, 9))
    base = prior(codes, y)
    for i in range(9):
        changed = codes.clone()
        changed[0, i] = (codes[0, i] + 1) % 5
        moved = (prior(changed, y) - base).abs().sum(-1)[0] > 0
        assert not moved[: i + 1].any()
        assert moved[i + 1 :].all()


def test_prior_sums_to_one():
    """Oracle: all 2^4 strings of two codes on a 2x2 grid, for both classes."""
    torch.manual_seed(0)
    prior = CodePrior(2, side=2, hidden=8, n_classes=2)
    every = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    for y in (0, 1):
        log_p = prior.log_prob(every, torch.full((16,), y))
        assert abs(log_p.exp().sum().item() - 1) < 1e-5
        assert log_p.max() < -log(4)  # no string hoards the mass at initial weights


def test_prior_sampling():
    """Oracle: the enumerated probabilities, six standard errors each."""
    torch.manual_seed(0)
    prior = CodePrior(2, side=2, hidden=8, n_classes=2)
    for p in prior.parameters():
        p.data.mul_(2)
    every = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    p = prior.log_prob(every, torch.ones(16, dtype=torch.long)).exp()
    n = 20_000
    codes = prior.sample(torch.ones(n, dtype=torch.long), torch.Generator().manual_seed(0))
    freq = torch.bincount((codes * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / n
    assert ((freq - p).abs() < 6 * (p * (1 - p) / n).sqrt()).all()


def test_loss_and_its_side_effects():
    """Oracle: quantisation and Bernoulli nats by hand; the codebook follows, dead codes return."""
    torch.manual_seed(0)
    m = VQVAE(8, 4, 8)
    m.codebook.counts[3:] = 0.0  # dead
    x = torch.ones(2, 1, 28, 28)  # ones stay ones under binarisation
    z_e = m.encode(x)
    q = quantise(z_e, m.codebook.book)
    logits = m.decode(q.z_q)
    nll = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
    loss = vq_loss(m, torch.Generator().manual_seed(0), restart_until=1)
    before = m.codebook.book.clone()
    torch.testing.assert_close(loss(x), (nll + 0.25 * q.commitment).mean())
    moved = (m.codebook.book != before).any(1)
    used = torch.zeros(8, dtype=torch.bool).index_fill(0, q.codes.flatten(), True)
    assert moved[used].all() and moved[3:].all()  # by their means, by the restart of call 0
    assert torch.cdist(m.codebook.book[-1:], z_e.flatten(0, 1)).min() < 1e-5
    m.codebook.counts.zero_()
    loss(x)
    assert (m.codebook.counts < 0.5).any()  # call 1 is past restart_until


def test_encode_codes():
    """Oracle: one image at a time."""
    torch.manual_seed(0)
    m, x = VQVAE(8, 4, 8), (torch.rand(5, 784) > 0.5).float()
    each = [nearest_code(m.encode(v.reshape(1, 1, 28, 28)), m.codebook.book)[0] for v in x]
    assert torch.equal(encode_codes(m, x), torch.stack(each))
