"""What was measured, in 80 columns for people, and the progress of measuring it."""
