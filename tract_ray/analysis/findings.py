"""The sentence at a sweep's end: whether its best configuration is the best."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tract_ray.analysis.rows import TrialRow, objectives
from tract_ray.analysis.statistics import pareto_front, verdict


def finding(best: Sequence[TrialRow], *, costly: bool) -> str:
    """About the finished rows, best first; "" if there are none.

    Where rows differ in cost and that is an objective (`costly`), a distance is compared with others of the same number
    of parameters only: a smaller student with a larger distance is not worse, and both may be on the Pareto front.
    """
    # Rows may be equal but for their names: of those, the verdict is about the best.
    seen: dict[str, TrialRow] = {}
    for row in best:
        seen.setdefault(json.dumps(row.changes, sort_keys=True), row)
    different = list(seen.values())
    if not different:
        return ""
    if not costly:
        return _compared(different)
    front = [different[k] for k in pareto_front([objectives(row) for row in different])]
    said = []
    for leader in front:
        same = [row for row in different if row.parameters == leader.parameters]
        if len(same) > 1 and leader.parameters not in {row.parameters for row in front[: front.index(leader)]}:
            said.append(f"of {leader.parameters:,} parameters, {_compared(same)}")
    alone = [row.label for row in front if sum(other.parameters == row.parameters for other in different) == 1]
    if alone:
        said.append(f"{', '.join(alone)}: no other has as many parameters, so its distance is compared with none")
    return "; ".join(said)


def _compared(rows: Sequence[TrialRow]) -> str:
    return verdict({row.label: row.seeds or (row.distance or 0.0,) for row in rows}, [row.label for row in rows]).text
