"""The playground of ``icmlora play``: what its page can ask for, without HTTP."""
