"""Your own tracker: every event of a run as a line of JSON, in events.jsonl beside its tables.

calql train --trackers examples.event_log:EventLog --out runs/logged
"""

import json


class EventLog:
    """Made once per start of a run, then called with every event; `close`, if there is one, is called at the end."""

    def __init__(self, experiment, run_dir):
        self.path, self.file = run_dir / "events.jsonl", None

    def __call__(self, event):
        """Write one event: its kind, phase, step and numbers."""
        self.file = self.file or self.path.open("a")  # at the first event the run has its folder
        self.file.write(json.dumps(event._asdict(), default=str) + "\n")

    def close(self):
        """Also after a run that was stopped or failed."""
        if self.file:
            self.file.close()
