"The changes of RandAugment against Pillow, and what every augmentation must keep."
import numpy as np, pytest, torch
from PIL import Image, ImageEnhance, ImageOps
from vidcls.augment import FILL, OPS, PRESETS, Augment, ColorJitter, Compose, Flip, FrameDrop, GaussianBlur
from vidcls.augment import Greyscale, MultiScaleCrop, RandAugment, RandomErasing, RandomResizedCrop
from vidcls.augment import RandomSquare, Reverse, Rotate, Speed, TimeJitter, augmentation
from vidcls.core import ArgumentError
from vidcls.data.public import flip_classes
from vidcls.data.synthetic import MOVES, motion_clip

# all changes, and all presets; a new one belongs here
EVERYTHING = [
    RandomResizedCrop(), MultiScaleCrop(), RandomSquare(), Flip(), Reverse(), ColorJitter(), Greyscale(.5),
    Rotate(), GaussianBlur(), RandomErasing(p=.7), Speed(), FrameDrop(), TimeJitter(), RandAugment(),
    *(augmentation(name, ['left','right']) for name in PRESETS),
]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def left():
    "Three clips that move left, and their labels."
    clips = np.stack([motion_clip('left', g, n_frames=8) for g in (3, 5, 8)])
    return torch.from_numpy(clips), torch.zeros(3, dtype=torch.long)


def test_the_list_has_every_change():
    import vidcls.augment
    found = (getattr(vidcls.augment, n) for n in vidcls.augment.__all__)
    kinds = {c for c in found if isinstance(c, type) and issubclass(c, Augment)} - {Augment}
    assert kinds == {type(a) for a in EVERYTHING if isinstance(a, Augment)}


@pytest.mark.parametrize('a', EVERYTHING, ids=lambda a: repr(a)[:30])
def test_what_holds_for_all_of_them(a, left):
    "The seed decides, shape and type stay, nothing is written over, and still clips stay still."
    xb, yb = left
    before = xb.clone()
    first, second = (a(xb, yb, draws(4))[0] for _ in range(2))
    a(xb, yb, draws(5))
    assert torch.equal(first, second)
    assert (first.shape, first.dtype) == (xb.shape, torch.uint8)
    assert torch.equal(xb, before)
    s = a(xb[:,:1].expand(-1, 6, -1, -1, -1), yb, draws(6))[0]
    assert torch.equal(s, s[:,:1].expand_as(s))
    assert a(xb[:1,:1,:33,:47], yb[:1], draws())[0].shape == (1,1,33,47,3)   # one clip, one frame, odd sizes
    if isinstance(a, Augment):
        assert torch.equal(type(a)(p=0)(xb, yb, draws())[0], xb)


def test_two_of_eight_movements_stay_what_they_are_in_a_mirror():
    after = flip_classes(MOVES).tolist()
    assert [name for k, name in enumerate(MOVES) if after[k] == k] == ['up', 'down']


def test_what_an_augmentation_refuses(left):
    xb, yb = left
    for wrong, says in (
        (lambda: augmentation('strnog'), "Did you mean 'strong'?"),
        (lambda: Flip()(xb.float(), yb, draws()), 'expected torch.uint8'),
        (lambda: Flip()(xb, yb[:1], draws()), 'labels have shape'),
        (lambda: Flip(p=2), 'p=2'),
        (lambda: Flip([1,0], p=1)(xb, yb+5, draws()), 'label 5'),
    ):
        with pytest.raises(ArgumentError) as e:
            wrong()
        assert says in str(e.value)


def test_compose_says_what_to_write():
    for steps, says in (
        ([Flip], 'steps[0] is the class Flip; write Flip()'),
        ([Flip(), Reverse], 'steps[1] is the class Reverse; write Reverse()'),
        (Flip, 'write Compose([Flip()])'),
        (Greyscale(), 'write Compose([Greyscale(p=1.0)])'),
        (None, 'steps=None; accepted: a list'),
        (['flip'], "steps[0]='flip'; accepted: augmentations"),
    ):
        with pytest.raises(ArgumentError) as e:
            Compose(steps)
        assert says in str(e.value)
    assert Compose([]).steps == [] and len(Compose(iter([Flip(), Reverse()])).steps) == 2


@pytest.fixture(scope='module')
def still():
    "A clip that stands still (3,H,W,C), smooth with noise on it, as Pillow's functions look at one picture."
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    image = np.stack([120 + 60 * np.sin(x / 9), 100 + 50 * np.cos(y / 7), 40 + 2 * x + y], -1) + rng.normal(
        0, 6, (48, 64, 3)
    )
    image = image.clip(5, 240).round().astype(np.uint8)
    return Image.fromarray(image), torch.from_numpy(np.stack([image]*3))


def close(ours, pil, levels, share=1.):
    diff = np.abs(ours[1].numpy().astype(int) - np.asarray(pil).astype(int))
    assert (ours[0] == ours[1]).all() and (ours[1] == ours[2]).all()  # one draw, all frames alike
    assert (diff <= levels).mean() >= share, (
        f"{(diff <= levels).mean():.3f} within {levels}, largest {diff.max()}"
    )


def pillow(name, image, v):
    W, H = image.size
    grey = (int(FILL),)*3
    move = lambda m: image.transform(image.size, Image.AFFINE, m, resample=Image.BILINEAR, fillcolor=grey)
    return {
        'autocontrast': lambda: ImageOps.autocontrast(image),
        'equalize': lambda: ImageOps.equalize(image),
        'invert': lambda: ImageOps.invert(image),
        'rotate': lambda: image.rotate(3 * v, resample=Image.BILINEAR, fillcolor=grey),
        'posterize': lambda: ImageOps.posterize(image, 4 - int(0.4 * v)),
        'solarize': lambda: ImageOps.solarize(image, 256 - int(25.6 * v)),
        'solarize_add': lambda: Image.fromarray(
            np.where(
                np.asarray(image) < 128,
                np.minimum(np.asarray(image).astype(int) + int(11 * v), 255),
                np.asarray(image),
            ).astype(np.uint8)
        ),
        'color': lambda: ImageEnhance.Color(image).enhance(1 + 0.09 * v),
        'contrast': lambda: ImageEnhance.Contrast(image).enhance(1 + 0.09 * v),
        'brightness': lambda: ImageEnhance.Brightness(image).enhance(1 + 0.09 * v),
        'sharpness': lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.09 * v),
        'shear_x': lambda: move((1, 0.03 * v, -0.03 * v * H / 2, 0, 1, 0)),
        'shear_y': lambda: move((1, 0, 0, 0.03 * v, 1, -0.03 * v * W / 2)),
        'translate_x': lambda: move((1, 0, 0.045 * v * W, 0, 1, 0)),
        'translate_y': lambda: move((1, 0, 0, 0, 1, 0.045 * v * H)),
    }[name]()


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('v', [3., 7., -7.])
def test_randaugment_changes_are_pillows(name, v, still):
    f, signed = OPS[name]
    if v < 0 and not signed:
        pytest.skip('this change has no direction')
    image, clip = still
    moved = name in ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y')
    # at the rim Pillow fills whole pixels, we blend; inside both are bilinear
    close(f(clip, v), pillow(name, image, v), *((3, .9) if moved else (2, 1.)))


def test_order_of_the_batch_does_not_matter_to_what_can_happen():
    "A clip's change depends on the draws of its own row: the others may be anything."
    gen = lambda: torch.Generator().manual_seed(3)
    a, b = torch.randint(0, 256, (2, 4, 3, 32, 32, 3), dtype=torch.uint8, generator=gen())
    b[2] = a[2]
    y = torch.zeros(4).long()
    for name in PRESETS:
        aug = augmentation(name, ['left', 'right'])
        assert (aug(a, y, gen())[0][2] == aug(b, y, gen())[0][2]).all(), name


@pytest.mark.parametrize('name', PRESETS)
def test_input_may_be_strided(name):
    # (B,T,H,W,C), not contiguous
    x = torch.randint(0, 256, (2, 3, 6, 40, 40), dtype=torch.uint8).permute(0, 2, 3, 4, 1)
    y = torch.tensor([0, 1])
    aug = augmentation(name, ['left', 'right'])
    gen = lambda: torch.Generator().manual_seed(1)
    for a, b in zip(aug(x, y, gen()), aug(x.contiguous(), y, gen())):
        assert (a == b).all()


def test_a_mirror_changes_the_label_in_fit():
    "The label that a loss sees is the one of the mirrored clip."
    seen = []
    flip = Flip([1, 0], p=1.)
    x, y = torch.randint(0, 256, (4, 2, 8, 8, 3), dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    out, after = Compose([flip, lambda a, b, g: (seen.append(b), (a, b))[1]])(x, y, torch.Generator())
    assert after.tolist() == [1, 0, 0, 1] == seen[0].tolist() and (out == x.flip(3)).all()


def test_wrong_layout_is_named():
    for bad in (
        torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 4, 8, 8, 3),
        np.zeros((2, 4, 8, 8, 3), np.uint8),
    ):
        with pytest.raises(ArgumentError, match='B,T,H,W,3'):
            augmentation('light')(bad, torch.zeros(2).long(), torch.Generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device here')
@pytest.mark.parametrize('name', PRESETS)
def test_gpu_does_what_the_cpu_does(name):
    x, y = torch.randint(0, 256, (4, 8, 64, 64, 3), dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    aug, gen = augmentation(name, ['left', 'right']), lambda: torch.Generator().manual_seed(1)
    (a, ya), (b, yb) = aug(x, y, gen()), aug(x.cuda(), y.cuda(), gen())
    assert (ya == yb.cpu()).all() and ((a.int()-b.cpu().int()).abs() <= 2).float().mean() > .99
