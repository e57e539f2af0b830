"""How an output was made: versions, licences, energy, and the local paths that must not leave this machine."""
