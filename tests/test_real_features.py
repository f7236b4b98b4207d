"The kept features of real clips are those that the code of today computes."
from pathlib import Path

import numpy as np
import pytest

from vidcls.studies.kept import KEPT_SETS, features_to_keep
from vidcls.studies.real import real_set

kept_in = Path(__file__).resolve().parents[1]/'benchmarks'/'real_features'


@pytest.mark.parametrize('name', KEPT_SETS)
def test_kept_features_are_those_of_the_clips(real_data, name):
    "Four clips of each set are embedded anew; names, labels and groups hold for all of them."
    table = real_set(real_data, KEPT_SETS[name])
    with np.load(kept_in/f'{name}.npz') as file:
        kept = dict(file)
    for column in ('path', 'label', 'group'):
        assert kept.pop(column).tolist() == table.df[column].tolist()
    rows = np.linspace(0, len(table)-1, 4).astype(int)
    chosen = np.isin(np.arange(len(table)), rows)
    fresh = features_to_keep(table.filter(chosen))
    assert fresh.keys() == kept.keys()
    for kind,x in fresh.items():
        assert np.allclose(x.astype(float), kept[kind][rows].astype(float), atol=.02, rtol=.02), kind
