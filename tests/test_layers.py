"The layers of a transformer against their definitions: what the lesson builds, in more detail."
import copy, re

import pytest
import torch
from fastcore.test import test_close as close
from torch import nn

from vidcls.core import ArgumentError, ClipSpec
from vidcls.models.layers import (Attention, Block, DropPath, TubeletEmbed, VideoModel, drop_path_rates,
                                  new_head, resample_pos_embed, sincos_pos_embed)
from vidcls.models.logits import check_logits, predict_logits


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_attention(key_bias=False):
    attn = Attention(dim=12, heads=3, key_bias=key_bias).double()
    for p in attn.parameters():
        nn.init.normal_(p)
    return attn


def test_tokens_lie_side_by_side_and_a_missing_frame_is_not_seen():
    embed, x = TubeletEmbed(5, patch=4), torch.randn(2,3,4,8,12)
    assert embed(x).is_contiguous()
    assert embed(x[:,:,:3]).shape == (2,6,5)


def test_the_table_of_positions_knows_distance_alone():
    table = sincos_pos_embed(1568, 384)
    assert table[0,0].tolist() == [0.,1.]*192
    products = table[0] @ table[0].T                                             # (N,N)
    assert torch.equal(products.argmax(1), torch.arange(1568))       # each row is most like itself,
    others = products - 1e4*torch.eye(1568)
    assert ((others.argmax(1) - torch.arange(1568)).abs() == 1).all()            # and then like a neighbour
    close(products[700,705], products[100,105], eps=1e-3)


def test_resampling_keeps_the_table_where_nothing_changes():
    table = torch.randn(1,32,3)
    assert resample_pos_embed(table, (2,4,4), (2,4,4)) is table


def test_the_next_matrix_can_be_multiplied_in():
    attn, fc, x = random_attention(), nn.Linear(12, 5).double(), torch.randn(2,7,12).double()
    assert attn(x).shape == (2,7,12)
    close(attn(x, then=fc) + fc.bias, fc(attn(x)), eps=1e-12)


def test_both_forms_of_the_biases_give_the_same():
    attn, full, x = random_attention(), random_attention(key_bias=True), torch.randn(2,7,12).double()
    bias = torch.cat([attn.q_bias, torch.zeros(12), attn.v_bias])
    full.load_state_dict({'qkv.weight': attn.qkv.weight, 'qkv.bias': bias,
                          'proj.weight': attn.proj.weight, 'proj.bias': attn.proj.bias})
    close(full(x), attn(x), eps=1e-12)


def test_few_queries_get_the_same_answers():
    block, x = Block(dim=12, heads=3).double().eval(), torch.randn(2,7,12).double()
    close(block(x, n_queries=3), block(x)[:,:3], eps=1e-12)


def test_a_rate_of_zero_is_the_identity_in_training_too():
    ones = torch.ones(20,3,4)
    assert DropPath(0.)(ones) is ones


def test_a_block_without_branches_is_the_identity():
    block, x = Block(dim=12, heads=3).double().train(), torch.randn(2,7,12).double()
    block.drop_path.p = 1 - 1e-9
    assert (block(x) == x).all()


@pytest.mark.parametrize('eps, found', [(1e-5, 1/11**.5), (1e-6, 1/2**.5)])       # 0.001/sqrt(1e-6 + eps)
def test_eps_decides_on_flat_tokens(eps, found):
    flat = torch.tensor([[1.,-1.]*6])*1e-3
    close(Block(12, 3, eps=eps).norm1(flat)[0,0].item(), found, eps=1e-4)


def test_a_block_has_the_names_of_the_authors_checkpoints():
    D = 384
    assert sum(p.numel() for p in Block(D, 6).parameters()) == 12*D*D + 12*D
    assert list(Block(D, 6).state_dict()) == [
        'norm1.weight', 'norm1.bias', 'attn.q_bias', 'attn.v_bias', 'attn.qkv.weight', 'attn.proj.weight',
        'attn.proj.bias', 'norm2.weight', 'norm2.bias', 'mlp.fc1.weight', 'mlp.fc1.bias', 'mlp.fc2.weight',
        'mlp.fc2.bias']


def test_rates_rise_in_a_straight_line():
    assert drop_path_rates(.2, 3) == [0, .1, .2]
    assert drop_path_rates(.2, 1) == [0]


class Nano(VideoModel):
    def __init__(self, spec, n_classes=400, dim=24, depth=2):
        super().__init__(spec, frames=2, pixels=8)
        self.embed = TubeletEmbed(dim, patch=8)
        self.blocks = nn.ModuleList([Block(dim, 3, drop_path=.2) for _ in range(depth)])
        self.head = new_head(dim, n_classes)

    def forward_features(self, x):
        self.check_clips(x)
        x = self.embed(x)
        for block in self.blocks:
            x = self.run(block, x)
        return x

    def forward_head(self, x): return self.head(x.mean(1))


def test_checkpointing_repeats_the_dropped_paths_to_the_bit():
    usual = Nano(ClipSpec(n_frames=8, size=32), 5, depth=8)
    frugal, x = copy.deepcopy(usual), torch.randn(4,3,8,32,32)
    frugal.set_grad_checkpointing()
    for model in (usual, frugal):
        torch.manual_seed(0)
        model(x).square().sum().backward()
    for (name,p),q in zip(usual.named_parameters(), frugal.parameters()):
        assert torch.equal(p.grad, q.grad), name


def test_a_new_head_gives_other_scores():
    model, x = Nano(ClipSpec(n_frames=4, size=16), 5), torch.randn(2,3,4,16,16)
    assert model(x).shape == (2,5)
    model.reset_classifier(7)
    assert model(x).shape == (2,7) and model.n_classes == 7


# --- scores of another form

FORMS = {
    'one class': (lambda y: y[:,:1], 'scores of shape (2, 1); expected (B, 5), because its n_classes is 5'),
    'no mean': (lambda y: y[:,None], 'scores of shape (2, 1, 5); expected (B, 5). Does forward_head return'),
    'flat': (lambda y: y.flatten(), 'scores of shape (10,); expected (B, 5)'),
    'a tuple': (lambda y: (y,), 'a tuple; expected (B, 5)'),
}

@pytest.mark.parametrize('form', FORMS)
def test_scores_of_another_form_are_named(form):
    change, says = FORMS[form]
    class Wrong(Nano):
        def forward_head(self, x): return change(super().forward_head(x))
    model = Wrong(ClipSpec(n_frames=4, size=16), 5)
    with pytest.raises(ArgumentError, match=re.escape(f'Wrong gives {says}')):
        model(torch.randn(2,3,4,16,16))
    with pytest.raises(ArgumentError, match=re.escape(f'Wrong gives {says}')):
        predict_logits(model, torch.zeros(2,4,16,16,3, dtype=torch.uint8))


def test_fit_names_a_model_that_gives_too_few_scores(tmp_path):
    from vidcls import fit, from_folder, loaders, make_motion_clips
    class Few(Nano):
        def forward_head(self, x): return super().forward_head(x)[:,:-1]
    table = from_folder(make_motion_clips(tmp_path/'motion', n_groups=6, n_frames=4, size=16))
    model = Few(ClipSpec(n_frames=4, size=16), table.n_classes)
    with pytest.raises(ArgumentError, match=f'because its n_classes is {table.n_classes}. Does forward_head'):
        fit(model, loaders(table, model.spec, bs=4), epochs=1, show=False)


def test_a_plain_network_is_asked_for_its_last_layer():
    net = nn.Linear(3, 4)
    net.n_classes = 5
    with pytest.raises(ArgumentError, match='Linear gives .* Its last layer has to give n_classes scores'):
        check_logits(net(torch.zeros(2,3)), net, 2)
    assert check_logits(torch.zeros(2,4), nn.Identity(), 2).shape == (2,4)       # no n_classes: any number
    with pytest.raises(ArgumentError, match=re.escape('(3, 4); expected (2, K)')):
        check_logits(torch.zeros(3,4), nn.Identity(), 2)
