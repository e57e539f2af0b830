"""Files, folders and leases. Everything is written under a temporary name, synced to the disk, and renamed."""
