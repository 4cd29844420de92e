"""What ``scripts/bench`` runs: ratios of times, both sides in processes of their own, round by round."""
