"""Where experience comes from: one file a domain, one of wrappers, one of known-answer probes."""
