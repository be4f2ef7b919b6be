"""What if the same clusters held other units?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from modscope.nulls.registry import null_model
from modscope.nulls.subjects import LabelledUnits


@null_model("labels")
def shuffle_labels_within_groups(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps how many units of each group have each label; destroys which units they are.

    Units that are left out (-1) stay so. Give finer groups (group x decile of degree) to keep more.
    """
    labelled: LabelledUnits = subject
    units = np.flatnonzero(labelled.labels >= 0)
    groups = labelled.group_of[units]
    in_order = units[np.argsort(groups, kind="stable")]
    at_random = units[np.lexsort((rng.random(len(units)), groups))]
    labels = labelled.labels.copy()
    labels[in_order] = labelled.labels[at_random]
    return replace(labelled, labels=labels)
