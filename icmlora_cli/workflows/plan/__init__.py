"""What harvest, training and generation take on a base, without its weights."""
