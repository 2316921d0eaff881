"""Students and teachers in plain torch, written to export cleanly."""
