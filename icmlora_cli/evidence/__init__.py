"""What a text and examples say of a task: candidates are made of them, and judged on what they were not made of."""
