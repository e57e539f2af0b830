"""Send an output to the hub, once it has been checked."""
