"""What stands behind `trit compare`: answers made, votes on a terminal, results in words."""
