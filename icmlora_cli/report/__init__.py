"""Results as tables and cards. Nothing here prints or measures."""
