"""The parts of ``registry verify``, ``gc``, ``export`` and ``import``: checks, quarantine, duplicates, archives."""
