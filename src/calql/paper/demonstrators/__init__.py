"""Local data: one demonstrator per domain; `run` repeats it in parallel and stores the episodes."""
