"""Draw the film of the home page: a shape changes its movement, and a network says which one it sees.

`python tools/home_clip.py` trains a small network on made clips, which takes some minutes, and writes
nbs/images/home.webp.
"""
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from vidcls.core import seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.scene import draw_frame, draw_scene
from vidcls.data.synthetic import MOVES, SPIN, make_motion_clips, roll_clips
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model
from vidcls.train import fit

root = Path(__file__).resolve().parents[1]
FRAMES, SIZE, SPEED = 8, 32, .05
PLAY = ('right', 'up', 'spin_cw', 'left', 'down_right', 'spin_ccw')          # twelve frames each
WIDTH, HEIGHT, FILM = 640, 300, 260


def train(
    folder:str, # For the clips
): # (network, labels)
    "Train on clips of eight movements, and print how it does on scenes that it has never seen."
    seed_everything(0)
    clips = make_motion_clips(folder, n_groups=240, n_frames=FRAMES, size=SIZE)
    table = from_folder(clips)
    net = create_model('videomae_tiny', n_classes=table.n_classes, n_frames=FRAMES, size=SIZE)
    data = loaders(table, net.spec, bs=32)
    fit(net, data, epochs=20, lr=2e-3, augment=roll_clips)
    print(evaluate(net, data.test, seed=0))
    return net, table.labels


def film(
    group:int=11, # The scene
)->np.ndarray: # uint8 (T,FILM,FILM,3)
    "Draw one long film in which the movement changes."
    scene, pose, frames = draw_scene(np.random.default_rng(group)), np.array([.5, .5, .3]), []
    for move in PLAY*2:                            # twice, so that the answers of the loop have no seam
        for _ in range(12):
            frames.append(draw_frame(scene, tuple(pose), size=256))
            pose = (pose + SPEED*np.array(MOVES[move])*(1, 1, SPIN)) % (1, 1, 2*np.pi)
    return np.stack(frames)


def answers(net, frames):
    "Ask the network about the last frames at each moment of the film."
    small = np.stack([np.asarray(Image.fromarray(f).resize((SIZE, SIZE), Image.BOX)) for f in frames])
    net.eval()
    with torch.no_grad():
        windows = torch.from_numpy(np.stack([small[t-FRAMES:t] for t in range(FRAMES, len(small)+1)]))
        return net(net.spec.to_model(windows)).softmax(1).numpy()


def picture(frame, probs, labels):
    "Draw one picture: the film, and a bar for each movement."
    im = Image.new('RGB', (WIDTH, HEIGHT), 'white')
    im.paste(Image.fromarray(frame).resize((FILM, FILM)), (20, 20))
    draw, font = ImageDraw.Draw(im), ImageFont.load_default(18)
    for k, (label, p) in enumerate(zip(labels, probs)):
        y, best = 24 + 32*k, p == max(probs)
        draw.text((305, y), label, fill='#1a1a1a' if best else '#666666', font=font)
        draw.rectangle((420, y+3, 420 + 1 + round(190*float(p)), y+19), fill='#1a6fb5' if best else '#b8c9d9')
    return im


def main():
    "Train, film, ask, draw, write."
    with tempfile.TemporaryDirectory() as folder:
        net, labels = train(folder)
    frames = film()
    probs = answers(net, frames)
    half = len(frames)//2
    shown = [picture(frames[t], probs[t-FRAMES], labels) for t in range(half, len(frames))]
    to = root/'nbs'/'images'/'home.webp'
    shown[0].save(to, save_all=True, append_images=shown[1:], duration=125, loop=0, quality=60, method=6)
    print(f"{to.relative_to(root)}: {to.stat().st_size/1e3:.0f} kB, {len(shown)} pictures")


if __name__ == '__main__':
    main()
