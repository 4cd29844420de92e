"""What ``scripts/accelerator`` runs: checks of a device, each in a process of its own."""
