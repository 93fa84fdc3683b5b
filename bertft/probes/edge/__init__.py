"""Edge probes of labelled spans."""
