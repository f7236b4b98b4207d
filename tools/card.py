"Draw nbs/images/card.png, the picture that other sites show beside a link to the course."
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt

from vidcls.data.synthetic import motion_clip

root = Path(__file__).resolve().parents[1]


def draw(
    path:Path, # A PNG file to write, 1200 by 630 pixels
):
    "Draw the name of the project above some frames of a clip."
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor='#1d57a3')
    fig.text(.06, .80, 'vidcls', color='white', fontsize=60, weight='bold')
    fig.text(.06, .68, 'Video classification: a course and a toolkit', color='white', fontsize=28)
    frames = motion_clip('right', 3, n_frames=16, size=96)[::4]
    for i,frame in enumerate(frames):
        ax = fig.add_axes((.06 + .225*i, .1, .21, .4))
        ax.imshow(frame)
        ax.axis('off')
    fig.savefig(path, metadata=dict(Software=None), facecolor=fig.get_facecolor())


if __name__ == '__main__':
    draw(root/'nbs'/'images'/'card.png')
