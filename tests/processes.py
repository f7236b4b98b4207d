"Scripts that run in several processes, as a launcher starts them."
import os
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != 'linux', reason='gloo and signals, tried on Linux')


def run_script(
    file, # Where the script is written
    script:str, # What each process runs
    *args, # What it finds in sys.argv
    n:int=2, # Processes; a single one is started without a launcher
    timeout_s:float=300, # Seconds that all of it may take
    told:bool=True, # Is accelerate told to take the CPU, as by `accelerate launch --cpu`?
    **how, # Further arguments of subprocess.run
)->subprocess.CompletedProcess:
    "Run a script in processes on one CPU that find each other through torchrun."
    file.write_text(script)
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={n}'] if n > 1 else []
    env = {**os.environ, **({'ACCELERATE_USE_CPU': 'true'} if told else {}), 'OMP_NUM_THREADS': '1'}
    words = [sys.executable, *launcher, file, *map(str, args)]
    return subprocess.run(words, env=env, timeout=timeout_s, **how)
