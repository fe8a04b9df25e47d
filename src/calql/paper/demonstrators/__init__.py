"""Local data: one file a domain that demonstrates, `run` that repeats it in parallel and stores what came out."""
