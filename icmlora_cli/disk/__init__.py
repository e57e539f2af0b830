"""Files, folders and leases: everything is written aside, synced and renamed."""
