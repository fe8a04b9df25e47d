"""Evaluations begin their episodes alike, so that a curve does not move with the luck of the starts."""

import tiny

from calql.training import loop


def starts(folder, method, monkeypatch, **options):
    """Seeds of the resets of each evaluation of a run."""
    made, seen = tiny.trainer(folder, method, **options), []
    original = tiny.Slope.reset

    def reset(self, *, seed=None, options=None):
        seen.append(seed)
        return original(self, seed=seed, options=options)

    with monkeypatch.context() as patched:
        patched.setattr(tiny.Slope, "reset", reset)
        rows = []
        for event in loop.run(made):
            if event.kind in ("evaluation", "episode"):
                if event.kind == "evaluation" and seen:
                    rows.append(tuple(seen))
                seen.clear()
    return rows


def test_all_evaluations_of_a_seed_share_their_starts(tmp_path, monkeypatch):
    rows = starts(tmp_path / "a", "cal-ql", monkeypatch)
    assert len(rows) > 4
    assert len(set(rows)) == 1
    assert set(starts(tmp_path / "b", "sac", monkeypatch)) == set(rows)
    assert not set(starts(tmp_path / "c", "cal-ql", monkeypatch, seed=6)) & set(rows)
