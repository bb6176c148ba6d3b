"""Named after the property they prove, against real servers."""
