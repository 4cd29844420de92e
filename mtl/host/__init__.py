"""The machine: files, processes, memory, signals, text made safe to show."""
