"""What this machine has to spare: processors and memory, cgroups counted."""
