"""Train one LoRA for each task, by one process or several."""
