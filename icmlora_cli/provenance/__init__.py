"""How an output was made: versions, licences and energy; and the local paths that must not leave this machine."""
