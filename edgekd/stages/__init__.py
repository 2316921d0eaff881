"""The stages: ``stage(spec, inputs, out, emit) -> facts``. They never import one another."""
