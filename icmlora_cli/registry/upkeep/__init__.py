"""What keeps a registry sound: checks, leftovers, quarantine, duplicates, archives."""
